"""The requests of all personas: each is sent, checked, and repeated with its key."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, cast

import gevent
import orjson
from locust import FastHttpUser
from locust.exception import StopUser

from loadtest.api import traceparent
from loadtest.proof.answers import (
    BACK_PRESSURE,
    IN_PROGRESS,
    NO_ANSWER,
    REFUSALS,
    REFUSALS_OF_REVERSALS,
    REFUSALS_OF_TRANSFERS,
    REPLAYED,
    Answer,
    JsonObject,
    change_of,
)
from loadtest.proof.bounded import replay_violation
from loadtest.proof.complaints import refusal_complaint, transfer_complaint
from loadtest.proof.history import Answered, History, Request
from loadtest.proof.violations import CHANGED_REPLAY, DOUBLED_TRANSFER, WRONG_ANSWER
from loadtest.session import Session, session_for
from loadtest.world import World

# If the outcome is still open after these tries, the audit repeats the request.
_TRIES = 4
_RETRY_S = 0.2
# A longer Retry-After is shortened to this.
_RETRY_AFTER_MAX_S = 2.0

# Returns the name under which Locust counts the answer, and a complaint if the answer is wrong.
Judge = Callable[[Answer], tuple[str, str | None]]


class CheckedUser(FastHttpUser):
    """Abstract: a user of the service that checks every answer."""

    abstract = True
    # One for each ledger.
    sessions: ClassVar[Sequence[Session]] = ()
    # The mean pause between tasks, in units of --think.
    pauses: ClassVar[float] = 1.0

    def __init__(self, environment: Any) -> None:
        self.session = session_for(type(self).__name__, self.sessions)
        # By default 15 s, the timeout of a client. The timeout of Nginx is shorter.
        self.network_timeout = self.session.options.client_timeout_s
        self.insecure = self.session.options.insecure
        self.connection_timeout = self.session.options.client_timeout_s
        super().__init__(environment)

    @property
    def world(self) -> World:
        return self.session.world

    @property
    def history(self) -> History:
        """The recorded answers of this process."""
        return self.session.history

    def wait_time(self) -> float:
        """Seconds to the next task: uniformly distributed from 0 to twice the mean."""
        return random.uniform(0, 2 * self.session.options.think_s * self.pauses)

    def send(
        self,
        method: str,
        path: str,
        judge: Judge,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request; Locust counts it under the name that the judge returns."""
        if self.session.is_over:
            # Locust can start users after the run was stopped.
            raise StopUser
        sampled = random.random() < self.session.options.trace_ratio
        sent: dict[str, str] = {"traceparent": traceparent(sampled=sampled)}
        if self.session.api_key:
            sent["Authorization"] = f"Bearer {self.session.api_key}"
        if body is not None:
            sent["Content-Type"] = "application/json"
        sent.update(headers or {})
        with self.client.request(
            method, path, data=cast(Any, body), headers=sent, catch_response=True, name=path
        ) as response:
            # The header names of geventhttpclient are case-insensitive.
            content = bytes(response.content or b"")
            is_there = response.status_code != 0
            answer = (
                Answer.of(response.status_code, response.headers, content)
                if is_there
                else NO_ANSWER
            )
            self.session.check_ids(f"the answer to {method} {path}", content)
            name, complaint = judge(answer)
            response.request_meta["name"] = name
            if complaint is None:
                response.success()
            else:
                response.failure(complaint)
        return answer

    def transfer(self, body: JsonObject, key: str | None = None) -> Answer:
        """POST /transfers, repeated until there is a final answer."""
        request = Request("/transfers", key or self.session.new_key(), orjson.dumps(body))
        return self.settle(request, "/transfers", self._judge_transfer(body, request))

    def settle(
        self,
        request: Request,
        name: str,
        judge: Judge,
        refusals: frozenset[str] = REFUSALS_OF_TRANSFERS,
    ) -> Answer:
        """Send a request that moves money; repeat it with its key while its outcome is unknown."""
        self.history.sent(request)
        answer = NO_ANSWER
        # Whether a try may have been executed; a later answer cannot exclude that.
        is_open = False
        for attempt in range(_TRIES):
            if attempt:
                gevent.sleep(_RETRY_S * 2**attempt)
            answer = self.send(
                "POST",
                request.path,
                self._judged(name, judge, refusals),
                body=request.body,
                headers={"Idempotency-Key": request.key},
            )
            if answer.is_final:
                self.history.settled(request, answer.status, answer.content)
                return answer
            if answer.status == 429:
                gevent.sleep(min(_seconds(answer.headers.get("retry-after")), _RETRY_AFTER_MAX_S))
            if 400 <= answer.status < 500 and answer.status != 409 and not is_open:
                # Nothing was executed. The user does not repeat this request.
                break
            # A 503 means that one replica executed nothing, but Nginx may have asked two.
            is_open |= answer.status != 429
        if not is_open:
            self.history.nothing_happened(request)
        return answer

    def repeat(self, request: Request, status: int, content: bytes, name: str = "") -> None:
        """Repeat an answered request: the answer must have the same bytes.

        name: its name in Locust's tables, by default its path.
        """

        def judge(answer: Answer) -> tuple[str, str | None]:
            found = replay_violation(
                Answered(request, status, content),
                answer.status,
                answer.content,
                answer.headers.get(REPLAYED, ""),
            )
            return "(replayed)", self.complain(found.kind, found.text) if found else None

        self.send(
            "POST",
            request.path,
            self._judged(name or request.path, judge, REFUSALS),
            body=request.body,
            headers={"Idempotency-Key": request.key},
        )

    def unexpected(self, answer: Answer) -> str | None:
        """A complaint about an unexpected answer to a valid request; None for back-pressure."""
        failure = failure_of(answer)
        if failure is not None and answer.status in (400, 404, 405, 409, 412, 413, 415, 422):
            return self.complain(WRONG_ANSWER, f"{failure} for a good request")
        return failure

    def wrong(self, request: Request, complaint: str | None) -> str | None:
        """Record a complaint as a violation, and return it for Locust; None stays None."""
        return complaint and self.complain(WRONG_ANSWER, f"{request.key}: {complaint}")

    def complain(self, kind: str, text: str) -> str:
        """Record a violation; returns its text for Locust."""
        self.session.violated(kind, text)
        return f"{kind}: {text}"

    def _judged(
        self, name: str, judge: Judge, refusals: frozenset[str] = REFUSALS_OF_TRANSFERS
    ) -> Judge:
        """Pass successes and refusals to the judge; count other answers separately."""

        def decide(answer: Answer) -> tuple[str, str | None]:
            if answer.status in (200, 201) or (
                answer.code in refusals and 400 <= answer.status < 500
            ):
                suffix, complaint = judge(answer)
                return f"{name} {suffix}".rstrip(), complaint
            return f"{name}{_name_suffix(answer)}", self.unexpected(answer)

        return decide

    def _judge_transfer(self, body: JsonObject, request: Request) -> Judge:
        # Read before the request is sent: while it is in flight other users may see later versions.
        floor = self.history.version_of(body["source_wallet_id"])

        def judge(answer: Answer) -> tuple[str, str | None]:
            if answer.status == 201:
                complaint = transfer_complaint(body, answer.body)
                if complaint is None and not answer.is_replay:
                    version = answer.body["source_version"]
                    if version <= floor:
                        complaint = f"source_version {version}, and {floor} was answered before"
                wrong = self.wrong(request, complaint)
                if wrong is None:
                    self.history.transferred(answer.body)
                return "", wrong
            return "(refused)", self.wrong(request, refusal_complaint(body["amount"], answer.body))

        return judge

    def send_copies(
        self,
        request: Request,
        name: str,
        number: int,
        *,
        complaint_of: Callable[[JsonObject], str | None],
        acknowledge: Callable[[JsonObject], None],
        refusals: frozenset[str] = REFUSALS_OF_TRANSFERS,
    ) -> Answer:
        """Send the same request several times at once: it must be executed once.

        complaint_of: the complaint about the body of a success. acknowledge: records that body,
        once. Returns the first final answer, or NO_ANSWER.
        """
        answers: list[Answer] = []

        def judge(answer: Answer) -> tuple[str, str | None]:
            suffix, complaint = "(replayed)" if answer.is_replay else "", None
            if answer.status in (200, 201):
                complaint = self.wrong(request, complaint_of(answer.body))
            elif not answer.is_replay:
                suffix = "(refused)"
            return suffix, complaint

        def send() -> None:
            answer = self.send(
                "POST",
                request.path,
                self._judged(name, judge, refusals),
                body=request.body,
                headers={"Idempotency-Key": request.key},
            )
            answers.append(answer)

        self.history.sent(request)
        at_once([send] * number)
        first = self._compare_copies(request, answers)
        if first.status in (200, 201) and complaint_of(first.body) is None:
            acknowledge(first.body)
        return first

    def _compare_copies(self, request: Request, answers: list[Answer]) -> Answer:
        final = [answer for answer in answers if answer.is_final]
        if not final:
            if all(answer.status == 429 for answer in answers):
                self.history.nothing_happened(request)
            return NO_ANSWER
        first = final[0]
        originals = sum(not answer.is_replay for answer in final)
        if originals > 1:
            self.complain(DOUBLED_TRANSFER, f"{request.key} was executed {originals} times")
        for other in final[1:]:
            change = change_of((first.status, first.content), (other.status, other.content))
            if change is not None:
                self.complain(CHANGED_REPLAY, f"{request.key}, sent at once: {change}")
        self.history.settled(request, first.status, first.content)
        return first

    def reverse(
        self, original: JsonObject, amount_minor: int | None, *, left: int | None = None
    ) -> Answer:
        """POST /transfers/{id}/reversal. `left`: the amount if none is sent; None if unknown."""
        path = f"/transfers/{original['id']}/reversal"
        body = {} if amount_minor is None else {"amount": amount_minor}
        request = Request(path, self.session.new_key(), orjson.dumps(body))
        asked = {
            "source_wallet_id": original["destination_wallet_id"],
            "destination_wallet_id": original["source_wallet_id"],
            "currency": original["currency"],
        }
        expected = amount_minor if amount_minor is not None else left
        if expected is not None:
            asked["amount"] = expected

        def judge(answer: Answer) -> tuple[str, str | None]:
            if answer.status != 201:
                return "(refused)", self.wrong(request, refusal_complaint(expected, answer.body))
            wrong = self.wrong(request, transfer_complaint(asked, answer.body, "reversal"))
            if wrong is None:
                self.history.transferred(answer.body)
            return "", wrong

        return self.settle(request, "/transfers/{id}/reversal", judge, REFUSALS_OF_REVERSALS)


def at_once(calls: Sequence[Callable[[], object]]) -> None:
    """Make the calls concurrently. If the user is stopped they end as well, and the audit repeats
    their requests."""
    greenlets = [gevent.spawn(call) for call in calls]
    try:
        gevent.joinall(greenlets, raise_error=True)
    finally:
        gevent.killall(greenlets)


def _name_suffix(answer: Answer) -> str:
    if answer.status == 429 and answer.code in BACK_PRESSURE:
        return " (turned away)"
    if answer.code == IN_PROGRESS:
        return " (in progress)"
    return ""


def failure_of(answer: Answer) -> str | None:
    """Why an unexpected answer is a failure; None for back-pressure."""
    if answer.status == 429 and answer.code in BACK_PRESSURE:
        return None if answer.headers.get("retry-after") else "429 without Retry-After"
    if answer.code == IN_PROGRESS:
        return None
    if answer.status == 0:
        return "no answer"
    return f"{answer.status} {answer.code}".rstrip()


def _seconds(text: str | None) -> float:
    return float(text) if text and text.isdigit() else 1.0
