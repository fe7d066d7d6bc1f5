"""Planted anomalies in a ledger beside another one; `planted` describes the rows."""

from dataclasses import replace

import orjson

from loadtest.proof.record import Try, WalletRow
from tests.unit.edits import add_wallet, answer, deliver_again
from tests.unit.planted import Table
from tests.unit.true_rounds import NEW, Round

# An id of ledger 1. Rounds are in ledger 0.
ELSEWHERE = "00000097-0000-7001-8000-000000000000"
_NAMED = orjson.dumps({"id": ELSEWHERE})


def refuse_with(done: Round, text: bytes) -> None:
    """The refusal of k2 has this body in each of its answers."""
    tries = done.operation("k2").tries
    tries[:] = [replace(each, body=text) for each in tries]


# fmt: off
PLANTED_IN_LEDGERS: Table = (
    ("an answer names another ledger's user", "ledgers.foreign_id: foreign-id / foreign-id",
     lambda r: answer(r.history[10], user_id=ELSEWHERE)),
    ("a refusal names another ledger's wallet", "ledgers.foreign_id: foreign-id / foreign-id",
     lambda r: refuse_with(r, b"wallet %s is frozen" % ELSEWHERE.encode())),
    ("an answer about a freed key names another ledger's transfer",
     "ledgers.foreign_id: foreign-id / foreign-id",
     lambda r: r.operation("k5").tries.append(Try(900, 901, 429, "rate-limited", _NAMED))),
    ("a list has another ledger's wallet", "ledgers.foreign_id: foreign-id",
     lambda r: r.edit(listed=[b'{"data":[%s]}' % _NAMED])),
    ("a list has wallets of this ledger only", "",
     lambda r: r.edit(listed=[orjson.dumps({"data": [{"id": NEW}]})])),
    ("an event names another ledger's user", "ledgers.foreign_id: foreign-id",
     lambda r: deliver_again(r, body=_NAMED)),
    ("an event of another ledger's transfer",
     "ledgers.foreign_id: foreign-id invented-event",
     lambda r: deliver_again(r, event_id="e", transfer=ELSEWHERE, versions={"di": 1})),
    ("an event of another ledger's wallet", "ledgers.foreign_id: foreign-id",
     lambda r: deliver_again(r, event_id="e", transfer=None, versions={ELSEWHERE: 1})),
    ("an event under another ledger's id",
     "ledgers.foreign_id: foreign-id unordered-event",
     lambda r: deliver_again(r, event_id=f"{ELSEWHERE}:3")),
    ("an event that names another ledger", "ledgers.foreign_event: foreign-event",
     lambda r: deliver_again(r, body=b'{"ledger":"shop"}')),
    ("an event that names this ledger", "",
     lambda r: deliver_again(r, body=b'{"ledger":"main"}')),
    ("a row of another ledger", "ledgers.foreign_id: foreign-id",
     lambda r: add_wallet(r, WalletRow(ELSEWHERE, "USD", 0, 0, 0))),
    ("all ids are of another ledger", "ledgers.foreign_id: foreign-id / foreign-id",
     lambda r: r.edit(number=1)),
)
