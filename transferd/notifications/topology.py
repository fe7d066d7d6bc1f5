"""Exchange and queues, declared so that RabbitMQ 3.10 to 4.x agree and no message gets lost.

Every queue is a quorum queue, and each that dead-letters does so at least once: with the default a
message is lost if it expires while its target is full or has no leader. RabbitMQ asks for
`reject-publish` with that (https://www.rabbitmq.com/docs/quorum-queues#dead-lettering).
"""

from collections.abc import Sequence
from typing import Any
from zlib import crc32

from aio_pika import ExchangeType
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import ChannelPreconditionFailed

from transferd.config import ConfigurationError, Limits
from transferd.domain.ledger import MAIN

# 4.x limits returns of every quorum queue to 20. A returned message is no poison: the rows decide.
_RETURNS_WITHOUT_LIMIT = 1_000_000_000
_HOUR_MS = 3_600_000
# Ledgers are divided among them by number. A change of this number needs an upgrade of its own:
# workers with another one would deliver for the same ledger at the same time.
_WORK_QUEUES = 8


class Topology:
    """Names, each with the prefix of the installation, and how to declare them."""

    def __init__(self, prefix: str, delays_s: Sequence[float], limits: Limits) -> None:
        self.exchange = f"{prefix}transferd.events"
        # The first one has the ledger main, and the name that it has in the version before, so that
        # one worker of both versions consumes it.
        self.work_queues = (
            f"{prefix}notify.wakeups",
            *(f"{prefix}notify.wakeups.{number}" for number in range(1, _WORK_QUEUES)),
        )
        # Each notifier consumes it and nothing is sent to it. Its consumers can be counted: for a
        # queue with a single active consumer the broker reports only that one.
        self.workers = f"{prefix}notify.workers"
        self.dead = f"{prefix}notify.dead"
        # The work queue of an earlier version; consumed for as long as it exists.
        self.previous_work = f"{prefix}notify.work"
        self.delays_s = tuple(delays_s)
        self._prefix = prefix
        self._limits = limits

    def __repr__(self) -> str:
        return f"<Topology {self.exchange}, {self.work_queues[0]}, {len(self.delays_s)} delays>"

    def retry_queue(self, delay_s: float) -> str:
        """The queue whose messages go to a work queue after this delay.

        One per delay: a queue expires its messages from the front, so one with a longer delay there
        would hold up all behind it. An exchange with the same name sends all messages to it; their
        routing key is the work queue, which they keep when they expire.
        """
        return f"{self._prefix}notify.later.{round(delay_s * 1000)}ms"

    def work_queue(self, ledger_number: int) -> str:
        """The queue of the wake-ups of a ledger. Main has one alone: a worker of the version before
        that consumes it would take other ledgers for main."""
        main, *others = self.work_queues
        return others[ledger_number % len(others)] if ledger_number != MAIN.number else main

    @property
    def seal(self) -> str:
        """The queue that is declared last and never used.

        RabbitMQ 3.10 that is killed within about a second of the last declaration loses the place
        of that quorum queue's messages; each declaration stores the places of the queues before it.
        Fixed by https://github.com/rabbitmq/ra/pull/443. The name follows from the others: if a
        queue is added later, the last one is new again.
        """
        return f"{self._prefix}notify.seal.{crc32(' '.join(self._queues()).encode()):08x}"

    async def declare(self, channel: AbstractChannel) -> None:
        """Declare all of it; an exchange or a queue that exists and is the same stays as it is.

        Raises ConfigurationError where the broker has something else under one of the names.
        """
        seal = {self.seal: {"x-queue-type": "quorum", "x-expires": _HOUR_MS}}
        name = self.exchange
        remedy = "delete it and start again"
        try:
            await channel.declare_exchange(name, ExchangeType.TOPIC, durable=True)
            delayed = {self.retry_queue(delay_s) for delay_s in self.delays_s}
            for name in delayed:
                await channel.declare_exchange(name, ExchangeType.FANOUT, durable=True)
            for name, arguments in (self._queues() | seal).items():
                remedy = (
                    f"let it run empty, delete it (rabbitmqctl delete_queue {name}) and start again"
                )
                queue = await channel.declare_queue(name, durable=True, arguments=arguments)
                if name in delayed:
                    await queue.bind(name)
        except ChannelPreconditionFailed as error:
            raise ConfigurationError(
                f"RabbitMQ has {name} of another kind, or with other arguments ({error}): {remedy},"
                " or set TRANSFERD_AMQP_PREFIX to begin with new ones"
            ) from error

    def _queues(self) -> dict[str, dict[str, Any]]:
        safe = {
            "x-queue-type": "quorum",
            "x-dead-letter-exchange": "",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
        queues: dict[str, dict[str, Any]] = {
            self.dead: {
                "x-queue-type": "quorum",
                "x-delivery-limit": _RETURNS_WITHOUT_LIMIT,
            },
            self.workers: {"x-queue-type": "quorum"},
        }
        for name in self.work_queues:
            # One consumer at a time, the others stand by: two would overtake each other, and events
            # of a wallet would come out of order. Rejected messages are dead-lettered.
            queues[name] = {
                **safe,
                "x-dead-letter-routing-key": self.dead,
                "x-delivery-limit": _RETURNS_WITHOUT_LIMIT,
                "x-max-length": self._limits.work_queue_messages_max,
                "x-single-active-consumer": True,
            }
        for delay_s in self.delays_s:
            queues[self.retry_queue(delay_s)] = {**safe, "x-message-ttl": round(delay_s * 1000)}
        return queues
