"""Changes that need no actor: each is one PostgreSQL transaction, at most once per key.

They move no money and touch no wallet, so nothing orders them and no group carries them. The
promise of an Idempotency-Key is the same as everywhere: its outcome is stored beside the change.
"""

import asyncio
from collections.abc import Awaitable, Callable

from transferd.commit.answer import Answer
from transferd.domain.errors import (
    DatabaseUnavailable,
    DeadlineExceeded,
    Overloaded,
    RequestInProgress,
    TransferdError,
)
from transferd.domain.key import NO_FINGERPRINT, Fingerprint, Key
from transferd.domain.refusals import key_reused
from transferd.ledger.store.database import Transaction
from transferd.ledger.store.errors import ConnectionFailure, LockTimeout, SerializationFailure
from transferd.ledger.store.outcomes import StoredOutcome, insert_outcome, read_outcomes
from transferd.web.calls import Call
from transferd.web.problems import Problem

# Makes the change and its answer. It raises Problem to refuse: then nothing is stored and the key
# stays free, because the same request is refused again while the reason lasts.
Change = Callable[[Transaction], Awaitable[Answer]]


async def change_once(
    call: Call, change: Change, *, key: Key | None = None, fingerprint: Fingerprint = NO_FINGERPRINT
) -> Answer:
    """Run `change` in a transaction, or replay the outcome of the key.

    It runs again after a conflict, a lock timeout or a lost connection, while another attempt fits
    into the request's deadline. Raises Problem or TransferdError.
    """
    limits, clock = call.context.limits, call.context.clock
    deadline = clock() + limits.request_deadline_s
    wait_s = 0.0
    in_doubt = False
    failure: TransferdError
    while True:
        try:
            answer = await _attempt(call, change, key, fingerprint)
        except (SerializationFailure, LockTimeout):
            # Most often another request with the same key, which is not finished.
            failure = Overloaded() if key is None else RequestInProgress()
        except ConnectionFailure as error:
            if error.in_doubt and key is None:
                # Without a key a second attempt cannot know whether the first was committed.
                raise DeadlineExceeded from error
            in_doubt = in_doubt or error.in_doubt
            failure = DatabaseUnavailable()
        else:
            # After a lost COMMIT the stored outcome is the one of this request, not a replay.
            return answer._replace(replayed=answer.replayed and not in_doubt)
        if clock() + wait_s + limits.command_timeout_s > deadline:
            raise DeadlineExceeded() if in_doubt else failure
        await asyncio.sleep(wait_s)
        wait_s = min(max(2 * wait_s, limits.retry_wait_first_s), limits.retry_wait_max_s)


async def _attempt(call: Call, change: Change, key: Key | None, fingerprint: Fingerprint) -> Answer:
    async with call.ledger.database.transaction(is_retried=True) as transaction:
        if key is None:
            return await change(transaction)
        stored = (await read_outcomes(transaction, [key])).get(key)
        if stored is not None:
            return _replay(stored, fingerprint)
        answer = await change(transaction)
        if not await insert_outcome(
            transaction, key, fingerprint=fingerprint.value, status=answer.status, body=answer.body
        ):
            # The insert waited for the other COMMIT; the next attempt reads its outcome.
            raise SerializationFailure("another request with this key was faster")
    return answer


def _replay(stored: StoredOutcome, fingerprint: Fingerprint) -> Answer:
    body = stored.answer.body
    # Outcomes without a body are of transfers, whose fingerprints differ.
    if not fingerprint.matches(stored.fingerprint) or body is None:
        raise Problem.of_refusal(key_reused())
    return Answer(stored.status, body, replayed=True)
