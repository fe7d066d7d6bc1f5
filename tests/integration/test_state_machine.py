"""Random requests in random order: the API answers like a small model of a ledger."""

from typing import Any, ClassVar
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.support.api import Reply
from tests.support.ledger_model import Entry, Model, Transfer, Wallet
from tests.support.live import Live, Sent, running_replica
from tests.support.servers import Servers
from transferd.domain import wallet as domain
from transferd.domain.book import Book, WalletSet
from transferd.domain.key import Fingerprint

CURRENCIES = ("USD", "EUR")
STRANGER = "01890000-0000-7000-8000-000000000000"


class LedgerMachine(RuleBasedStateMachine):
    """One example: its own wallets and random requests about them."""

    live: ClassVar[Live]
    wallets: Bundle[str] = Bundle("wallets")
    transfers: Bundle[str] = Bundle("transfers")

    def __init__(self) -> None:
        super().__init__()
        self.api = self.live.api
        self.model = Model()
        for code, id in self.live.funding.items():
            self.model.wallets[id] = Wallet(id, code, funding=True)
        self.sent: list[Sent] = []
        self.touched: set[str] = set()

    # Moves

    @initialize(target=wallets, initial=st.integers(100, 1_000))
    def open_wallets(self, initial: int) -> Any:
        return multiple(
            *(self.open_wallet(code, initial, limit) for code in CURRENCIES for limit in (0, 100))
        )

    @rule(
        target=wallets,
        currency=st.sampled_from(CURRENCIES),
        initial=st.integers(0, 1_000),
        limit=st.sampled_from([0, 0, 100]),
    )
    def new_wallet(self, currency: str, initial: int, limit: int) -> str:
        return self.open_wallet(currency, initial, limit)

    def open_wallet(self, currency: str, initial: int, limit: int) -> str:
        body = {
            "user_id": self.live.user,
            "currency": currency,
            "initial_balance": initial,
            "overdraft_limit": limit,
        }
        reply = self.post("/wallets", body)
        assert reply.status == 201, reply
        wallet = Wallet(reply.json["id"], currency, limit)
        self.model.wallets[wallet.id] = wallet
        if initial:
            funding = self.live.funding[currency]
            [first] = self.statement_of(wallet.id)
            self.model.transfer(
                Transfer(first["transfer_id"], funding, wallet.id, initial, currency, False)
            )
        self.touched.add(wallet.id)
        return wallet.id

    @rule(target=transfers, source=wallets, peer=st.integers(0, 9), amount=st.integers(1, 300))
    def pay(self, source: str, peer: int, amount: int) -> Any:
        return self.move(source, self.peer_of(source, peer), amount)

    @rule(target=transfers, source=wallets, peer=st.integers(0, 9), too_much=st.booleans())
    def pay_everything(self, source: str, peer: int, too_much: bool) -> Any:
        available = self.model.wallets[source].available
        return self.move(source, self.peer_of(source, peer), max(1, available + too_much))

    @rule(target=transfers, wallet=wallets, amount=st.integers(1, 300), is_deposit=st.booleans())
    def pay_in_or_out(self, wallet: str, amount: int, is_deposit: bool) -> Any:
        funding = self.funding_of(wallet)
        return self.move(*((funding, wallet) if is_deposit else (wallet, funding)), amount)

    @rule(source=wallets, peer=st.integers(0, 9), amount=st.integers(1, 300))
    def try_to_pay(self, source: str, peer: int, amount: int) -> None:
        self.move(source, self.peer_of(source, peer), amount, is_dry_run=True)

    @rule(source=wallets | st.just(STRANGER), destination=wallets | st.just(STRANGER))
    def pay_astray(self, source: str, destination: str) -> None:
        self.move(source, destination, 1)

    def funding_of(self, wallet: str) -> str:
        return self.live.funding[self.model.wallets[wallet].currency]

    def peer_of(self, id: str, number: int) -> str:
        """Another wallet of the same currency; each example begins with two."""
        currency = self.model.wallets[id].currency
        peers = [
            wallet.id
            for wallet in self.model.wallets.values()
            if wallet.currency == currency and wallet.id != id and not wallet.funding
        ]
        return peers[number % len(peers)]

    def move(
        self,
        source: str,
        destination: str,
        amount: int,
        *,
        is_dry_run: bool = False,
    ) -> Any:
        payer = self.model.wallets.get(source)
        currency = payer.currency if payer else "USD"
        body = {
            "source_wallet_id": source,
            "destination_wallet_id": destination,
            "amount": amount,
            "currency": currency,
        }
        refusal = self.model.refuse_transfer(source, destination, amount, currency)
        if is_dry_run:
            reply = self.live.run(self.api.post("/transfers?dry_run=true", body))
        else:
            reply = self.post("/transfers", body)
        self.touched |= {source, destination}
        if refusal is not None:
            refusal.check(reply)
            return multiple()
        assert payer is not None
        if not payer.funding:
            assert reply.json["source_balance_after"] == payer.balance - amount
            assert reply.json["source_version"] == payer.version + 1
        if is_dry_run:
            assert (reply.status, reply.json["status"]) == (200, "dry_run")
            return multiple()
        assert (reply.status, reply.json["kind"]) == (201, "transfer")
        posted = Transfer(reply.json["id"], source, destination, amount, currency, False)
        self.model.transfer(posted)
        return posted.id

    @rule(target=transfers, original=transfers, amount=st.none() | st.integers(1, 300))
    def reverse(self, original: str, amount: int | None) -> Any:
        return self.give_back(self.model.transfers[original], amount)

    @rule(target=transfers, original=transfers, too_much=st.booleans())
    def reverse_exactly(self, original: str, too_much: bool) -> Any:
        transfer = self.model.transfers[original]
        return self.give_back(transfer, max(1, transfer.left + too_much))

    def give_back(self, original: Transfer, amount: int | None) -> Any:
        refusal = self.model.refuse_reversal(original, amount)
        body = {} if amount is None else {"amount": amount}
        reply = self.post(f"/transfers/{original.id}/reversal", body)
        self.touched |= {original.source, original.destination}
        if refusal is not None:
            refusal.check(reply)
            return multiple()
        assert (reply.status, reply.json["kind"]) == (201, "reversal")
        assert reply.json["reverses_transfer_id"] == original.id
        posted = Transfer(
            reply.json["id"],
            original.destination,
            original.source,
            original.left if amount is None else amount,
            original.currency,
            True,
        )
        assert reply.json["amount"] == posted.amount
        original.given_back += posted.amount
        self.model.transfer(posted)
        return posted.id

    @rule(wallet=wallets, verb=st.sampled_from(["freeze", "unfreeze", "unfreeze", "close"]))
    def freeze_or_close(self, wallet: str, verb: str) -> None:
        self.set_status(wallet, verb)

    def set_status(self, wallet: str, verb: str) -> None:
        refusal = self.model.refuse_status(wallet, verb)
        reply = self.post(f"/wallets/{wallet}/{verb}", None)
        self.touched.add(wallet)
        if refusal is not None:
            refusal.check(reply)
        else:
            assert reply.status == 200, reply
            self.model.set_status(wallet, verb)

    # One closed wallet is enough: it cannot change any more.
    @precondition(lambda self: not self.model.closed)
    @rule(wallet=wallets)
    def empty_and_close(self, wallet: str) -> None:
        balance = self.model.wallets[wallet].balance
        funding = self.funding_of(wallet)
        if balance:
            self.move(*((wallet, funding) if balance > 0 else (funding, wallet)), abs(balance))
        self.set_status(wallet, "close")

    @rule(wallet=wallets | st.just(STRANGER), limit=st.sampled_from([0, 50, 100, 500]))
    def set_limit(self, wallet: str, limit: int) -> None:
        refusal = self.model.refuse_limit(wallet, limit)
        reply = self.live.run(self.api.patch(f"/wallets/{wallet}", {"overdraft_limit": limit}))
        self.touched.add(wallet)
        if refusal is not None:
            refusal.check(reply)
        else:
            assert reply.status == 200, reply
            self.model.set_limit(wallet, limit)

    # Repetitions

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), redis_forgets=st.booleans())
    def repeat(self, data: st.DataObject, redis_forgets: bool) -> None:
        before = data.draw(st.sampled_from(self.sent))
        if redis_forgets:
            self.live.flush_redis()
        again = self.live.run(self.api.post(before.path, before.body, key=before.key))
        assert (again.status, again.body) == (before.reply.status, before.reply.body)
        assert again.headers["Idempotent-Replayed"] == "true"
        self.touched |= set(self.model.wallets)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def repeat_changed(self, data: st.DataObject) -> None:
        before = data.draw(st.sampled_from(self.sent))
        path, body = before.changed()
        reply = self.live.run(self.api.post(path, body, key=before.key))
        assert (reply.status, reply.code) == (422, "idempotency-key-reused")
        self.touched |= set(self.model.wallets)

    # The past

    @rule(wallet=wallets, data=st.data())
    def look_back(self, wallet: str, data: st.DataObject) -> None:
        if not (statement := self.statement_of(wallet)):
            return
        at = data.draw(st.sampled_from(statement))["created_at"]
        # Times have microseconds, and several changes may share one: they are not before it.
        then = next((entry for entry in statement if entry["created_at"] < at), None)
        reply = self.live.run(self.api.get(f"/wallets/{wallet}?at={at}"))
        if then is None:
            # Before its first change it was empty, or not created.
            assert reply.status == 404 or (reply.json["version"], reply.json["balance"]) == (0, 0)
            return
        assert reply.json["version"] == then["version"]
        assert reply.json["balance"] == then["balance_after"]

    @rule(wallet=wallets, limit=st.integers(1, 3))
    def page_through(self, wallet: str, limit: int) -> None:
        pages, query = [], f"limit={limit}"
        while query:
            page = self.live.run(self.api.get(f"/wallets/{wallet}/statement?{query}")).json
            assert len(page["data"]) <= limit
            pages += [Entry.of(view) for view in page["data"]]
            query = f"limit={limit}&cursor={page['next_cursor']}" if page["has_more"] else ""
        assert pages == self.model.wallets[wallet].entries[::-1]

    @invariant()
    def touched_wallets_are_as_they_should_be(self) -> None:
        for id in sorted(self.touched):
            wallet = self.model.wallets.get(id)
            if wallet is None:
                assert self.live.run(self.api.get(f"/wallets/{id}")).code == "wallet-not-found"
            elif not wallet.funding:
                self.compare(wallet)
        self.touched.clear()

    def compare(self, wallet: Wallet) -> None:
        view = self.live.run(self.api.get(f"/wallets/{wallet.id}?min_version={wallet.version}"))
        assert view.status == 200, view
        expected = {
            "balance": wallet.balance,
            "held": 0,
            "available": wallet.available,
            "overdraft_limit": wallet.limit,
            "status": wallet.status,
            "version": wallet.version,
            "currency": wallet.currency,
        }
        assert {name: view.json[name] for name in expected} == expected
        entries = [Entry.of(entry) for entry in self.statement_of(wallet.id)]
        assert entries == wallet.entries[::-1]

    def teardown(self) -> None:
        assert self.live.audit() == []

    def post(self, path: str, body: dict[str, Any] | None) -> Reply:
        """A request with a new key, which may be repeated later."""
        key = str(uuid4())
        reply = self.live.run(self.api.post(path, body, key=key))
        self.sent.append(Sent(path, body, key, reply))
        return reply

    def statement_of(self, wallet: str) -> list[dict[str, Any]]:
        path = f"/wallets/{wallet}/statement?limit=200"
        return list(self.live.run(self.api.get(path)).json["data"])


