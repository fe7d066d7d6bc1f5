"""Where ledgers are: with Citus a ledger is on one of several nodes, and can be moved."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import asyncpg

from transferd.config import Limits
from transferd.ledger.store.errors import StoreError


class Node(NamedTuple):
    """The address of a PostgreSQL that holds ledgers, as Citus knows it."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Placement:
    """The nodes of ledgers. Only its use makes it read again, at most once in `placement_s`.

    Until then the old node of a ledger that has moved forwards every statement.
    """

    def __init__(
        self, read: Callable[[], Awaitable[Sequence[asyncpg.Record]]], limits: Limits
    ) -> None:
        self._read = read
        self._limits = limits
        self._clock = asyncio.get_running_loop().time
        self._nodes: Mapping[str, Node] = {}
        self._is_due_at = 0.0
        self._reading: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Placement of {len(self._nodes)} ledgers>"

    def node_of(self, schema: str) -> Node | None:
        """The node that holds a schema; None: the coordinator has it, or it is unknown.

        The coordinator forwards statements about a ledger whose node is unknown.
        """
        if self._clock() >= self._is_due_at and self._reading is None:
            self._reading = asyncio.create_task(self._read_again())
        return self._nodes.get(schema)

    async def read(self) -> None:
        """Read the nodes of all ledgers. Raises StoreError, and keeps what is known then."""
        self._is_due_at = self._clock() + self._limits.placement_s
        rows = await self._read()
        self._nodes = {
            row["schema"]: Node(row["host"], row["port"])
            for row in rows
            # The address that is configured leads to the coordinator.
            if not row["is_coordinator"]
        }

    async def close(self) -> None:
        """Read no more."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _read_again(self) -> None:
        try:
            # While the coordinator is out of reach, ledgers on other nodes go on.
            with suppress(StoreError):
                await self.read()
        finally:
            self._reading = None
