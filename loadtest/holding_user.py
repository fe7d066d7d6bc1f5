"""The requests about holds: each is sent, checked, and compared with the last answer."""

import random
import time
from collections import deque
from dataclasses import dataclass
from typing import Final

import orjson

from loadtest.checked_user import Judge
from loadtest.proof.answers import Answer, JsonObject
from loadtest.proof.complaints import hold_complaint, refusal_complaint
from loadtest.proof.history import Request
from loadtest.proof.violations import WRONG_ANSWER, WRONG_EXPIRY
from loadtest.reading_user import ReadingUser

AMOUNT_MINOR: Final = 5_000
# The clocks of the client and of PostgreSQL may differ so much over the life of a short hold.
_CLOCK_S = 0.1
_ANSWERED_KEPT = 20
_PAID_KEPT = 10
NONE: Final = frozenset[str]()
OF_FUNDS: Final = frozenset({"insufficient-funds", "too-many-holds"})


@dataclass
class Booking:
    """A hold of this user, as its last answer shows it, and the time of its creation.

    lasts_s: seconds from its creation to its expiry; None if the expiry is far away.
    """

    view: JsonObject
    merchant: str
    lasts_s: int | None
    asked_s: float
    answered_s: float

    @property
    def id(self) -> str:
        return str(self.view["id"])

    @property
    def remaining_minor(self) -> int:
        return int(self.view["remaining"])

    def may_have_expired(self, now_s: float) -> bool:
        """Whether an answer at this time may say that it has expired."""
        return self.lasts_s is not None and now_s >= self.asked_s + self.lasts_s - _CLOCK_S

    def has_expired(self, now_s: float) -> bool:
        """Whether it has expired at this time with certainty."""
        return self.lasts_s is not None and now_s > self.answered_s + self.lasts_s + _CLOCK_S


