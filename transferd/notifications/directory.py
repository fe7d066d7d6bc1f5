"""The webhooks, as of the last change that was seen, and the endpoints that an event is for."""

from collections import OrderedDict, defaultdict
from collections.abc import Sequence

from transferd.config import Limits
from transferd.domain.ledger import Ledger
from transferd.domain.webhook import EVENT_TYPES, Webhook, WebhookStatus
from transferd.ledger.store.database import LedgerDatabase, Transaction
from transferd.ledger.store.deliveries import LOG
from transferd.ledger.store.webhooks import read_all_webhooks


class Directory:
    """The endpoints. They are read again when the version of the webhooks has changed."""

    def __init__(self, *, with_log: bool) -> None:
        self._always = (LOG,) if with_log else ()
        self._version = -1
        self._webhooks: dict[str, Webhook] = {}
        # By type of event, and there by wallet; None are the webhooks for every wallet. So the cost
        # of an event depends on the number of its receivers, and not on the number of webhooks.
        self._wanting: dict[str, dict[str | None, list[str]]] = {}

    def __repr__(self) -> str:
        return f"<Directory of {len(self._webhooks)} webhooks at version {self._version}>"

    async def refresh(self, source: LedgerDatabase | Transaction, version: int) -> None:
        """Read all webhooks unless they are those of this version. Raises StoreError."""
        if version == self._version:
            return
        webhooks = await read_all_webhooks(source)
        self._webhooks = {webhook.id: webhook for webhook in webhooks}
        self._wanting = {type: defaultdict(list) for type in EVENT_TYPES}
        for webhook in webhooks:
            for type, by_wallet in self._wanting.items():
                if webhook.wants(type):
                    by_wallet[webhook.wallet_id].append(webhook.id)
        # The rows may be newer than the version; then the next change reads them once more.
        self._version = version

    def active(self, endpoint_id: str) -> Webhook | None:
        """One webhook; None if it was deleted or is disabled."""
        return None if self.is_disabled(endpoint_id) else self._webhooks.get(endpoint_id)

    def exists(self, endpoint_id: str) -> bool:
        """Whether it is the log, or a webhook that was not deleted."""
        return endpoint_id == LOG or endpoint_id in self._webhooks

    def is_disabled(self, endpoint_id: str) -> bool:
        """Whether it is a webhook to which nothing is sent."""
        webhook = self._webhooks.get(endpoint_id)
        return webhook is not None and webhook.status is not WebhookStatus.ACTIVE

    def wanting(self, event_type: str, wallet_ids: Sequence[str]) -> list[str]:
        """The endpoints that an event is for, disabled ones among them."""
        by_wallet = self._wanting.get(event_type, {})
        found = [*self._always]
        for wallet_id in (None, *wallet_ids):
            found += by_wallet.get(wallet_id, ())
        return found


class Directories:
    """The directories of ledgers; those that were used last are kept."""

    def __init__(self, limits: Limits, *, with_log: bool) -> None:
        self._limits = limits
        self._with_log = with_log
        self._recent: OrderedDict[Ledger, Directory] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Directories {len(self._recent)} of {self._limits.directories_max}>"

    def of(self, ledger: Ledger) -> Directory:
        """The one of a ledger, empty until it is refreshed."""
        found = self._recent.setdefault(ledger, Directory(with_log=self._with_log))
        self._recent.move_to_end(ledger)
        if len(self._recent) > self._limits.directories_max:
            self._recent.popitem(last=False)
        return found
