"""The state of an Idempotency-Key."""

import orjson

from transferd.cache.replays import Claim, Replay
from transferd.domain.key import Key
from transferd.ledger.store.outcomes import StoredOutcome, read_outcomes
from transferd.web import schemas
from transferd.web.calls import Call
from transferd.web.operations import Operation, shown
from transferd.web.problems import Problem
from transferd.web.replies import Reply


async def read(call: Call) -> Reply:
    """GET /idempotency-keys/{key}: PostgreSQL first; a claim only means that it may be pending."""
    text = call.path["key"]
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = text[1:-1]
    if "\x00" in text:
        raise Problem("idempotency-key-invalid")
    key: Key = (call.principal.client_id, text)
    stored = (await read_outcomes(call.ledger.database, [key])).get(key)
    if stored is not None:
        return shown(await _settled(call, stored))
    cached = await call.ledger.replays.look_up(key)
    if isinstance(cached, Replay):
        # The request was committed after PostgreSQL was read.
        return shown(_view(cached.status, cached.body))
    if call.ledger.router.pending(key) or cached is Claim.BUSY:
        return shown(orjson.dumps({"state": "pending", "status": None, "answer": None}))
    raise Problem(
        "not-found",
        "Nothing is known of this key. Only repeating the request with it settles what happens.",
    )


async def _settled(call: Call, stored: StoredOutcome) -> bytes:
    [body] = await call.context.rendering.replay([stored.answer], call.ledger.database)
    return _view(stored.status, body or b"null")


def _view(status: int, body: bytes) -> bytes:
    answer = orjson.loads(body)
    if isinstance(answer, dict):
        # The answer of a webhook holds a secret, and this route needs a lesser scope.
        answer.pop("secret", None)
    state = "succeeded" if status < 400 else "refused"
    return orjson.dumps({"state": state, "status": status, "answer": answer})


OPERATIONS = (
    Operation(
        "GET",
        "/idempotency-keys/{key}",
        "read_idempotency_key",
        read,
        "Read what an Idempotency-Key has led to",
        schemas.KeyState,
        "transfers",
        scope="wallets:read",
        refusals=("not-found", "idempotency-key-invalid"),
    ),
)
