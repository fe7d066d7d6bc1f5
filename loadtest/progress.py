"""How far something is: a line that moves on a terminal, and comes now and then in a log."""

import logging
import sys
import time

_EVERY_S = 1.0
_log = logging.getLogger(__name__)


class Progress:
    """Told of every step; shows a few of them, and always the last."""

    def __init__(self) -> None:
        self._shown = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        """So many out of so many are done."""
        now = time.monotonic()
        if done < total and now < self._shown + (0.1 if sys.stderr.isatty() else _EVERY_S):
            return
        self._shown = now
        text = f"{what}: {done:,} of {total:,}"
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{text}" + ("\n" if done >= total else ""))
            sys.stderr.flush()
        else:
            _log.info(text)
