"""One wallet's turns."""

from collections.abc import Callable, Sequence

from transferd.actors.mailbox import Mailbox
from transferd.commit.committer import Committer
from transferd.commit.envelope import Envelope
from transferd.domain.errors import InternalFailure


class WalletActor:
    """Serializes what debits one wallet: at most one turn of it is in a group at any time. (Only
    an envelope that has waited for a claim or a lock comes back as a turn of its own.)

    It is no task: it acts when an envelope arrives, when the committer asks for its turn and when
    that turn is over. So it costs a few hundred bytes, and only while something waits.
    """

    __slots__ = ("_committer", "_is_announced", "_retire", "mailbox", "wallet_id")

    def __init__(
        self,
        wallet_id: str,
        mailbox: Mailbox,
        committer: Committer,
        retire: Callable[["WalletActor"], None],
    ) -> None:
        self.wallet_id = wallet_id
        self.mailbox = mailbox
        self._committer = committer
        self._retire = retire
        self._is_announced = False

    def __repr__(self) -> str:
        return f"<WalletActor {self.wallet_id}, {self.mailbox!r}>"

    @property
    def weight(self) -> int:
        """One envelope at least; a turn of a mailbox can be as small as there is room."""
        return 1

    def tell(self, envelope: Envelope) -> None:
        """Put the envelope into the mailbox. Raises MailboxFull."""
        self.mailbox.put(envelope)
        if not self._is_announced:
            self._is_announced = True
            self._committer.announce(self, urgent=envelope.urgent)

    def take_turn(self, envelopes_max: int) -> Sequence[Envelope]:
        """Drain the mailbox into a turn: all requests that have come go into one transaction."""
        return self.mailbox.take(envelopes_max)

    def done(self) -> None:
        """The turn is over: announce the next one, or retire."""
        if len(self.mailbox):
            self._committer.announce(self)
        else:
            self._is_announced = False
            self._retire(self)

    def crashed(self) -> None:
        """Fail all envelopes in the mailbox; the next one starts a new actor."""
        self._retire(self)
        self.mailbox.fail_all(InternalFailure())
