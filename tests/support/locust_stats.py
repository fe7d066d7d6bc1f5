"""Locust's statistics, in a process that is not Locust."""

import os

# Importing Locust exchanges sockets and threads of the whole process for those of gevent, on which
# the other tests do not count.
_SWITCH = "LOCUST_SKIP_MONKEY_PATCH"
os.environ[_SWITCH] = "1"
try:
    from locust.stats import RequestStats
finally:
    # A Locust that a test starts inherits the environment, and does need its own sockets.
    del os.environ[_SWITCH]

__all__ = ["RequestStats"]
