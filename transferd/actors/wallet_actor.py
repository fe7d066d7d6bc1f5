"""The actor of one wallet."""

from collections.abc import Sequence

from transferd.actors.mailbox import Mailbox
from transferd.commit.committer import Committer
from transferd.commit.envelope import Envelope
from transferd.domain.command import is_urgent
from transferd.domain.errors import TransferdError


class WalletActor:
    """Orders the debits of one wallet: at most one of its turns is in a group at any time. (Only
    an envelope that has waited for a claim or a lock returns as a turn of its own.)

    It is an object, not a task: it acts when an envelope arrives and when the committer makes a
    group. It needs a few hundred bytes, and the router drops it when it is idle.
    """

    __slots__ = ("_committer", "_is_announced", "mailbox", "wallet_id")

    def __init__(self, wallet_id: str, mailbox: Mailbox, committer: Committer) -> None:
        self.wallet_id = wallet_id
        self.mailbox = mailbox
        self._committer = committer
        # True from the announcement of a turn to the end of that turn.
        self._is_announced = False

    def __repr__(self) -> str:
        return f"<WalletActor {self.wallet_id}, {self.mailbox!r}>"

    @property
    def is_idle(self) -> bool:
        """Whether no envelope waits and no turn is in a group."""
        return not self._is_announced

    @property
    def weight(self) -> int:
        """1: the actor can divide its mailbox, so a turn fits into any room."""
        return 1

    @property
    def waiting(self) -> int:
        """The number of envelopes in the mailbox."""
        return len(self.mailbox)

    def tell(self, envelope: Envelope) -> None:
        """Put the envelope into the mailbox. Raises MailboxFull."""
        self.mailbox.put(envelope)
        if not self._is_announced:
            self._is_announced = True
            self._committer.announce(self, urgent=is_urgent(envelope.command))

    def take_turn(self, envelopes_max: int) -> Sequence[Envelope]:
        """Remove and return the envelopes that have arrived, at most `envelopes_max`."""
        return self.mailbox.take(envelopes_max)

    def end_turn(self) -> bool:
        """Returns whether envelopes have arrived meanwhile; if not, the actor is idle."""
        self._is_announced = len(self.mailbox) > 0
        return self._is_announced

    def fail_all(self, error: TransferdError) -> None:
        """Fail all envelopes in the mailbox."""
        self._is_announced = False
        self.mailbox.fail_all(error)
