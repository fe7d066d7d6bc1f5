"""The table of problems has a row for every error, and keeps the contract."""

from collections.abc import Iterator

import orjson
import pytest

from tests.unit.samples import ORIGIN
from transferd.domain import errors
from transferd.domain.errors import Reason, Refused, TransferdError
from transferd.ledger.store.errors import ConnectionFailure, Missing, NoConnectionFree
from transferd.web.problems import TYPES, Problem

# The problems of the HTTP contract, without those that only Nginx answers.
CONTRACT = """
400: malformed-request malformed-json idempotency-key-missing idempotency-key-invalid
    cursor-invalid
401: unauthenticated
403: forbidden
404: user-not-found wallet-not-found transfer-not-found webhook-not-found delivery-not-found
    not-found
405: method-not-allowed
409: request-in-progress reversal-exceeds-transfer not-reversible wallet-not-empty
    webhook-disabled too-many-secrets
412: version-not-reached version-changed
413: body-too-large
415: unsupported-media-type
422: invalid-request insufficient-funds currency-mismatch same-wallet wallet-frozen
    wallet-closed balance-out-of-range idempotency-key-reused
429: rate-limited mailbox-full
500: internal-error
502: bad-gateway
503: overloaded draining database-unavailable
504: deadline-exceeded
"""
CODE_OF = {
    errors.MailboxFull: "mailbox-full",
    errors.Overloaded: "overloaded",
    errors.Draining: "draining",
    errors.DatabaseUnavailable: "database-unavailable",
    ConnectionFailure: "database-unavailable",
    Missing: "database-unavailable",
    NoConnectionFree: "overloaded",
    errors.DeadlineExceeded: "deadline-exceeded",
    errors.RequestInProgress: "request-in-progress",
    errors.InternalFailure: "internal-error",
}


def kinds_of(kind: type[TransferdError]) -> Iterator[type[TransferdError]]:
    for each in kind.__subclasses__():
        yield each
        yield from kinds_of(each)


def test_every_problem_has_the_status_of_the_contract() -> None:
    promised: dict[str, int] = {}
    status = 0
    for word in CONTRACT.split():
        if word.endswith(":"):
            status = int(word.removesuffix(":"))
        else:
            promised[word] = status
    known = {code: kind.status for code, kind in TYPES.items()}
    assert promised.items() <= known.items()
    assert set(known.values()) == set(promised.values())


def test_every_problem_has_a_page() -> None:
    for kind in TYPES.values():
        assert kind.title
        assert kind.meaning.endswith(".")


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_of_a_refusal_is_a_problem(reason: Reason) -> None:
    problem = Problem.of_refusal(Refused(reason, "No.", {"left": 3}))
    assert problem.code == reason
    assert problem.detail == "No."
    assert 400 <= problem.status < 500
    shown = orjson.loads(problem.body(ORIGIN))
    assert (shown["code"], shown["left"]) == (reason, 3)


def test_every_kind_of_failure_is_in_the_table_of_this_test() -> None:
    assert {
        kind for kind in kinds_of(TransferdError) if kind.__module__.startswith("transferd.")
    } == (set(CODE_OF))


@pytest.mark.parametrize(("kind", "code"), CODE_OF.items(), ids=str)
def test_the_problem_of_an_internal_error_has_no_internal_details(
    kind: type[TransferdError], code: str
) -> None:
    problem = Problem.of_error(kind("SELECT 1 at db.example:5432"))
    assert problem.code == code
    assert problem.detail == TYPES[code].meaning
    assert b"db.example" not in problem.body(ORIGIN)


@pytest.mark.parametrize(("kind", "code"), CODE_OF.items(), ids=str)
def test_a_problem_that_may_be_retried_has_retry_after(
    kind: type[TransferdError], code: str
) -> None:
    error = kind("")
    error.retry_after_s = 7
    expected = {"Retry-After": "7"} if TYPES[code].status in (409, 429, 503) else {}
    assert Problem.of_error(error).headers == expected


def test_an_error_without_a_message_has_the_message_of_its_class() -> None:
    assert str(errors.MailboxFull()).startswith("Too many commands wait for this wallet")
    assert errors.MailboxFull().retry_after_s == 1
    assert str(errors.MailboxFull("Busy.", retry_after_s=3)) == "Busy."


def test_a_problem_has_the_members_of_the_rfc_first() -> None:
    problem = Problem("version-not-reached", facts={"version": 4})
    assert problem.body(ORIGIN) == (
        b'{"type":"/problems/version-not-reached","title":"Version not reached","status":412,'
        b'"detail":"The wallet has not reached the version that was named; `version` is its own.",'
        b'"instance":"/transfers","code":"version-not-reached","request_id":"request-1",'
        b'"version":4}'
    )
