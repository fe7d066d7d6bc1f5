"""Locust's statistics, in a process that is not Locust."""

import os

# An import of Locust replaces sockets and threads in the whole process by those of gevent, which
# would affect other tests.
_SWITCH = "LOCUST_SKIP_MONKEY_PATCH"
os.environ[_SWITCH] = "1"
try:
    from locust.stats import RequestStats
finally:
    # A Locust process that a test starts inherits the environment, and needs the replacement.
    del os.environ[_SWITCH]

__all__ = ["RequestStats"]
