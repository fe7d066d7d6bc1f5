"""Routes: each path leads to one template, with its values decoded."""

import pytest

from tests.support.request_reader import request_of
from transferd.web.calls import Call
from transferd.web.problems import Problem
from transferd.web.replies import Reply
from transferd.web.routing import Route, Routes


async def handler(_: Call) -> Reply:
    return Reply()


ROUTES = Routes(
    Route(method, template, handler)
    for method, template in (
        ("GET", "/"),
        ("POST", "/transfers"),
        ("POST", "/transfers/batch"),
        ("GET", "/transfers/{id}"),
        ("POST", "/transfers/{id}/reversal"),
        ("GET", "/idempotency-keys/{key}"),
    )
)


@pytest.mark.parametrize(
    ("method", "target", "template", "values"),
    [
        ("GET", "/", "/", {}),
        ("GET", "/?a=b", "/", {}),
        ("HEAD", "/", "/", {}),
        ("POST", "/transfers", "/transfers", {}),
        ("POST", "/transfers?dry_run=true", "/transfers", {}),
        ("POST", "/%74ransfers", "/transfers", {}),
        ("POST", "/transfers/batch", "/transfers/batch", {}),
        ("GET", "/transfers/A-1", "/transfers/{id}", {"id": "A-1"}),
        ("GET", "/transfers/%41?x", "/transfers/{id}", {"id": "A"}),
        ("GET", "/transfers/a%2Fb", "/transfers/{id}", {"id": "a/b"}),
        ("GET", "/transfers/a%252Fb", "/transfers/{id}", {"id": "a%2Fb"}),
        ("POST", "/transfers/batch/reversal", "/transfers/{id}/reversal", {"id": "batch"}),
        ("GET", "/idempotency-keys/a/b%20c", "/idempotency-keys/{key}", {"key": "a/b c"}),
        ("HEAD", "/idempotency-keys/a", "/idempotency-keys/{key}", {"key": "a"}),
    ],
)
def test_a_path_leads_to_its_template(
    method: str, target: str, template: str, values: dict[str, str]
) -> None:
    route, found = ROUTES.find(request_of(target, method=method))
    assert (route.template, found) == (template, values)


@pytest.mark.parametrize(
    "target",
    ["/transfer", "/transfers/", "/transfers//reversal", "/transfers/a/b", "/idempotency-keys/",
     "//transfers", "/TRANSFERS", "/transfers/{id}", "/transfers/a/reversal/"],
)  # fmt: skip
def test_any_other_path_is_not_found(target: str) -> None:
    with pytest.raises(Problem) as caught:
        ROUTES.find(request_of(target, method="GET"))
    assert caught.value.code == "not-found"


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        ("GET", "/transfers/batch", "POST"),
        ("DELETE", "/transfers/a", "GET,HEAD"),
        ("OPTIONS", "/transfers", "POST"),
        ("BREW", "/", "GET,HEAD"),
    ],
)
def test_another_method_is_refused_with_those_that_are_allowed(
    method: str, target: str, allow: str
) -> None:
    with pytest.raises(Problem) as caught:
        ROUTES.find(request_of(target, method=method))
    assert caught.value.code == "method-not-allowed"
    assert caught.value.headers == {"Allow": allow}
