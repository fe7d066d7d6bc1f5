"""The user classes of a load test; a scenario sets their weights."""

import random
from collections import deque
from functools import partial

import orjson
from locust import tag, task

from loadtest.attacks import ATTACKS, Attack, complaint_about, wrong_key
from loadtest.checked_user import CheckedUser, Judge, at_once, failure_of
from loadtest.proof.answers import (
    REFUSALS_OF_BATCHES,
    Answer,
)
from loadtest.proof.complaints import (
    batch_complaint,
    transfer_complaint,
)
from loadtest.proof.history import Request
from loadtest.proof.violations import WRONG_ANSWER
from loadtest.reading_user import ReadingUser

_SMALL_MINOR = 5_000
_LARGE_MINOR = 50_000_000
# More than the balance of any shopper.
_TOO_MUCH_MINOR = 10**15
_ANSWERED_KEPT = 20
# A purse has about 1,000 on average, so it can pay one or two of these payments.
_RACERS = 3
_RACE_MINOR = 400


class Shopper(ReadingUser):
    """Pays small amounts, reads balances, and repeats unanswered requests with their keys."""

    weight = 10

    def on_start(self) -> None:
        self._answered: deque[tuple[Request, int, bytes]] = deque(maxlen=_ANSWERED_KEPT)

    @tag("pay")
    @task(12)
    def pay(self) -> None:
        """A payment; in idempotency-storm several copies at once with one key."""
        source, destination = self.world.payment()
        body = self.world.transfer_body(source, destination, random.randint(1, _SMALL_MINOR))
        request = Request("/transfers", self.session.new_key(), orjson.dumps(body))
        if self.world.copies > 1:
            self.send_copies(
                request,
                "/transfers",
                self.world.copies,
                complaint_of=partial(transfer_complaint, body),
                acknowledge=self.history.transferred,
            )
            return
        answer = self.transfer(body, request.key)
        if answer.is_final:
            self._answered.append((request, answer.status, answer.content))

    @tag("pay")
    @task(1)
    def pay_too_much(self) -> None:
        """A payment that must be refused."""
        source, destination = self.world.payment()
        answer = self.transfer(self.world.transfer_body(source, destination, _TOO_MUCH_MINOR))
        if answer.status == 201:
            self.complain(WRONG_ANSWER, f"{source} paid {_TOO_MUCH_MINOR}, which it does not have")

    @tag("pay")
    @task(1)
    def race_for_funds(self) -> None:
        """Several payments at once from a purse, which cannot pay all of them."""
        if self.world.payees != "any" or self.world.copies > 1:
            return
        source, *others = random.sample(self.world.purses, 1 + _RACERS)
        bodies = [self.world.transfer_body(source, other, _RACE_MINOR) for other in others]
        at_once([partial(self.transfer, body) for body in bodies])

    @tag("replay")
    @task(1)
    def pay_again(self) -> None:
        """Repeat an answered payment with its key: it must be replayed."""
        if self._answered:
            self.repeat(*random.choice(self._answered))

    @tag("read")
    @task(2)
    def read_balance(self) -> None:
        """The wallet of a shopper."""
        self.read_wallet(self.world.payment()[0])


class Merchant(ReadingUser):
    """Receives payments, reads its statement, and pays some of the money back."""

    weight = 2

    @tag("read")
    @task(4)
    def read_own_statement(self) -> None:
        """The entries of its wallet."""
        self.read_statement(self.world.merchant())

    @tag("read")
    @task(2)
    def read_balance(self) -> None:
        self.read_wallet(self.world.merchant(), min_version=True)

    @tag("pay")
    @task(3)
    def pay_back(self) -> None:
        """A payment to a shopper, so that shoppers do not run out of money."""
        payee, amount_minor = (
            random.choice(self.world.shoppers),
            random.randint(1, 2 * _SMALL_MINOR),
        )
        self.transfer(self.world.transfer_body(self.world.merchant(), payee, amount_minor))


class Payroll(CheckedUser):
    """Pays batches, half of them atomic."""

    weight = 1
    pauses = 4.0

    @tag("batch")
    @task
    def pay_day(self) -> None:
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


