"""All sinks, with the failures and delays that the settings simulate."""

import asyncio
import random

from transferd.config import Settings
from transferd.domain.webhook import Webhook
from transferd.notifications.event import Event
from transferd.notifications.sinks.log import LogSink
from transferd.notifications.sinks.result import SinkResult
from transferd.notifications.sinks.webhook import WebhookSink


class Sinks:
    """The log and the webhooks. A failure of a receiver is a result, not an exception."""

    def __init__(self, settings: Settings, log: LogSink, webhooks: WebhookSink) -> None:
        self._fail_rate = settings.notify_fail_rate
        self._delay_s = settings.notify_delay_s
        self._log = log
        self._webhooks = webhooks

    @property
    def log_is_immediate(self) -> bool:
        """Whether writing to the log needs no waiting, so that no task has to be made for it."""
        return not self._delay_s

    def write_log(self, event: Event) -> SinkResult:
        """Write the line now."""
        return self._simulated_failure() or self._log.deliver(event.json)

    async def log(self, event: Event) -> SinkResult:
        """Write the line."""
        await asyncio.sleep(self._delay_s)
        return self.write_log(event)

    async def post(
        self, webhook: Webhook, event: Event, body: str, traceparent: str | None
    ) -> SinkResult:
        """Deliver to a webhook, within the limits of the sink."""
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        failure = self._simulated_failure()
        return failure or await self._webhooks.deliver(
            webhook, event.id, body.encode(), traceparent
        )

    def _simulated_failure(self) -> SinkResult | None:
        if self._fail_rate and random.random() < self._fail_rate:
            return SinkResult("simulated failure (TRANSFERD_NOTIFY_FAIL_RATE)")
        return None
