"""An operation is one method on one address; a table of them makes the routes and OpenAPI."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import orjson
from pydantic import BaseModel

from transferd.commit.answer import Answer
from transferd.domain.api_key import Scope
from transferd.web import cursors
from transferd.web.calls import Call
from transferd.web.problems import MEDIA_TYPE
from transferd.web.replies import JSON, Reply
from transferd.web.schemas import NoQuery, Query

Handler = Callable[[Call], Awaitable[Reply]]

# The description of every list in the order of ids.
BY_ID = (
    "For browsing, newest id first. An id is drawn before its row is committed, so a row can appear"
    " below rows that were listed before: a program that reads down to the newest id that it knows"
    " can miss rows, and never finds them."
)


@dataclass(frozen=True, slots=True)
class Operation:
    """A route with its description.

    `refusals` are the problem codes in addition to those of every operation. `answer` is None if
    the answer has no body, or a body that is not JSON: see `media_type`.
    """

    method: Literal["GET", "POST", "PATCH", "DELETE"]
    path: str
    # The operationId: a verb and its object. Generated clients name their functions after it.
    name: str
    handler: Handler
    summary: str
    answer: type[BaseModel] | None
    tag: str
    scope: Scope | None = None
    status: int = 200
    body: type[BaseModel] | None = None
    query: type[Query] = NoQuery
    is_list: bool = False
    # The answer with `dry_run=true`, if `query` has it.
    dry_run: type[BaseModel] | None = None
    media_type: str = "application/json"
    key: Literal["required", "optional", "none"] = "none"
    # Whether If-Match is compared with the wallet's version.
    has_if_match: bool = False
    # Whether an actor and a group commit execute it; for reads this is false.
    is_command: bool = True
    refusals: Sequence[str] = field(default_factory=tuple)
    # Facts for callers in addition to the summary.
    description: str = ""


def answered(answer: Answer, *, location: str | None = None) -> Reply:
    """The reply to a command; a replay has the header Idempotent-Replayed."""
    media_type = JSON if answer.status < 400 else MEDIA_TYPE
    extra = {}
    if answer.replayed:
        extra["Idempotent-Replayed"] = "true"
    if location is not None and answer.status == 201:
        extra["Location"] = location + _id_of(answer) if location.endswith("/") else location
    return Reply(answer.status, answer.body, media_type, extra)


def _id_of(answer: Answer) -> str:
    # Every body begins with its id: {"id":"<36 characters>", and a replay has its own.
    return answer.body[7:43].decode()


def shown(body: bytes, **extra: str) -> Reply:
    """A 200 with JSON."""
    return Reply(200, body, JSON, extra)


def listed(
    call: Call,
    scope: str,
    limit: int,
    items: Sequence[dict[str, object]],
    positions: Sequence[str | int],
) -> Reply:
    """A page. An item beyond `limit` means that there is a next page; it is not shown.

    `scope` is what its cursor belongs to.
    """
    has_more = len(items) > limit
    return page(call, scope, items[:limit], positions[limit - 1] if has_more else None)


def page(
    call: Call, scope: str, items: Sequence[dict[str, object]], end: str | int | None
) -> Reply:
    """A page. The next page begins after the position `end`; None: this is the last page."""
    cursor = None if end is None else cursors.encode(scope, end)
    has_more = cursor is not None
    body = orjson.dumps({"data": items, "has_more": has_more, "next_cursor": cursor})
    extra = {}
    if cursor is not None:
        url = call.request.url.update_query(cursor=cursor).with_fragment(None)
        extra["Link"] = f'<{url}>; rel="next"'
    return Reply(200, body, JSON, extra)