RUNS = settings(
    # A planted fault is found within four.
    max_examples=20,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


# Making a failing example small takes much longer than the test itself.
@pytest.mark.timeout(120)
def test_the_api_answers_like_a_model_of_a_ledger(servers: Servers) -> None:
    with running_replica(servers) as LedgerMachine.live:
        run_state_machine_as_test(LedgerMachine, settings=RUNS)


async def forget_reversals(_: object, ids: object) -> dict[str, int]:
    return {}


def ignore_the_status(book: Book, wallet: domain.Wallet, *_: object) -> WalletSet:
    return WalletSet(wallet, None)


def answer_anyhow(*_: object) -> Fingerprint:
    return Fingerprint(bytes(16))


@pytest.mark.parametrize(
    ("part", "broken"),
    [
        ("transferd.commit.transaction.store.reversed_sums", forget_reversals),
        ("transferd.domain.decide._set", ignore_the_status),
        ("transferd.web.routes.transfers.fingerprint_of", answer_anyhow),
    ],
)
def test_the_model_finds_a_faulty_service(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, part: str, broken: object
) -> None:
    monkeypatch.setattr(part, broken)
    # The first example that shows the fault ends the run.
    once = settings(
        RUNS, max_examples=500, phases=[Phase.generate], derandomize=True, database=None
    )
    with running_replica(servers) as LedgerMachine.live, pytest.raises(AssertionError):
        run_state_machine_as_test(LedgerMachine, settings=once)
