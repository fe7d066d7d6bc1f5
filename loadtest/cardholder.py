"""The persona of card payments: holds, captures, and the ends of holds."""

import random
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

import gevent
import orjson
from locust import tag, task

from loadtest.checked_user import at_once
from loadtest.holding_user import AMOUNT_MINOR, NONE, OF_FUNDS, HoldingUser, name_of
from loadtest.proof.answers import JsonObject
from loadtest.proof.complaints import hold_complaint
from loadtest.proof.violations import HOLD_ENDED_TWICE

# Some holds expire during the run, the others long after it.
_SHORT_SHARE = 0.3
_SHORT_S = (1, 4)
_LONG_S = (3_600, 86_400)
_LATER = timedelta(hours=1)
_HOLDS_MAX = 12
_COPIES = 4
# One of several concurrent requests may end the hold or use the money that is left.
_OF_RACES = frozenset(
    {"amount-below-captured", "capture-exceeds-hold", "hold-expired", "hold-not-active"}
)


class Cardholder(HoldingUser):
    """Makes holds, captures, adjusts and releases them, and lets some of them expire."""

    weight = 1

    @tag("hold")
    @task(8)
    def authorise(self) -> None:
        """A new hold; half of them name the destination."""
        if self.world.cards and len(self.holds) < _HOLDS_MAX:
            is_short = random.random() < _SHORT_SHARE
            self.reserve(random.randint(*(_SHORT_S if is_short else _LONG_S)), is_short=is_short)

    @tag("hold")
    @task(4)
    def capture_part(self) -> None:
        """A capture after which the hold stays active."""
        if hold := self.pick(remaining_min=1):
            amount_minor = random.randint(1, hold.remaining_minor)
            self.capture(hold, {"amount": amount_minor, "final": False})

    @tag("hold")
    @task(4)
    def capture_the_last(self) -> None:
        """A final capture of all that is left or of a part."""
        if hold := self.pick(remaining_min=1):
            amount_minor = random.randint(1, hold.remaining_minor)
            self.capture(hold, random.choice(({}, {"amount": amount_minor})))

    @tag("hold")
    @task(4)
    def adjust(self) -> None:
        """A larger or smaller amount, at least what is captured, or a later expiry."""
        hold = self.pick()
        if hold is None:
            return
        amount_minor = hold.view["amount"]
        if random.random() < 0.2:
            later = datetime.fromisoformat(hold.view["expires_at"]) + _LATER
            text = later.isoformat(timespec="microseconds").replace("+00:00", "Z")
            self.change(hold, "adjust", {"expires_at": text})
        elif random.random() < 0.5:
            more_minor = random.randint(1, AMOUNT_MINOR)
            self.change(hold, "adjust", {"amount": amount_minor + more_minor}, OF_FUNDS)
        elif hold.remaining_minor:
            least_minor = max(1, hold.view["captured"])
            self.change(hold, "adjust", {"amount": random.randint(least_minor, amount_minor)})

    @tag("hold")
    @task(2)
    def release(self) -> None:
        if hold := self.pick():
            self.change(hold, "release", {})

    @tag("hold")
    @task(2)
    def change_in_vain(self) -> None:
        """A request that must be refused and change nothing."""
        hold = self.pick()
        if hold is None or hold.lasts_s is not None:
            return
        captured_minor, too_much_minor = hold.view["captured"], hold.remaining_minor + 1
        other = random.choice([each for each in self.world.cards if each != hold.merchant])
        attempts: list[tuple[str, JsonObject, str]] = [
            ("capture", {"amount": too_much_minor} | self.payee(hold), "capture-exceeds-hold"),
            ("adjust", {"expires_at": "2020-01-01T00:00:00Z"}, "expiry-invalid"),
        ]
        if captured_minor > 1:
            attempts.append(("adjust", {"amount": captured_minor - 1}, "amount-below-captured"))
        if hold.remaining_minor:
            part = {"amount": 1, "final": False}
            if hold.view["destination_wallet_id"] is None:
                attempts.append(("capture", part, "destination-missing"))
            else:
                wrong = part | {"destination_wallet_id": other}
                attempts.append(("capture", wrong, "destination-mismatch"))
        self.must_be_refused(hold, *random.choice(attempts))

    @tag("hold")
    @task(2)
    def race_for_the_end(self) -> None:
        """Several requests at once, of which at most one may end the hold."""
        hold = self.pick(remaining_min=2)
        if hold is None:
            return
        self.holds.remove(hold)
        ends: list[str] = []

        def end(what: str, body: JsonObject) -> None:
            if self.ask(f"/holds/{hold.id}/{what}", body, _OF_RACES).status in (200, 201):
                ends.append(what)

        payee = self.payee(hold)
        part = {"amount": hold.remaining_minor // 2, "final": False}
        both = [partial(end, "capture", payee), partial(end, "release", {})]
        others: list[Callable[[], object]] = [
            partial(self.ask, f"/holds/{hold.id}/capture", part | payee, _OF_RACES),
            partial(end, "capture", {"amount": 1} | payee),
        ]
        at_once([*both, *others])
        if len(ends) > 1:
            self.complain(HOLD_ENDED_TWICE, f"hold {hold.id} was ended by {' and '.join(ends)}")
        if ends:
            self.must_be_refused(hold, "release", {}, "hold-not-active")

    @tag("hold", "replay")
    @task(2)
    def capture_several_times_at_once(self) -> None:
        """Copies of a capture with one key: it is paid once."""
        hold = self.pick(remaining_min=1)
        if hold is None or hold.lasts_s is not None:
            return
        part = {"amount": random.randint(1, hold.remaining_minor), "final": False}
        request = self.request_of(f"/holds/{hold.id}/capture", part | self.payee(hold))
        answer = self.send_copies(
            request,
            "/holds/{id}/capture",
            _COPIES,
            complaint_of=partial(hold_complaint, request.path, orjson.loads(request.body)),
            acknowledge=partial(self.history.succeeded, request),
            refusals=NONE,
        )
        if answer.status == 201:
            self.captured(hold, part["amount"])
        else:
            self.holds.remove(hold)

    @tag("hold", "replay")
    @task(3)
    def repeat_a_request(self) -> None:
        """A request about a hold with its key, also after the end of the hold."""
        if self.answered:
            request, status, content = random.choice(self.answered)
            self.repeat(request, status, content, name_of(request.path))

    @tag("hold", "read")
    @task(4)
    def read_hold(self) -> None:
        """A hold of this user must be as its last answer shows it."""
        if hold := self.pick():
            self.read(hold)

    @tag("read")
    @task(3)
    def read_card(self) -> None:
        """The wallet and the statement of a card."""
        if self.world.cards:
            self.read_wallet(random.choice(self.world.cards), min_version=True)
            self.read_statement(random.choice(self.world.cards))

    @tag("hold")
    @task(2)
    def wait_for_an_expiry(self) -> None:
        """From its expiry on a hold is shown as expired, and nothing can be captured."""
        hold = self.world.cards and self.reserve(_SHORT_S[0], is_short=True)
        if not hold:
            return
        while not hold.has_expired(time.monotonic()):
            gevent.sleep(0.2)
        self.read(hold)
        self.must_be_refused(hold, "capture", self.payee(hold), "hold-expired")
        self.must_be_refused(hold, "adjust", {"amount": 10 * AMOUNT_MINOR}, "hold-expired")
        if hold in self.holds:
            self.holds.remove(hold)

    @tag("pay", "reverse")
    @task(2)
    def refund(self) -> None:
        """A capture is reversed like any transfer."""
        if self.paid:
            self.reverse(self.paid.popleft(), None)

    @tag("pay")
    @task(2)
    def pay(self) -> None:
        """Payments beside the holds, from a card and to a card."""
        if not self.world.cards:
            return
        payer, payee = random.choice(self.world.cards), self.world.merchant()
        if random.random() < 0.5:
            payer, payee = payee, payer
        self.transfer(self.world.transfer_body(payer, payee, random.randint(1, AMOUNT_MINOR)))
