"""A machine of hypothesis: random requests about wallets and transfers, compared with a model."""

from typing import Any, ClassVar
from uuid import uuid4

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from tests.support.api import Reply
from tests.support.ledger_model import Model
from tests.support.live import Live, Sent
from tests.support.model_state import Entry, Transfer, Wallet

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
        self.model = Model(open_holds_max=self.live.limits.open_holds_max)
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
        reply = self.post("/wallets", body, self.live.funding[currency])
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
        peers = self.peers_of(id)
        return peers[number % len(peers)]

    def peers_of(self, id: str) -> list[str]:
        currency = self.model.wallets[id].currency
        return [
            wallet.id
            for wallet in self.model.wallets.values()
            if wallet.currency == currency and wallet.id != id and not wallet.funding
        ]

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
        if is_dry_run:
            refusal = self.model.refuse_transfer(source, destination, amount, currency)
            reply = self.live.run(self.api.post("/transfers?dry_run=true", body))
        else:
            self.lock(source, destination)
            refusal = self.model.refuse_transfer(source, destination, amount, currency)
            reply = self.post("/transfers", body, source, destination)
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

    @rule(target=transfers, original=transfers)
    def reverse_again(self, original: str) -> Any:
        self.give_back(self.model.transfers[original], None)
        return self.give_back(self.model.transfers[original], 1)

    def give_back(self, original: Transfer, amount: int | None) -> Any:
        sides = (original.source, original.destination)
        self.lock(*sides)
        refusal = self.model.refuse_reversal(original, amount)
        body = {} if amount is None else {"amount": amount}
        reply = self.post(f"/transfers/{original.id}/reversal", body, *sides)
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
        self.lock(wallet)
        refusal = self.model.refuse_status(wallet, verb)
        reply = self.post(f"/wallets/{wallet}/{verb}", None, wallet)
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
        self.lock(wallet)
        refusal = self.model.refuse_limit(wallet, limit)
        reply = self.live.run(self.api.patch(f"/wallets/{wallet}", {"overdraft_limit": limit}))
        if refusal is not None:
            refusal.check(reply)
        else:
            assert reply.status == 200, reply
            self.model.set_limit(wallet, limit)

    # Repetitions

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), redis_forgets=st.booleans())
    def repeat(self, data: st.DataObject, redis_forgets: bool) -> None:
        before = self.draw_sent(data, redis_forgets=redis_forgets)
        again = self.live.run(self.api.post(before.path, before.body, key=before.key))
        assert (again.status, again.body) == (before.reply.status, before.reply.body)
        assert again.headers["Idempotent-Replayed"] == "true"
        self.touched |= set(self.model.wallets)

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), redis_forgets=st.booleans())
    def repeat_changed(self, data: st.DataObject, redis_forgets: bool) -> None:
        before = self.draw_sent(data, redis_forgets=redis_forgets)
        path, body = before.changed()
        reply = self.live.run(self.api.post(path, body, key=before.key))
        assert (reply.status, reply.code) == (422, "idempotency-key-reused")
        self.touched |= set(self.model.wallets)

    def draw_sent(self, data: st.DataObject, *, redis_forgets: bool) -> Sent:
        """A request to repeat. If Redis has forgotten the answer, a group locks the wallets."""
        before: Sent = data.draw(st.sampled_from(self.sent))
        if redis_forgets or self.model.due_holds_of(*before.wallets):
            self.live.flush_redis()
            self.lock(*before.wallets)
        return before

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
        assert reply.json["held"] == held_before(at, then, statement)

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
        view = self.look_at(wallet)
        expected = wallet.view()
        assert {name: view.json[name] for name in expected} == expected
        entries = [Entry.of(entry) for entry in self.statement_of(wallet.id)]
        assert entries == wallet.entries[::-1]

    def look_at(self, wallet: Wallet) -> Reply:
        path = f"/wallets/{wallet.id}?min_version={wallet.version}"
        view = self.live.run(self.api.get(path))
        assert view.status == 200, view
        return view

    def teardown(self) -> None:
        assert self.live.audit() == []

    def lock(self, *wallets: str) -> None:
        """What a group does first with the wallets of its commands."""
        self.model.lock(*wallets)
        self.touched.update(wallets)

    def post(self, path: str, body: dict[str, Any] | None, *wallets: str) -> Reply:
        """A request about wallets with a new key, which may be repeated later."""
        key = str(uuid4())
        reply = self.live.run(self.api.post(path, body, key=key))
        self.sent.append(Sent(path, body, key, reply, wallets))
        return reply

    def statement_of(self, wallet: str) -> list[dict[str, Any]]:
        path = f"/wallets/{wallet}/statement?limit=200"
        return list(self.live.run(self.api.get(path)).json["data"])


def held_before(at: str, then: dict[str, Any], statement: list[dict[str, Any]]) -> int:
    """What a wallet held before the time of an entry, after the entry `then`.

    Holds that were due have ended before, and the first change after it has written their ends.
    """
    held: int = then["held_after"]
    for entry in reversed(statement):
        if entry["version"] > then["version"]:
            if entry["kind"] != "hold_expire" or entry["created_at"] != at:
                break
            held = entry["held_after"]
    return held
