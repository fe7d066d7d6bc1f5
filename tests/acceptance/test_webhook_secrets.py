"""Secrets of a webhook: an old one signs until the time that its rotation announced."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.conftest import Database, Replicas
from tests.support.api import Api
from tests.support.contract import footprint, time_of
from tests.support.pressure import crowd, statuses
from tests.support.store import open_main
from transferd.config import Limits
from transferd.domain.webhook import Webhook
from transferd.ledger.store.webhooks import read_webhook

_HOOK = {"url": "https://example.com/", "events": ["*"]}
# As written by a version that keeps only one old secret.
_ROTATED_BY_THE_VERSION_BEFORE = (
    "UPDATE ledger_00.webhooks SET previous_secret = secret, secret = 'whsec_b2xk',"
    " previous_secret_until = now() + interval '1 day', updated_at = now()"
)


async def stored(database: Database, id: str) -> Webhook:
    """A webhook as a notifier reads it."""
    async with open_main(database.settings()) as store:
        webhook = await read_webhook(store, id)
    assert webhook is not None
    return webhook


async def signing(database: Database, id: str, after_s: float = 0.0) -> list[str]:
    """The secrets that sign so many seconds from now."""
    webhook = await stored(database, id)
    promised = webhook.promised(datetime.now(UTC) + timedelta(seconds=after_s))
    return [webhook.secret, *(old.secret for old in promised)]


async def ended(database: Database, until: str) -> None:
    """Move the end of the secrets that end at this time into the past."""
    await database.fetch(
        "UPDATE ledger_00.webhooks SET old_secrets_until ="
        " array_replace(old_secrets_until, $1::timestamptz, now() - interval '1 s')",
        time_of(until),
    )


async def test_a_replaced_secret_signs_until_its_announced_end_after_several_rotations(
    api: Api, database: Database
) -> None:
    made = (await api.post("/webhooks", _HOOK)).json
    path, secrets = f"/webhooks/{made['id']}/rotate", [made["secret"]]
    until: list[str] = []
    for _ in range(3):
        rotated = (await api.post(path)).json
        secrets.insert(0, rotated["secret"])
        until.insert(0, rotated["previous_secret_until"])
        assert await signing(database, made["id"]) == secrets
    old = (await stored(database, made["id"])).old_secrets
    assert [each.secret for each in old] == secrets[1:]
    assert [each.until for each in old] == [time_of(time) for time in until]
    # A minute before the end of a day all of them sign, a minute after it none of the old ones.
    assert await signing(database, made["id"], 24 * 3600 - 60) == secrets
    assert await signing(database, made["id"], 24 * 3600 + 60) == secrets[:1]


async def test_an_expired_secret_is_removed_by_the_next_rotation(
    api: Api, database: Database
) -> None:
    made = (await api.post("/webhooks", _HOOK)).json
    rotations = [(await api.post(f"/webhooks/{made['id']}/rotate")).json for _ in range(3)]
    await ended(database, rotations[0]["previous_secret_until"])
    assert made["secret"] not in await signing(database, made["id"])
    last = (await api.post(f"/webhooks/{made['id']}/rotate")).json
    [row] = await database.fetch("SELECT w::text AS stored FROM ledger_00.webhooks w")
    assert made["secret"] not in row["stored"]
    assert await signing(database, made["id"]) == [
        each["secret"] for each in (last, *reversed(rotations))
    ]


async def test_a_rotation_that_would_end_a_secret_early_is_refused(
    replicas: Replicas, database: Database
) -> None:
    api = await replicas.start(replace(Limits(), webhook_secrets_max=3))
    made = (await api.post("/webhooks", _HOOK)).json
    path = f"/webhooks/{made['id']}/rotate"
    rotations = [(await api.post(path)).json for _ in range(2)]
    before, row = await footprint(database), await stored(database, made["id"])
    for key in (None, "third"):
        refused = await api.post(path, key=key)
        assert (refused.status, refused.code) == (409, "too-many-secrets")
        assert refused.json["free_at"] == rotations[0]["previous_secret_until"]
    assert await footprint(database) == before
    assert await stored(database, made["id"]) == row
    # Replays and new webhooks still work, and this one when the first secret has expired.
    other = (await api.post("/webhooks", _HOOK)).json
    assert (await api.post(f"/webhooks/{other['id']}/rotate")).status == 200
    await ended(database, rotations[0]["previous_secret_until"])
    third = await api.post(path, key="third")
    assert (third.status, "Idempotent-Replayed" in third.headers) == (200, False)
    assert await signing(database, made["id"]) == [
        third.json["secret"],
        rotations[1]["secret"],
        rotations[0]["secret"],
    ]


@pytest.mark.parametrize("level", ["read committed", "serializable"])
async def test_concurrent_rotations_keep_each_others_secrets(
    level: str, replicas: Replicas, database: Database
) -> None:
    await database.isolate(level)
    apis = [await replicas.start() for _ in range(2)]
    made = (await apis[0].post("/webhooks", _HOOK)).json
    path = f"/webhooks/{made['id']}/rotate"
    replies = await crowd(apis[n % 2].post(path) for n in range(12))
    assert statuses(replies) == {200: 12}
    secrets = {made["secret"], *(reply.json["secret"] for reply in replies)}
    assert len(secrets) == 13
    assert set(await signing(database, made["id"])) == secrets


async def test_concurrent_rotations_keep_the_limit_of_secrets(
    replicas: Replicas, database: Database
) -> None:
    api = await replicas.start(replace(Limits(), webhook_secrets_max=5))
    made = (await api.post("/webhooks", _HOOK)).json
    path = f"/webhooks/{made['id']}/rotate"
    replies = await crowd(api.post(path) for _ in range(12))
    assert statuses(replies) == {200: 4, 409: 8}
    secrets = {reply.json["secret"] for reply in replies if reply.status == 200}
    assert set(await signing(database, made["id"])) == {made["secret"], *secrets}


async def test_a_rotation_by_a_replica_of_the_version_before_keeps_older_secrets(
    api: Api, database: Database
) -> None:
    made = (await api.post("/webhooks", _HOOK)).json
    path, secrets = f"/webhooks/{made['id']}/rotate", [made["secret"]]
    for _ in range(2):
        secrets.insert(0, (await api.post(path)).json["secret"])
    await database.fetch(_ROTATED_BY_THE_VERSION_BEFORE)
    secrets.insert(0, "whsec_b2xk")
    assert await signing(database, made["id"]) == secrets
    shown = (await api.get(f"/webhooks/{made['id']}")).json
    old = (await stored(database, made["id"])).old_secrets
    assert time_of(shown["previous_secret_until"]) == old[0].until
    secrets.insert(0, (await api.post(path)).json["secret"])
    assert await signing(database, made["id"]) == secrets
