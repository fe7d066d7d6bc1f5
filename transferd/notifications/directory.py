"""Who wants to know: the webhooks, as of the last change that a notifier has seen."""

from collections.abc import Sequence

from transferd.domain.webhook import Webhook, WebhookStatus
from transferd.ledger.store.database import Database
from transferd.ledger.store.webhooks import read_all_webhooks

# The log sink is an endpoint like any other, so that its events are counted, retried and recognized
# as theirs are.
LOG = "00000000-0000-0000-0000-000000000000"


class Directory:
    """The endpoints. Read anew when the version that comes with every batch has moved."""

    def __init__(self, database: Database, *, with_log: bool) -> None:
        self._database = database
        self._always = (LOG,) if with_log else ()
        self._version = -1
        self._webhooks: dict[str, Webhook] = {}

    def __repr__(self) -> str:
        return f"<Directory of {len(self._webhooks)} webhooks at version {self._version}>"

    async def refresh(self, version: int) -> None:
        """Read all webhooks unless they are those of this version. Raises StoreError."""
        if version != self._version:
            webhooks = await read_all_webhooks(self._database)
            self._webhooks = {webhook.id: webhook for webhook in webhooks}
            # The rows may be newer than the version; then the next batch reads them once more.
            self._version = version

    def get(self, endpoint_id: str) -> Webhook | None:
        """One webhook, or None if it was deleted."""
        return self._webhooks.get(endpoint_id)

    def is_disabled(self, endpoint_id: str) -> bool:
        """Whether it is a webhook to which nothing is sent."""
        webhook = self._webhooks.get(endpoint_id)
        return webhook is not None and webhook.status is not WebhookStatus.ACTIVE

    def wanting(self, event_type: str, wallet_ids: Sequence[str]) -> list[str]:
        """The endpoints that an event is for, disabled ones among them."""
        webhooks = self._webhooks.values()
        return [*self._always, *(w.id for w in webhooks if w.wants(event_type, wallet_ids))]
