"""The people and programs of a load test; a scenario says how many of each there are."""

import random
from collections import deque
from functools import partial

import orjson
from locust import tag, task

from loadtest.attacks import ATTACKS, Attack, complaint_about, wrong_key
from loadtest.looker import Looker
from loadtest.proof.answers import REFUSALS_OF_BATCHES, REFUSALS_OF_REVERSALS, JsonObject
from loadtest.proof.complaints import (
    batch_complaint,
    refusal_complaint,
    transfer_complaint,
)
from loadtest.proof.history import Request
from loadtest.proof.violations import WRONG_ANSWER
from loadtest.session import Answer
from loadtest.teller import Judge, Teller, at_once, failure_of

_SMALL_MINOR = 5_000
_LARGE_MINOR = 50_000_000
# More than any wallet of a shopper has.
_TOO_MUCH_MINOR = 10**15
_ANSWERED_KEPT = 20
# A purse has some 1,000 on average.
_RACERS = 3
_RACE_MINOR = 400


class Shopper(Looker):
    """Pays small amounts, looks at the balance, and repeats what got no answer with its key."""

    weight = 10

    def on_start(self) -> None:
        """Nothing paid yet."""
        self._answered: deque[tuple[Request, int, bytes]] = deque(maxlen=_ANSWERED_KEPT)

    @tag("pay")
    @task(12)
    def pay(self) -> None:
        """A payment; in a storm several times at once, with one key."""
        source, destination = self.world.payment()
        body = self.world.transfer_body(source, destination, random.randint(1, _SMALL_MINOR))
        if self.world.copies > 1:
            self.copies(body, self.world.copies)
            return
        request = Request("/transfers", self.session.new_key(), orjson.dumps(body))
        answer = self.transfer(body, request.key)
        if answer.is_final:
            self._answered.append((request, answer.status, answer.content))

    @tag("pay")
    @task(1)
    def pay_too_much(self) -> None:
        """A payment that has to be refused."""
        source, destination = self.world.payment()
        answer = self.transfer(self.world.transfer_body(source, destination, _TOO_MUCH_MINOR))
        if answer.status == 201:
            self.complain(WRONG_ANSWER, f"{source} paid {_TOO_MUCH_MINOR}, which it has not")

    @tag("pay")
    @task(1)
    def race_for_funds(self) -> None:
        """Several payments at once from a wallet that can pay one or two of them."""
        if self.world.payees != "anybody" or self.world.copies > 1:
            return
        source, *others = random.sample(self.world.purses, 1 + _RACERS)
        bodies = [self.world.transfer_body(source, other, _RACE_MINOR) for other in others]
        at_once([partial(self.transfer, body) for body in bodies])

    @tag("replay")
    @task(1)
    def pay_again(self) -> None:
        """A payment of before, with its key: nothing may happen."""
        if self._answered:
            self.repeat(*random.choice(self._answered))

    @tag("read")
    @task(2)
    def look_at_balance(self) -> None:
        """A wallet."""
        self.look(self.world.payment()[0])


class Merchant(Looker):
    """Is paid by all others; reads its statement, and pays some of it back."""

    weight = 2

    @tag("read")
    @task(4)
    def read_own_statement(self) -> None:
        """What came in."""
        self.read_statement(self.world.merchant())

    @tag("read")
    @task(2)
    def look_at_balance(self) -> None:
        """What there is."""
        self.look(self.world.merchant(), min_version=True)

    @tag("pay")
    @task(3)
    def pay_back(self) -> None:
        """Money to a customer, so that shoppers do not run dry."""
        payee, amount_minor = (
            random.choice(self.world.shoppers),
            random.randint(1, 2 * _SMALL_MINOR),
        )
        self.transfer(self.world.transfer_body(self.world.merchant(), payee, amount_minor))


class Payroll(Teller):
    """Pays many at once: batches, half of them all or none."""

    weight = 1
    pauses = 4.0

    @tag("batch")
    @task
    def pay_day(self) -> None:
        """One batch."""
        atomic = random.random() < 0.5
        source = random.choice(self.world.employers)
        transfers = [
            self.world.transfer_body(
                source, random.choice(self.world.shoppers), random.randint(1, _SMALL_MINOR)
            )
            for _ in range(self.session.options.batch_size)
        ]
        body = {"mode": "atomic" if atomic else "independent", "transfers": transfers}
        request = Request("/transfers/batch", self.session.new_key(), orjson.dumps(body))

        def judge(answer: Answer) -> tuple[str, str | None]:
            if answer.status != 200:
                return "(refused)", None
            results = answer.body.get("results", [])
            wrong = self.wrong(request, batch_complaint(transfers, results, atomic=atomic))
            if wrong is None:
                for result in results:
                    if result["status"] == "posted":
                        self.history.transferred(result)
            return "", wrong

        self.settle(request, "/transfers/batch", judge, REFUSALS_OF_BATCHES)


