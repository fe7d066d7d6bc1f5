"""A replica for synchronous tests, such as state machines of hypothesis."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from redis import Redis

from tests.conftest import Database, Replicas
from tests.support.api import Api, Reply
from tests.support.moved_clock import move_clock, use_moved_clock
from tests.support.past import clock_of
from tests.support.servers import Servers
from tests.support.truth import faults_in
from transferd.config import Limits
from transferd.ledger.audit import Finding

Result = TypeVar("Result")


@dataclass(frozen=True)
class Sent:
    """A request with a key about some wallets, and its answer."""

    path: str
    body: dict[str, Any] | None
    key: str
    reply: Reply
    wallets: tuple[str, ...] = ()

    def changed(self) -> tuple[str, dict[str, Any] | None]:
        """Path and body of a different request, to be sent with the same key."""
        if self.path.endswith("/reversal"):
            return self.path, {"amount": 1_234_567}
        if self.path.endswith("/release"):
            return self.path.removesuffix("release") + "adjust", {"amount": 1_234_567}
        if self.path.endswith("/adjust"):
            return self.path, {"amount": 1_234_567}
        if self.path.endswith("/batch"):
            assert self.body is not None
            return self.path, self.body | {"transfers": self.body["transfers"] * 2}
        if self.body is None:
            verb = self.path.rpartition("/")[2]
            other = "unfreeze" if verb == "freeze" else "freeze"
            return self.path.removesuffix(verb) + other, None
        return self.path, self.body | {"metadata": {"another": True}}


class Live:
    """A replica with a loop of its own, which runs only inside `run`."""

    def __init__(
        self, runner: asyncio.Runner, database: Database, api: Api, limits: Limits
    ) -> None:
        self._runner = runner
        self._database = database
        self._ahead_s = 0
        self.api = api
        self.limits = limits
        self.user = self.run(api.user())
        self.funding = {code: self.run(api.funding_wallet(code)) for code in ("USD", "EUR")}

    def run(self, asking: Coroutine[Any, Any, Result]) -> Result:
        """Run the coroutine and return its result."""
        return self._runner.run(asking)

    def audit(self) -> list[Finding]:
        """The findings of the audit, for the ledger of all examples so far."""
        return self.run(faults_in(self._database))

    def flush_redis(self) -> None:
        """Delete all data in Redis."""
        with Redis.from_url(self._database.settings().required("redis_url")) as redis:
            redis.flushdb()

    def let_pass(self, seconds: int) -> datetime:
        """Move the database's clock ahead; returns its time. All data in Redis expires."""
        self._ahead_s += seconds
        self.run(move_clock(self._database, self._ahead_s))
        self.flush_redis()
        return self.run(clock_of(self._database))


@contextmanager
def running_replica(servers: Servers, limits: Limits) -> Iterator[Live]:
    """A replica on a database of its own, whose clock the test moves."""
    with asyncio.Runner() as runner:
        name, redis_number = runner.run(servers.new_database())
        database = Database(name, redis_number, servers)
        exits = AsyncExitStack()
        try:
            runner.run(use_moved_clock(database))
            api = runner.run(Replicas(database, exits).start(limits))
            yield Live(runner, database, api, limits)
        finally:
            runner.run(exits.aclose())
            runner.run(servers.drop_database(name))