class HoldingUser(ReadingUser):
    """Abstract: a user with holds of its own.

    `holds`: its active holds. `answered`: its last requests about holds, to repeat them. `paid`:
    its last captures, to reverse them.
    """

    abstract = True

    def on_start(self) -> None:
        # Only this user changes these holds, so it knows their values.
        self.holds: list[Booking] = []
        self.answered: deque[tuple[Request, int, bytes]] = deque(maxlen=_ANSWERED_KEPT)
        self.paid: deque[JsonObject] = deque(maxlen=_PAID_KEPT)

    def pick(self, *, remaining_min: int = 0) -> Booking | None:
        holds = [each for each in self.holds if each.remaining_minor >= remaining_min]
        return random.choice(holds) if holds else None

    def request_of(self, path: str, body: JsonObject) -> Request:
        return Request(path, self.session.new_key(), orjson.dumps(body))

    def ask(self, path: str, body: JsonObject, refusals: frozenset[str]) -> Answer:
        """Send a request about a hold, which may be refused for these reasons only."""
        request = self.request_of(path, body)
        answer = self.settle(request, name_of(path), self._judge(request, body), refusals)
        if answer.is_final:
            self.answered.append((request, answer.status, answer.content))
        return answer

    def _judge(self, request: Request, body: JsonObject) -> Judge:
        # The additional amount of an adjustment is not in its request.
        asked_minor = body["amount"] if request.path == "/holds" else None

        def judge(answer: Answer) -> tuple[str, str | None]:
            if answer.status not in (200, 201):
                return "(refused)", self.wrong(request, refusal_complaint(asked_minor, answer.body))
            wrong = self.wrong(request, hold_complaint(request.path, body, answer.body))
            if wrong is None:
                self.history.succeeded(request, answer.body)
                if answer.body.get("kind") == "capture":
                    self.paid.append(answer.body)
            return "", wrong

        return judge

    def reserve(self, lasts_s: int, *, is_short: bool) -> Booking | None:
        card, merchant = random.choice(self.world.cards), self.world.merchant()
        body: JsonObject = {
            "source_wallet_id": card,
            "amount": random.randint(2, AMOUNT_MINOR),
            "currency": self.world.currency,
            "expires_in_s": lasts_s,
        }
        if random.random() < 0.5:
            body["destination_wallet_id"] = merchant
        asked_s = time.monotonic()
        answer = self.ask("/holds", body, OF_FUNDS)
        if answer.status != 201:
            return None
        lasts = lasts_s if is_short else None
        hold = Booking(answer.body, merchant, lasts, asked_s, time.monotonic())
        self.holds.append(hold)
        return hold

    def payee(self, hold: Booking) -> JsonObject:
        named = hold.view["destination_wallet_id"] is not None
        return {} if named else {"destination_wallet_id": hold.merchant}

    def capture(self, hold: Booking, body: JsonObject) -> None:
        answer = self.change(hold, "capture", body | self.payee(hold))
        if answer.status != 201:
            return
        if "amount" not in body and answer.body["amount"] != hold.remaining_minor:
            text = f"hold {hold.id} with {hold.remaining_minor} left: {answer.body}"
            self.complain(WRONG_ANSWER, text)
        if body.get("final", True):
            self.holds.remove(hold)
            self.must_be_refused(hold, "capture", self.payee(hold), "hold-not-active")
        else:
            self.captured(hold, answer.body["amount"])

    def captured(self, hold: Booking, amount_minor: int) -> None:
        captured_minor = hold.view["captured"] + amount_minor
        remaining_minor = hold.remaining_minor - amount_minor
        hold.view = hold.view | {"captured": captured_minor, "remaining": remaining_minor}

    def change(
        self, hold: Booking, what: str, body: JsonObject, refusals: frozenset[str] = NONE
    ) -> Answer:
        """Capture, adjust or release a hold of this user, which may have expired."""
        asked_s = time.monotonic()
        allowed = refusals | {"hold-expired"} if hold.lasts_s is not None else refusals
        answer = self.ask(f"/holds/{hold.id}/{what}", body, allowed)
        now_s = time.monotonic()
        if answer.code == "hold-expired" and not hold.may_have_expired(now_s):
            text = f"hold {hold.id} expired within {now_s - hold.asked_s:.2f} of {hold.lasts_s} s"
            self.complain(WRONG_EXPIRY, text)
        if answer.status in (200, 201) and hold.has_expired(asked_s):
            text = f"hold {hold.id}: {what} {asked_s - hold.answered_s:.2f} s after its creation"
            self.complain(WRONG_EXPIRY, f"{text}, and it lasts {hold.lasts_s} s")
        if what == "adjust" and answer.status == 200:
            if "expires_at" in body:
                hold.lasts_s = None
            self._compare(hold, answer.body, "amount" if "amount" in body else "expires_at")
            hold.view = answer.body
        elif what == "release" or not (answer.status == 201 or answer.code in refusals):
            # The hold has ended, or its values are unknown.
            self.holds.remove(hold)
        return answer

    def must_be_refused(self, hold: Booking, what: str, body: JsonObject, code: str) -> None:
        answer = self.ask(f"/holds/{hold.id}/{what}", body, frozenset({code}))
        if answer.status in (200, 201):
            text = f"hold {hold.id}: {what} {body} was executed instead of {code}"
            self.complain(WRONG_ANSWER, text)
            if hold in self.holds:
                self.holds.remove(hold)

    def read(self, hold: Booking) -> None:
        asked_s = time.monotonic()

        def judge(answer: Answer) -> tuple[str, str | None]:
            name = "/holds/{id}"
            if answer.status != 200:
                return name, self.unexpected(answer) or f"{answer.status}"
            if hold.may_have_expired(time.monotonic()) and answer.body.get("status") == "expired":
                return name, None
            if hold.has_expired(asked_s):
                text = f"hold {hold.id} is shown as {answer.body} after its expiry"
                return name, self.complain(WRONG_EXPIRY, text)
            return name, self._compare(hold, answer.body)

        self.send("GET", f"/holds/{hold.id}", judge)

    def _compare(self, hold: Booking, view: JsonObject, changed: str = "") -> str | None:
        """Compare a hold with its last answer, except for the member that was changed."""
        names = {"captured", "released", "status", "destination_wallet_id", "amount", "expires_at"}
        for name in names - {changed}:
            if view.get(name) != hold.view[name]:
                text = f"hold {hold.id}: {name} is {view.get(name)!r}, was {hold.view[name]!r}"
                return self.complain(WRONG_ANSWER, text)
        return None


def name_of(path: str) -> str:
    """The path as Locust shows it."""
    _, holds, *rest = path.split("/")
    return f"/{holds}/{{id}}/{rest[-1]}" if rest else f"/{holds}"
