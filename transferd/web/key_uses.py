"""The last use of each API key: noted in memory by requests, written by a background task."""

import asyncio
from datetime import datetime

from transferd.config import Limits
from transferd.ledger.store.clients import record_key_uses
from transferd.ledger.store.database import Database
from transferd.ledger.store.errors import StoreError
from transferd.observability.facts import Facts, KeyUsesFailed


class KeyUses:
    """The times of uses that are not written yet. `run` is the task that writes them."""

    def __init__(self, database: Database, limits: Limits, facts: Facts) -> None:
        self._database = database
        self._limits = limits
        self._facts = facts
        self._used_at: dict[str, datetime] = {}

    def __repr__(self) -> str:
        return f"<KeyUses {len(self._used_at)} of {self._limits.key_uses_max}>"

    def note(self, key_id: str, at: datetime) -> None:
        """Note a request with this key; with `key_uses_max` keys noted a new key is ignored."""
        if key_id in self._used_at or len(self._used_at) < self._limits.key_uses_max:
            self._used_at[key_id] = at

    async def run(self) -> None:
        """Write at intervals until cancelled, and once more at the end."""
        try:
            while True:
                await asyncio.sleep(self._limits.key_uses_interval_s)
                await self._try_to_write()
        finally:
            try:
                async with asyncio.timeout(self._limits.key_uses_last_write_s):
                    await self._try_to_write()
            except TimeoutError as error:
                self._facts.emit(KeyUsesFailed(error))

    async def write_once(self) -> int:
        """Write the noted uses; returns how many keys. After a StoreError they stay noted."""
        written = dict(self._used_at)
        if written:
            await record_key_uses(self._database, written)
        for key_id, at in written.items():
            # A key that was used during the write stays for the next one.
            if self._used_at.get(key_id) is at:
                del self._used_at[key_id]
        return len(written)

    async def _try_to_write(self) -> None:
        try:
            await self.write_once()
        except StoreError as error:
            self._facts.emit(KeyUsesFailed(error))
