"""What a load test finds in statements; what it finds in whole rounds is in `test_proof`."""

from collections.abc import Callable

import pytest

from loadtest.proof.history import Acknowledged, History, TransferAnswer
from loadtest.proof.record import Entry, State
from loadtest.proof.rules.books import sums
from tests.unit.load_test_view import LoadTestView
from tests.unit.true_rounds import NEW, World, t

ADA, BOB, EVE, IDA = "ada", "bob", "eve", "ida"


def busy() -> LoadTestView:
    """Ada pays one by one, Bob pays Eve three times, and Ida has nothing to do with it.

    They begin with 1,000 at version 7.
    """
    world = World.with_people(ADA, BOB, EVE, IDA, each=1_000)
    for source, destination, amount in (
        *((ADA, BOB, 100), (ADA, EVE, 30), (BOB, EVE, 5), (BOB, EVE, 6), (BOB, EVE, 7)),
        (EVE, ADA, 1),
    ):
        world.tell(world.asked(source, destination, amount))
    return LoadTestView(world.round())


def post(view: LoadTestView, wallet: str, transfer: str | None, amount: int) -> None:
    """One entry that follows from the one before."""
    last = view.final[wallet]
    view.final[wallet] = State(last.balance_minor + amount, last.version + 1)
    entry = Entry(transfer, last.version + 1, amount, last.balance_minor + amount)
    view.statements[wallet].append(entry)


def tell(view: LoadTestView, *, id: str = NEW, amount: int = 10, version: int = 11) -> None:
    """An answer about a payment of Ada to Bob, as Ada's next entry would be."""
    view.history.transferred(
        {
            "id": id,
            "source_wallet_id": ADA,
            "destination_wallet_id": BOB,
            "amount": amount,
            "source_version": version,
            "source_balance_after": 871 - amount,
        }
    )


def pay(view: LoadTestView, source: str = ADA, destination: str = BOB, amount: int = 10) -> None:
    post(view, source, NEW, -amount)
    post(view, destination, NEW, amount)


def change(view: LoadTestView, wallet: str, place: int, **fields: int | str | None) -> None:
    entry = view.statements[wallet][place]
    view.statements[wallet][place] = entry._replace(**fields)  # type: ignore[arg-type]


def shift(view: LoadTestView, place: int, by: int) -> None:
    """Move the versions of Eve from an entry on; of her last one an answer told another."""
    for number, entry in list(enumerate(view.statements[EVE]))[place:]:
        change(view, EVE, number, version=entry.version + by)
    last = view.final[EVE]
    view.final[EVE] = State(last.balance_minor, last.version + by)


def say(view: LoadTestView, wallet: str, balance: int, version: int) -> None:
    """The wallet itself says something else than its statement."""
    last = view.final[wallet]
    view.final[wallet] = State(last.balance_minor + balance, last.version + version)


def read_later(view: LoadTestView, wrong: int) -> None:
    """The wallets were read before the last payment, and their statements after it."""
    read = dict(view.final)
    pay(view)
    tell(view)
    view.final = read
    say(view, ADA, -wrong, 0)
    say(view, BOB, wrong, 0)


def several(*calls: Callable[[LoadTestView], object]) -> Callable[[LoadTestView], None]:
    def all_of_them(view: LoadTestView) -> None:
        for call in calls:
            call(view)

    return all_of_them


