"""True rounds: a ledger with one line of time, and clients that see it through faults."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Self

import orjson

from loadtest.proof.record import (
    ChangeRow,
    Delivery,
    Entry,
    HoldRow,
    Kind,
    Ledger,
    Operation,
    TransferRow,
    Try,
    WalletRow,
)
from loadtest.proof.rules.events import EVENT_TYPES

FUNDING = "fund"
Act = Callable[["World", Random], None]


def t(number: int) -> str:
    """The id of a transfer by its number, which begins at 0 in a round."""
    return f"{number:08}-0000-7000-8000-000000000000"


# Ids that no transfer of a round has.
NEW, STRANGER = t(98), t(99)
# No answer, or an answer that leaves the outcome unknown.
UNKNOWN = ((0, ""), (502, ""), (500, "internal-error"), (504, "deadline-exceeded"))
IN_PROGRESS = (409, "request-in-progress")
TURNED_AWAY = ((429, "rate-limited"), (429, "mailbox-full"), (503, "overloaded"), (503, "draining"))


@dataclass
class Round:
    """A history and a ledger; `edit` the ledger, which is frozen. `asked` names operations."""

    history: list[Operation]
    ledger: Ledger
    asked: dict[str, Operation] = field(default_factory=dict)

    def edit(self, **changes: Any) -> None:
        """Replace fields of the ledger."""
        self.ledger = replace(self.ledger, **changes)

    def edit_row(self, id: str, **changes: Any) -> None:
        """Replace fields of a transfer of the ledger."""
        rows = [replace(r, **changes) if r.id == id else r for r in self.ledger.transfers]
        self.edit(transfers=rows)

    def edit_wallet(self, id: str, **changes: Any) -> None:
        """Replace fields of a wallet of the ledger."""
        rows = [replace(w, **changes) if w.id == id else w for w in self.ledger.wallets]
        self.edit(wallets=rows)

    def edit_outcome(self, key: str, *outcome: Any) -> None:
        """Replace the outcome of a key by (status, transfer), or drop it."""
        outcomes = {k: v for k, v in self.ledger.outcomes.items() if k != key}
        self.edit(outcomes=outcomes | {key: outcome} if outcome else outcomes)

    def edit_try(self, key: str, number: int, **changes: Any) -> None:
        """Replace fields of one try of the operation with that key."""
        tries = self.operation(key).tries
        tries[number] = replace(tries[number], **changes)

    def edit_body(self, key: str, number: int, **changes: Any) -> None:
        """Replace fields in the body of an answer."""
        body = orjson.loads(self.operation(key).tries[number].body)
        self.edit_try(key, number, body=orjson.dumps(body | changes))

    def operation(self, key: str) -> Operation:
        """The operation with that key."""
        return next(each for each in self.history if each.key == key)

    def row(self, id: str) -> TransferRow:
        """The transfer with that id."""
        return next(each for each in self.ledger.transfers if each.id == id)


@dataclass
class World:
    """A service that executes one request after the other, each at its own second."""

    wallets: dict[str, WalletRow]
    before: dict[str, WalletRow] = field(init=False)
    rows: list[TransferRow] = field(default_factory=list)
    # Everything that changed a wallet, in order.
    log: list[TransferRow | ChangeRow] = field(default_factory=list)
    outcomes: dict[str, tuple[int, str | None]] = field(default_factory=dict)
    # The code and the body of each outcome that is no transfer.
    others: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    history: list[Operation] = field(default_factory=list)
    now_s: float = 100.0
    # Where the last window of each wallet ended.
    window_ends: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.before = dict(self.wallets)

    @classmethod
    def with_people(cls, *people: str, each: int = 100, overdraft_limit: int = 0) -> Self:
        """Each of these wallets got money from the funding wallet before the round."""
        wallets = {p: WalletRow(p, "USD", each, overdraft_limit, 7) for p in people}
        total = each * len(people)
        wallets[FUNDING] = WalletRow(FUNDING, "USD", -total, 0, len(people), funding=True)
        return cls(wallets)

    def asked(self, source: str, destination: str, amount: int) -> Operation:
        """A transfer that is not sent yet."""
        key = f"k{len(self.history)}"
        operation = Operation(Kind.TRANSFER, key, source, destination, amount)
        self.history.append(operation)
        return operation

    def asked_back(self, original: str, amount: int) -> Operation:
        """A reversal that is not sent yet."""
        row = next(row for row in self.rows if row.id == original)
        operation = self.asked(row.destination, row.source, amount)
        operation.kind, operation.original = Kind.REVERSAL, original
        return operation

    def answer(self, operation: Operation) -> Try:
        """Execute it now, or replay it: the answer takes no time."""
        self.now_s += 10
        replayed = operation.key in self.outcomes
        if not replayed:
            self._execute(operation)
        status, id = self.outcomes[operation.key]
        code, body = ("", self._body(id)) if id is not None else self.others[operation.key]
        return Try(self.now_s, self.now_s, status, code, body, replayed)

    def tell(self, operation: Operation, *, early_s: float = 1, late_s: float = 1) -> Try:
        """Execute or replay it now, and answer the client."""
        answer = self.answer(operation)
        return self.heard(operation, answer, early_s=early_s, late_s=late_s)

    def heard(self, operation: Operation, answer: Try, *, early_s: float, late_s: float) -> Try:
        """Add a try that began before that answer was made, and ended later."""
        began_s, ended_s = answer.began_s - early_s, answer.ended_s + late_s
        operation.tries.append(replace(answer, began_s=began_s, ended_s=ended_s))
        return operation.tries[-1]

    def turn(self, operation: Operation, status: int, code: str = "") -> None:
        """A try without an effect, or with an unknown one."""
        self.now_s += 10
        operation.tries.append(Try(self.now_s - 1, self.now_s + 1, status, code))

    def read(self, wallet: str, min_version: int | None = None) -> Operation:
        """Read a wallet as it is now; 412 if that is too old."""
        self.now_s += 10
        row = self.wallets[wallet]
        operation = Operation(Kind.READ, wallet=wallet, min_version=min_version)
        began_us = self.now_us - 1_000_000
        each = Try(self.now_s - 1, self.now_s + 1, 412, "version-not-reached", began_us=began_us)
        if min_version is None or min_version <= row.version:
            held = self.held_at(wallet, self.now_us)
            view = {"id": wallet, "balance": row.balance, "held": held, "version": row.version}
            each = replace(each, status=200, code="", body=orjson.dumps(view))
        operation.tries.append(each)
        self.history.append(operation)
        return operation

    def look_back(self, wallet: str, until_us: int) -> Operation:
        """Ask for the wallet before an instant."""
        before = self.before[wallet]
        version, balance = before.version, before.balance
        for entry in self._entries(wallet):
            if entry.at_us < until_us:
                version, balance = entry.version, entry.balance_after_minor
        held = self.held_at(wallet, until_us)
        body = {"id": wallet, "version": version, "balance": balance, "held": held}
        return self._told(Operation(Kind.INSTANT, wallet=wallet, until_us=until_us), body)

    def window(self, wallet: str, since_us: int, until_us: int) -> Operation:
        """Ask for the entries of a wallet in a window."""
        data = [
            {
                "version": entry.version,
                "amount": entry.amount_minor,
                "balance_after": entry.balance_after_minor,
            }
            for entry in self._entries(wallet)
            if since_us <= entry.at_us < until_us
        ]
        asked = Operation(Kind.WINDOW, wallet=wallet, since_us=since_us, until_us=until_us)
        return self._told(asked, {"data": data[::-1]})

    @property
    def now_us(self) -> int:
        """The time that a change would have now."""
        return round(self.now_s * 1e6)

    def _told(self, asked: Operation, body: dict[str, Any]) -> Operation:
        self.now_s += 10
        asked.tries.append(Try(self.now_s - 1, self.now_s + 1, 200, body=orjson.dumps(body)))
        self.history.append(asked)
        return asked

    def _entries(self, wallet: str) -> list[Entry]:
        """Each change, in order."""
        entries = (pair for row in self.log for pair in entries_of(row))
        return [entry for name, entry in entries if name == wallet]

    def held_at(self, wallet: str, until_us: int) -> int:
        """What the wallet holds before an instant."""
        return 0

    def round(self, *, listening: bool = True) -> Round:
        """The round so far, with every event delivered once if a receiver listened."""
        # The receiver has subscribed to transfers and holds only.
        told = [row for row in self.log if isinstance(row, TransferRow) or row.hold is not None]
        deliveries = [delivery_of(n, row) for n, row in enumerate(told if listening else ())]
        changes = [row for row in self.log if isinstance(row, ChangeRow)]
        ledger = Ledger(
            list(self.wallets.values()),
            list(self.rows),
            self.outcomes,
            deliveries,
            self.before,
            holds=self.holds(),
            changes=changes,
        )
        return Round(self.history, ledger)

    def holds(self) -> list[HoldRow]:
        """All holds as they are now."""
        return []

    def available(self, wallet: WalletRow) -> int:
        """What the wallet can pay or reserve."""
        return wallet.balance - wallet.held + wallet.overdraft_limit

    def refuse(self, operation: Operation, status: int, code: str) -> None:
        """The outcome is a refusal."""
        self.outcomes[operation.key] = (status, None)
        self.others[operation.key] = code, orjson.dumps({"code": code, "key": operation.key})

    def _execute(self, operation: Operation) -> None:
        source = self.wallets[operation.source]
        if operation.amount > self._left(operation):
            self.refuse(operation, 409, "reversal-exceeds-transfer")
        elif not source.funding and operation.amount > self.available(source):
            self.refuse(operation, 422, "insufficient-funds")
        else:
            self._post(operation, operation.amount)

    def _post(self, operation: Operation, amount: int) -> None:
        source, destination = self.wallets[operation.source], self.wallets[operation.destination]
        row = TransferRow(
            t(len(self.rows)),
            source.id,
            destination.id,
            amount,
            source.version + 1,
            source.balance - amount,
            destination.version + 1,
            destination.balance + amount,
            operation.original or None,
            self.now_us,
            operation.hold or None,
        )
        self.rows.append(row)
        self.log.append(row)
        self.outcomes[operation.key] = (201, row.id)
        for wallet, balance in (
            (source, row.source_balance_after),
            (destination, row.destination_balance_after),
        ):
            changed = replace(wallet, balance=balance, version=wallet.version + 1)
            self.wallets[wallet.id] = changed

    def _left(self, operation: Operation) -> int:
        if operation.kind is not Kind.REVERSAL:
            return operation.amount
        back = sum(row.amount for row in self.rows if row.reverses == operation.original)
        return next(r.amount for r in self.rows if r.id == operation.original) - back

    def _body(self, id: str) -> bytes:
        return body_of(next(row for row in self.rows if row.id == id))


def entries_of(row: TransferRow | ChangeRow) -> Sequence[tuple[str, Entry]]:
    """The entries of a row, each with its wallet."""
    return row.entries if isinstance(row, TransferRow) else [(row.wallet, row.entry)]


def delivery_of(number: int, row: TransferRow | ChangeRow) -> Delivery:
    """The delivery of the event of a row."""
    if isinstance(row, TransferRow):
        return Delivery(number, row.id, "transfer.posted", row.id, row.versions)
    kind = EVENT_TYPES[row.kind]
    return Delivery(number, row.event_id, kind, None, {row.wallet: row.version}, row.hold)


def body_of(row: TransferRow) -> bytes:
    """The answer with 201 about a transfer."""
    return orjson.dumps(
        {
            "id": row.id,
            "source_wallet_id": row.source,
            "destination_wallet_id": row.destination,
            "amount": row.amount,
            "kind": kind_of(row),
            "status": "posted",
            "source_version": row.source_version,
            "source_balance_after": row.source_balance_after,
            "reverses_transfer_id": row.reverses,
            "hold_id": row.hold,
        }
    )


def kind_of(row: TransferRow) -> str:
    """The kind of a transfer in answers."""
    if row.hold is not None:
        return "capture"
    return "transfer" if row.reverses is None else "reversal"


def true_round() -> Round:
    """Six transfers: t0 answered twice, t1 after a cut, t2 reverses t0, t3 and t4 after a refusal.

    k2 is refused, k5 gets back-pressure, k8 is a deposit; k9 reads with a version, k10 without.
    """
    world = World.with_people("ada", "bob", "cy")
    first = world.asked("ada", "bob", 30)
    world.tell(first)
    world.tell(first)
    cut = world.asked("bob", "cy", 50)
    world.heard(cut, replace(world.answer(cut), status=0, body=b""), early_s=1, late_s=1)
    world.tell(cut)
    refused = world.asked("ada", "bob", 500)
    world.tell(refused)
    world.tell(refused)
    world.tell(world.asked_back(t(0), 10))
    late = world.asked("ada", "cy", 20)
    world.turn(late, 429, "rate-limited")
    world.tell(late)
    turned_away = world.asked("ada", "cy", 21)
    world.turn(turned_away, 503, "overloaded")
    world.turn(turned_away, 429, "mailbox-full")
    unheard = world.asked("ada", "bob", 5)
    world.turn(unheard, 0)
    world.turn(unheard, 409, "request-in-progress")
    world.tell(unheard)
    over = world.asked_back(t(0), 25)
    world.tell(over)
    world.tell(world.asked(FUNDING, "cy", 7))
    world.read("ada", 11)
    world.read("ada")
    return world.round()


def past_round() -> Round:
    """Questions about the past of Ada's wallet: instants, and windows that meet."""
    world = World.with_people("ada", "bob")
    start_us = world.now_us
    asked = {"opening": world.look_back("ada", start_us)}
    world.tell(world.asked("ada", "bob", 30))
    world.tell(world.asked("bob", "ada", 5))
    middle_us = world.now_us
    asked["first"] = world.window("ada", start_us, middle_us)
    asked["middle"] = world.look_back("ada", middle_us)
    world.tell(world.asked("ada", "bob", 10))
    end_us = world.now_us + 1
    asked["second"] = world.window("ada", middle_us, end_us)
    asked["closing"] = world.look_back("ada", end_us)
    asked["again"] = world.look_back("ada", middle_us)
    return replace(world.round(), asked=asked)


