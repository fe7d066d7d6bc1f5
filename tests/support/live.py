"""A replica for synchronous tests, such as state machines of hypothesis."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from redis import Redis

from tests.conftest import Database, Replicas
from tests.support.api import Api, Reply
from tests.support.servers import Servers
from tests.support.truth import faults_in
from transferd.ledger.audit import Finding

Result = TypeVar("Result")


@dataclass(frozen=True)
class Sent:
    """A request with a key, and its answer."""

    path: str
    body: dict[str, Any] | None
    key: str
    reply: Reply

    def changed(self) -> tuple[str, dict[str, Any] | None]:
        """Path and body of a different request, to be sent with the same key."""
        if self.path.endswith("/reversal"):
            return self.path, {"amount": 1_234_567}
        if self.body is None:
            verb = self.path.rpartition("/")[2]
            other = "unfreeze" if verb == "freeze" else "freeze"
            return self.path.removesuffix(verb) + other, None
        return self.path, self.body | {"metadata": {"another": True}}


class Live:
    """A replica with a loop of its own, which runs only inside `run`."""

    def __init__(self, runner: asyncio.Runner, database: Database, api: Api) -> None:
        self._runner = runner
        self._database = database
        self.api = api
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


@contextmanager
def running_replica(servers: Servers) -> Iterator[Live]:
    """A replica on a database of its own."""
    with asyncio.Runner() as runner:
        name, redis_number = runner.run(servers.new_database())
        database = Database(name, redis_number, servers)
        exits = AsyncExitStack()
        try:
            yield Live(runner, database, runner.run(Replicas(database, exits).start()))
        finally:
            runner.run(exits.aclose())
            runner.run(servers.drop_database(name))
