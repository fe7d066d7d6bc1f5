"""What a load test leaves behind, in small: a ledger, and a history that agrees with it."""

from uuid import UUID

from loadtest.truth.compare import Entry, Ledger, compare, compare_sums
from loadtest.truth.history import History, by_id
from loadtest.truth.violations import Violation
from loadtest.world import State

ADA, BOB, EVE, IDA = WALLETS = ("ada", "bob", "eve", "ida")
NOBODY = str(UUID(int=2**100))


class Run:
    """What a run has left behind: `rows` of each wallet, oldest first, and the history.

    `pay` keeps it true; the parts of it, and the attributes, are there to plant faults.
    """

    def __init__(self) -> None:
        self.start = {wallet: State(1_000, 3) for wallet in WALLETS}
        self.final = dict(self.start)
        self.rows: dict[str, list[Entry]] = {}
        self.history = History({wallet: number for number, wallet in enumerate(WALLETS)})
        self._ids = 0

    def new_id(self) -> str:
        """Of a transfer."""
        self._ids += 1
        return str(UUID(int=self._ids))

    def post(self, wallet: str, transfer_id: str | None, amount_minor: int) -> None:
        """One row, that follows from the one before."""
        last = self.final[wallet]
        now = State(last.balance_minor + amount_minor, last.version + 1)
        self.final[wallet] = now
        row = Entry(transfer_id, amount_minor, now.balance_minor, now.version)
        self.rows.setdefault(wallet, []).append(row)

    def tell(self, transfer_id: str, source: str, destination: str, amount_minor: int) -> None:
        """An answer with the version and balance of the source in its statement now."""
        self.history.transferred(
            {
                "id": transfer_id,
                "source_wallet_id": source,
                "destination_wallet_id": destination,
                "amount": amount_minor,
                "source_version": self.final[source].version,
                "source_balance_after": self.final[source].balance_minor,
            }
        )

    def pay(self, source: str, destination: str, amount_minor: int) -> str:
        """A transfer, in the ledger and answered. Its id."""
        transfer_id = self.new_id()
        self.post(source, transfer_id, -amount_minor)
        self.post(destination, transfer_id, amount_minor)
        self.tell(transfer_id, source, destination, amount_minor)
        return transfer_id

    def change(self, wallet: str, place: int, **fields: int | str | None) -> None:
        """Plant a fault in a row."""
        self.rows[wallet][place] = self.rows[wallet][place]._replace(**fields)  # type: ignore[arg-type]

    def shift(self, wallet: str, place: int, by: int) -> None:
        """Move the versions of a wallet from this row on, as far as its balance's."""
        for row in range(place, len(self.rows[wallet])):
            self.change(wallet, row, version=self.rows[wallet][row].version + by)
        last = self.final[wallet]
        self.final[wallet] = State(last.balance_minor, last.version + by)

    def violations(self) -> list[Violation]:
        """As the audit finds them."""
        acknowledged, doubled = by_id(self.history.acknowledged)
        statements = {wallet: rows[::-1] for wallet, rows in self.rows.items()}
        ledger = Ledger(WALLETS, self.start, self.final, statements)
        return compare_sums(self.start, self.final) + doubled + compare(ledger, acknowledged)

    @property
    def kinds(self) -> list[str]:
        """What kinds of violations there are, in the order of the alphabet."""
        return sorted(violation.kind for violation in self.violations())

    @property
    def texts(self) -> list[str]:
        """Their texts, in the order in which they were found."""
        return [violation.text for violation in self.violations()]
