"""Users, as clients see them."""

from datetime import UTC, datetime, timedelta

from tests.support.api import Api
from tests.support.contract import assert_is_id, time_of


async def test_a_new_user_is_shown_as_it_is_read(api: Api) -> None:
    body = {"name": "Ada", "metadata": {"z": 1, "a": None, "né": "ü\u2028", "x": 1.5, "t": True}}
    created = await api.post("/users", body)
    assert created.status == 201
    assert list(created.json) == ["id", "name", "metadata", "created_at"]
    assert_is_id(created.json["id"])
    assert abs(time_of(created.json["created_at"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert created.json["name"] == "Ada"
    assert list(created.json["metadata"].items()) == list(body["metadata"].items())  # type: ignore[attr-defined]
    assert created.headers["Location"] == f"/users/{created.json['id']}"
    assert created.headers["Content-Type"] == "application/json"
    assert (await api.get(created.headers["Location"])).body == created.body


async def test_a_patch_changes_only_the_fields_that_it_names(api: Api) -> None:
    user = (await api.post("/users", {"name": "Ada", "metadata": {"a": 1}})).json
    for patch, name, metadata in (
        ({}, "Ada", {"a": 1}),
        ({"name": "Grace"}, "Grace", {"a": 1}),
        ({"metadata": {"b": 2}}, "Grace", {"b": 2}),
        ({"name": None, "metadata": {}}, None, {}),
    ):
        changed = await api.patch(f"/users/{user['id']}", patch)
        assert changed.status == 200
        assert changed.json == user | {"name": name, "metadata": metadata}
        assert (await api.get(f"/users/{user['id']}")).body == changed.body


async def test_text_and_metadata_may_be_as_long_as_promised(api: Api) -> None:
    name = "🂡" * 140
    metadata = {"k": "x" * (4096 - len('{"k":""}'))}
    created = await api.post("/users", {"name": name, "metadata": metadata})
    assert created.status == 201
    assert (created.json["name"], created.json["metadata"]) == (name, metadata)
    assert (await api.get(f"/users/{created.json['id']}")).body == created.body