# fmt: off
STATEMENTS: list[tuple[str, Callable[[LoadTestView], object], str, str]] = [
    ("nothing", lambda v: None, "", ""),
    ("a change that is no transfer", lambda v: post(v, ADA, None, 0), "", ""),
    ("a payment that was told", several(pay, tell), "", ""),
    ("on neither side", tell, "lost-transfer", NEW),
    ("on the side that pays only", several(lambda v: post(v, ADA, NEW, -10), tell),
     "lost-transfer wrong-balance", NEW),
    ("on the other side only", several(lambda v: post(v, BOB, NEW, 10), tell),
     "lost-transfer wrong-balance", NEW),
    ("not told", pay, "invented-transfer", NEW),
    ("twice at the source", several(pay, tell, lambda v: post(v, ADA, NEW, -10)),
     "doubled-transfer wrong-answer wrong-balance", f"{NEW} stands twice"),
    ("twice at the destination", several(pay, tell, lambda v: post(v, BOB, NEW, 10)),
     "doubled-transfer wrong-balance", f"{NEW} stands twice"),
    ("twice on both sides", several(pay, tell, pay), "doubled-transfer wrong-answer",
     f"{NEW} stands twice"),
    ("told twice", several(pay, tell, tell), "doubled-transfer",
     f"{NEW} was the answer to two requests"),
    ("another amount than was told", several(lambda v: pay(v, amount=20), tell), "wrong-answer",
     "amount_minor=10"),
    ("another version than was told", several(pay, lambda v: tell(v, version=12)), "wrong-answer",
     "source_version=12"),
    ("another payer than was told", several(lambda v: pay(v, IDA, BOB), tell), "wrong-answer",
     "wallet ida"),
    ("another payee than was told", several(lambda v: pay(v, ADA, IDA), tell), "wrong-answer",
     "wallet ida"),
    ("paid with what was not there", lambda v: post(v, IDA, None, -1_001), "wrong-balance",
     "-1 at version 8 is below 0"),
    ("a gap after the start", lambda v: shift(v, 0, 1), "version-gap wrong-answer",
     "version 9 follows 7"),
    ("a gap", lambda v: shift(v, 2, 7), "version-gap wrong-answer",
     "version 17 follows 9"),
    ("the version of the start again", lambda v: shift(v, 0, -1), "version-gap wrong-answer",
     "7 follows 7"),
    ("a version twice", lambda v: shift(v, 2, -1), "version-gap wrong-answer",
     "version 9 follows 9"),
    ("a balance in the middle", lambda v: change(v, EVE, 1, balance_after_minor=1_036),
     "wrong-balance", "wallet eve: at version 9 the balance is +1 off"),
    ("an amount that did not move the balance", lambda v: change(v, EVE, 1, amount_minor=6),
     "wrong-balance wrong-answer", "the balance is -1 off"),
    ("a balance at the end", lambda v: say(v, EVE, -1, 0), "wrong-balance",
     "wallet eve: 1046, its statement says 1047"),
    ("an idle balance", lambda v: say(v, IDA, -1, 0), "wrong-balance",
     "wallet ida: 999, its statement says 1000"),
    ("a version beyond the statement", lambda v: say(v, EVE, 0, 1), "version-gap",
     "version 13, its statement ends at 12"),
    ("an idle version beyond the statement", lambda v: say(v, IDA, 0, 1), "version-gap",
     "version 8, its statement ends at 7"),
    ("a wallet that went back", lambda v: say(v, IDA, 0, -1), "stale-read",
     "wallet ida: version 6, and 7 at the start"),
    ("a statement that was read later", lambda v: read_later(v, 0), "", ""),
    ("another balance, read before", lambda v: read_later(v, 1), "wrong-balance",
     "its statement says 871"),
]
# fmt: on


@pytest.mark.parametrize(
    ("edit", "kinds", "said"), [pytest.param(*row[1:], id=row[0]) for row in STATEMENTS]
)
def test_statements_are_what_was_told(
    edit: Callable[[LoadTestView], object], kinds: str, said: str
) -> None:
    view = busy()
    edit(view)
    violations = view.violations()
    assert {each.kind for each in violations} == set(kinds.split()), violations
    assert said in " ".join(each.text for each in violations)


def test_each_invented_transfer_is_named_once() -> None:
    view = busy()
    ids = [t(number) for number in (50, 51, 52)]
    for id in ids:
        post(view, ADA, id, -1)
        post(view, BOB, id, 1)
    texts = [each.text for each in view.violations()]
    assert [id in text for id, text in zip(ids, texts, strict=True)] == [True] * 3


@pytest.mark.parametrize(("moved", "said"), [(1, ["(+1)"]), (-1, ["(-1)"]), (0, [])])
def test_a_sum_that_changed_is_a_violation(moved: int, said: list[str]) -> None:
    start = {ADA: State(10, 0), BOB: State(-10, 0)}
    found = list(sums(start, {ADA: State(-5, 1), BOB: State(5 + moved, 1)}))
    assert [each.text[-4:] for each in found] == said


def test_what_was_told_is_unpacked_as_it_was_packed() -> None:
    history = History({ADA: 0, BOB: 1})
    for id, amount, version, balance in ((NEW, 2**53, 2**31 - 1, 0), (t(1), 1, 4, 999)):
        history.transferred(
            {
                "id": id,
                "source_wallet_id": BOB,
                "destination_wallet_id": ADA,
                "amount": amount,
                "source_version": version,
                "source_balance_after": balance,
            }
        )
    assert dict(Acknowledged(history)) == {
        NEW: (TransferAnswer(BOB, ADA, 2**53, 2**31 - 1, 0),),
        t(1): (TransferAnswer(BOB, ADA, 1, 4, 999),),
    }