def random_round(random: Random, *, operations: int, listening: bool = True) -> Round:
    """Hot and quiet wallets, retries, replays, reversals, refusals, reads, repeated deliveries."""
    world = World.with_people("hot", *"abcdef", each=60, overdraft_limit=random.choice((0, 25)))
    return played(world, ACTS, random, operations, listening)


def played(
    world: World, acts: Sequence[Act], random: Random, operations: int, listening: bool
) -> Round:
    """The round after so many of the acts. Some events arrive again."""
    for _ in range(operations):
        random.choice(acts)(world, random)
    done = world.round(listening=listening)
    first = list(done.ledger.deliveries)
    # An event may come again at any time after its first arrival.
    again = [(random.uniform(each.number, len(first)), each) for each in first[::3]]
    in_time = sorted([(float(d.number), d) for d in first] + again, key=lambda pair: pair[0])
    done.edit(deliveries=[replace(d, number=n) for n, (_, d) in enumerate(in_time)])
    return done


def _transfer(world: World, random: Random) -> None:
    source, destination = random.sample(list("abcdef"), 2)
    # Half of the round is about one wallet.
    if random.random() < 0.5:
        source, destination = random.choice((("hot", source), (source, "hot"), (FUNDING, "hot")))
    settle(world, random, world.asked(source, destination, random.randint(1, 90)))


