"""Messages that were received and not begun; taken some at a time."""

import asyncio
from collections import deque
from collections.abc import Iterable

from transferd.notifications.messages import Message


class Inbox:
    """A queue that waits a moment for more: what a batch costs is shared by all that is in it."""

    def __init__(self, linger_s: float) -> None:
        self._linger_s = linger_s
        self._messages: deque[Message] = deque()
        self._something = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Inbox of {len(self._messages)}>"

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, messages: Iterable[Message]) -> None:
        """Add to the end."""
        self._messages.extend(messages)
        self._something.set()

    def clear(self) -> None:
        """Forget all of them."""
        self._messages.clear()

    async def take(self, messages_max: int) -> list[Message]:
        """At least one message, from the front; waits for it."""
        while not self._messages:
            self._something.clear()
            await self._something.wait()
        if len(self._messages) < messages_max:
            await asyncio.sleep(self._linger_s)
        count = min(messages_max, len(self._messages))
        return [self._messages.popleft() for _ in range(count)]