class Treasurer(Looker):
    """Moves large amounts, takes some of them back, and checks both statements."""

    weight = 1
    pauses = 2.0

    @tag("reverse")
    @task(3)
    def move_and_take_back(self) -> None:
        """A large transfer; half of it back, then the rest, then more than there was."""
        source, destination = self.world.two_treasuries()
        amount = random.randint(2, _LARGE_MINOR)
        body = self.world.transfer_body(source, destination, amount)
        answer = self.transfer(body | {"reference": "treasury"})
        if answer.status != 201:
            return
        half = self._reverse(answer.body, amount // 2)
        if half.status != 201:
            # Turned away, or nobody knows: then nothing can be said of the rest.
            return
        rest = self._reverse(answer.body, None, left=amount - amount // 2)
        if rest.status == 201 and self._reverse(answer.body, 1).status == 201:
            text = f"{answer.body['id']}: more was reversed than the {amount} that it moved"
            self.complain(WRONG_ANSWER, text)
        if self._reverse(half.body, None).status == 201:
            self.complain(WRONG_ANSWER, f"the reversal {half.body['id']} was reversed")

    @tag("read")
    @task(2)
    def check_statements(self) -> None:
        """Both sides."""
        for wallet_id in self.world.two_treasuries():
            self.read_statement(wallet_id, 200)
            self.look(wallet_id, min_version=True)

    def _reverse(
        self, original: JsonObject, amount_minor: int | None, *, left: int | None = None
    ) -> Answer:
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


class Reader(Looker):
    """Reads wallets again and again with their ETags, and transfers that were just made."""

    weight = 4

    def on_start(self) -> None:
        """Nothing seen yet."""
        self._etags: dict[str, str] = {}

    @tag("read")
    @task(6)
    def look_again(self) -> None:
        """One of a few wallets, with the ETag of the last time."""
        wallet_id = self.world.shoppers[id(self) % 7 + random.randrange(10)]
        self._etags[wallet_id] = self.look(wallet_id, etag=self._etags.get(wallet_id, ""))

    @tag("read")
    @task(6)
    def look_somewhere(self) -> None:
        """Any wallet."""
        self.look(random.choice(self.world.shoppers))

    @tag("read")
    @task(3)
    def look_not_back(self) -> None:
        """A wallet of whose latest version somebody was told."""
        recent = self.history.recent
        wallet = random.choice(recent)["source_wallet_id"] if recent else self.world.shoppers[0]
        self.look(wallet, min_version=True)

    @tag("read")
    @task(3)
    def read_a_transfer(self) -> None:
        """One that was acknowledged just now: it is there, as it was told."""
        if not self.history.recent:
            return
        told = random.choice(self.history.recent)

        def judge(answer: Answer) -> tuple[str, str | None]:
            name = "/transfers/{id}"
            if answer.status == 200 and answer.body != told:
                text = f"transfer {told['id']}: told {told}, read {answer.status} {answer.body}"
                return name, self.complain(WRONG_ANSWER, text)
            return name, None if answer.status == 200 else self.unexpected(answer)

        self.ask("GET", f"/transfers/{told['id']}", judge)


class Attacker(Teller):
    """Sends what nobody should, and has to get a 4xx for it."""

    weight = 2

    @tag("attack")
    @task(8)
    def attack(self) -> None:
        """One of the table."""
        self._send(random.choice(ATTACKS)(self.world))

    @tag("attack")
    @task(1)
    def use_a_wrong_key(self) -> None:
        """Somebody else's, or none."""
        if self.session.options.api_key:
            self._send(wrong_key(self.world))

    @tag("attack")
    @task(1)
    def reuse_a_key(self) -> None:
        """The key of a payment for another one."""
        source, destination = self.world.payment()
        body = self.world.transfer_body(source, destination, 1)
        key = self.session.new_key()
        if not self.transfer(body, key).is_final:
            return
        other = orjson.dumps(body | {"amount": 2})
        self._send(Attack("key reused", {422: "idempotency-key-reused"}, body=other, key=key))

    def _send(self, attack: Attack) -> None:
        headers = {"Content-Type": "application/json"} | dict(attack.headers)
        key = self.session.new_key() if attack.key is None else attack.key
        if key:
            headers["Idempotency-Key"] = key
        self.ask(attack.method, attack.path, self._judge(attack), body=attack.body, headers=headers)

    def _judge(self, attack: Attack) -> Judge:
        def judge(answer: Answer) -> tuple[str, str | None]:
            if answer.status in (0, 429, 502, 503, 504):
                return "attack (turned away)", failure_of(answer)
            complaint = complaint_about(attack, answer)
            if complaint is not None:
                return "attack", self.complain(*complaint)
            return "attack", None

        return judge