def _reversal(world: World, random: Random) -> None:
    originals = [row for row in world.rows if row.reverses is None]
    if originals:
        original = random.choice(originals)
        settle(world, random, world.asked_back(original.id, random.randint(1, original.amount)))


def _read(world: World, random: Random) -> None:
    wallet = random.choice(list(world.wallets))
    version = world.wallets[wallet].version
    world.read(wallet, random.choice((None, version - 1, version, version + 1)))


def _look_back(world: World, random: Random) -> None:
    wallet = random.choice(list(world.wallets))
    # Often right at a change, which is not before its own instant.
    times = [row.at_us for row in world.rows[-3:]]
    world.look_back(wallet, random.choice((*times, *world.window_ends.values(), world.now_us)))


def _window(world: World, random: Random) -> None:
    wallet = random.choice(list(world.wallets))
    since_us = world.window_ends.get(wallet, 0)
    world.window_ends[wallet] = world.now_us
    world.window(wallet, since_us, world.now_us)


def settle(world: World, random: Random, operation: Operation) -> None:
    """Send it, repeat it until it has an answer, and sometimes after that."""
    if random.random() < 0.1:
        # Never executed.
        return world.turn(operation, 429, "rate-limited")
    for _ in range(random.choice((0, 0, 0, 1, 2))):
        _try_in_vain(world, random, operation)
    # The more a try overlaps with others, the less is known of its place among them.
    early_s, late_s = random.uniform(0, 40), random.uniform(0, 40)
    world.tell(operation, early_s=early_s, late_s=late_s)
    for _ in range(random.choice((0, 0, 1, 2))):
        world.tell(operation)
    return None


def _try_in_vain(world: World, random: Random, operation: Operation) -> None:
    status, code = random.choice((*UNKNOWN, IN_PROGRESS, *TURNED_AWAY))
    if (status, code) in UNKNOWN and random.random() < 0.5:
        # Executed, but without an answer.
        answer = replace(
            world.answer(operation), status=status, code=code, body=b"", replayed=False
        )
        world.heard(operation, answer, early_s=1, late_s=4)
    else:
        world.turn(operation, status, code)


ACTS: Sequence[Act] = (*[_transfer] * 6, *(_reversal, _read, _look_back, _window))