class Treasurer(ReadingUser):
    """Moves large amounts, reverses some of them, and checks both statements."""

    weight = 1
    pauses = 2.0

    @tag("reverse")
    @task(3)
    def move_and_take_back(self) -> None:
        """A large transfer; reversals of half of it, of the rest, and of more than is left."""
        source, destination = self.world.two_treasuries()
        amount = random.randint(2, _LARGE_MINOR)
        body = self.world.transfer_body(source, destination, amount)
        answer = self.transfer(body | {"reference": "treasury"})
        if answer.status != 201:
            return
        half = self.reverse(answer.body, amount // 2)
        if half.status != 201:
            # The amount of the rest is known only after this reversal.
            return
        rest = self.reverse(answer.body, None, left=amount - amount // 2)
        if rest.status == 201 and self.reverse(answer.body, 1).status == 201:
            text = f"{answer.body['id']}: more was reversed than its amount {amount}"
            self.complain(WRONG_ANSWER, text)
        if self.reverse(half.body, None).status == 201:
            self.complain(WRONG_ANSWER, f"the reversal {half.body['id']} was reversed")

    @tag("read")
    @task(2)
    def check_statements(self) -> None:
        """Statements and balances of two treasuries."""
        for wallet_id in self.world.two_treasuries():
            self.read_statement(wallet_id, 200)
            self.read_wallet(wallet_id, min_version=True)


class Reader(ReadingUser):
    """Reads wallets repeatedly with their ETags, and transfers that were just made."""

    weight = 4

    def on_start(self) -> None:
        self._etags: dict[str, str] = {}

    @tag("read")
    @task(6)
    def read_again(self) -> None:
        """One of a few wallets, with the ETag of its last answer."""
        wallet_id = self.world.shoppers[id(self) % 7 + random.randrange(10)]
        self._etags[wallet_id] = self.read_wallet(wallet_id, etag=self._etags.get(wallet_id, ""))

    @tag("read")
    @task(6)
    def read_any(self) -> None:
        self.read_wallet(random.choice(self.world.shoppers))

    @tag("read")
    @task(3)
    def read_with_min_version(self) -> None:
        """A wallet, with the latest version in an answer as min_version."""
        recent = self.history.recent
        wallet = random.choice(recent)["source_wallet_id"] if recent else self.world.shoppers[0]
        self.read_wallet(wallet, min_version=True)

    @tag("read")
    @task(3)
    def read_a_transfer(self) -> None:
        """A transfer that was just acknowledged; the answer must be the same."""
        if not self.history.recent:
            return
        expected = random.choice(self.history.recent)

        def judge(answer: Answer) -> tuple[str, str | None]:
            name = "/transfers/{id}"
            if answer.status == 200 and answer.body != expected:
                text = f"transfer {expected['id']}: answered as {expected}, read as {answer.body}"
                return name, self.complain(WRONG_ANSWER, text)
            return name, None if answer.status == 200 else self.unexpected(answer)

        self.send("GET", f"/transfers/{expected['id']}", judge)


class Attacker(CheckedUser):
    """Sends invalid requests, each of which must get its 4xx."""

    weight = 2

    @tag("attack")
    @task(8)
    def attack(self) -> None:
        """One of ATTACKS."""
        self._send(random.choice(ATTACKS)(self.world))

    @tag("attack")
    @task(1)
    def use_a_wrong_key(self) -> None:
        """A request with a wrong API key or none."""
        if self.session.api_key:
            self._send(wrong_key(self.world))

    @tag("attack")
    @task(1)
    def reuse_a_key(self) -> None:
        """Another payment under the key of a payment."""
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
        self.send(
            attack.method, attack.path, self._judge(attack), body=attack.body, headers=headers
        )

    def _judge(self, attack: Attack) -> Judge:
        def judge(answer: Answer) -> tuple[str, str | None]:
            if answer.status in (0, 429, 502, 503, 504):
                return "attack (turned away)", failure_of(answer)
            complaint = complaint_about(attack, answer)
            if complaint is not None:
                return "attack", self.complain(*complaint)
            return "attack", None

        return judge
