"""Concurrent work on many items, with its progress on the terminal or in the log."""

import logging
import sys
import time
from collections.abc import Callable, Collection
from typing import TypeVar

from gevent.pool import Pool

# Enough for large groups, and too few to fill a mailbox.
CONCURRENCY = 32
_LINES_S = 1.0
_log = logging.getLogger(__name__)

_T = TypeVar("_T")
_R = TypeVar("_R")


def concurrently(what: str, work: Callable[[_T], _R], items: Collection[_T]) -> list[_R]:
    """Do the work for each item, several at a time; `what` is its name in the progress line.

    The results are in the order of the items. Raises the first error and cancels the rest.
    """
    pool = Pool(CONCURRENCY)
    pending = pool.imap(work, items, maxsize=CONCURRENCY * 4)
    results: list[_R] = []
    shown_s = 0.0
    try:
        for result in pending:
            results.append(result)
            pause_s = 0.1 if sys.stderr.isatty() else _LINES_S
            if len(results) == len(items) or time.monotonic() > shown_s + pause_s:
                shown_s = time.monotonic()
                _show(what, len(results), len(items))
    finally:
        pending.kill()
        pool.kill()
    return results


def _show(what: str, done: int, total: int) -> None:
    text = f"{what}: {done:,} of {total:,}"
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}" + ("\n" if done >= total else ""))
        sys.stderr.flush()
    else:
        _log.info(text)
