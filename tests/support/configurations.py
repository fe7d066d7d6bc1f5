"""The configurations in which the tests run: all that an operator may choose."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.support.waiting import SLOWNESS, patient_s
from transferd.config import Limits
from transferd.devstack import StackError, find_citus_binaries
from transferd.domain.ledger import MAIN, Ledger

# Timeouts of the service that end an attempt, a request or a call. A timeout that a test sets is
# multiplied by the slowness of this machine. The others are so long that no load reaches them.
_WAITS = (
    *("client_timeout_s", "nginx_timeout_s", "request_deadline_s", "mailbox_wait_s"),
    *("statement_timeout_s", "idle_in_transaction_timeout_s", "lock_timeout_s"),
    *("command_timeout_s", "pool_acquire_timeout_s", "relay_publish_timeout_s"),
    *("redis_timeout_s", "reservation_ttl_s", "amqp_timeout_s"),
)


@dataclass(frozen=True)
class Configuration:
    """How servers, replicas and workers of the tests are set up."""

    # Of the service. Settings that a test makes itself take precedence.
    settings: Mapping[str, object] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)
    # Of PostgreSQL.
    postgres: Mapping[str, str] = field(default_factory=dict)
    # The ledger of replicas, keys and commands. Where a test names main, it means this one.
    ledger: Ledger = MAIN
    # Whether the service reaches PostgreSQL through PgBouncer.
    pooled: bool = False
    # Whether PostgreSQL is a coordinator and two workers, with each ledger on one of them.
    has_nodes: bool = False
    # Requirements of tests that this configuration does not meet.
    lacks: frozenset[str] = frozenset()

    def limits_with(self, limits: Limits) -> Limits:
        """The limits of a test, with this configuration's values in place of the defaults."""
        usual = Limits()
        left = {name for name in vars(usual) if getattr(limits, name) == getattr(usual, name)}
        changed: dict[str, Any] = {name: v for name, v in self.limits.items() if name in left}
        for name in _WAITS:
            seconds = getattr(limits, name)
            changed[name] = patient_s(seconds) if name in left else seconds * SLOWNESS
        return replace(limits, **changed)

    def variables(self) -> dict[str, str]:
        """The same as environment variables, for a replica in a process of its own."""
        variables = {f"TRANSFERD_{name.upper()}": str(v) for name, v in self.settings.items()}
        limits = self.limits_with(Limits())
        changed = [f"{name}={getattr(limits, name)}" for name in (*_WAITS, *self.limits)]
        return variables | {"TRANSFERD_LIMITS": ",".join(changed)}


PLAIN = Configuration()

CONFIGURATIONS: Mapping[str, Configuration] = {
    "plain": PLAIN,
    "serializable": Configuration(
        postgres={"default_transaction_isolation": "serializable"},
        lacks=frozenset({"no other configuration", "read committed"}),
    ),
    # PgBouncer 1.18, the version of Debian, does not support prepared statements.
    "pgbouncer": Configuration(
        settings={"prepared_statements": False},
        pooled=True,
        lacks=frozenset({"no other configuration", "connections of its own"}),
    ),
    "no-cache": Configuration(
        settings={"cache": False}, lacks=frozenset({"no other configuration", "cache"})
    ),
    "second-ledger": Configuration(
        settings={"ledger": "shop"},
        ledger=Ledger(7, "shop", "ledger_07"),
        lacks=frozenset({"no other configuration", "main"}),
    ),
    "one-by-one": Configuration(
        limits={"group_envelopes_max": 1, "turn_envelopes_max": 1},
        lacks=frozenset({"no other configuration"}),
    ),
    "citus": Configuration(
        has_nodes=True, lacks=frozenset({"no other configuration", "one server"})
    ),
}

# What no package of the developers installs: its tests run where it is installed by hand.
_CITUS = "Citus"

# The names that `needs_configuration` accepts.
NEEDS = frozenset({_CITUS}).union(*(each.lacks for each in CONFIGURATIONS.values()))


def chosen(config: pytest.Config) -> Configuration:
    """The configuration of this run."""
    return CONFIGURATIONS[config.getoption("--configuration")]


def lacking(config: pytest.Config) -> frozenset[str]:
    """The requirements of tests that this run does not meet."""
    lacks = chosen(config).lacks
    try:
        find_citus_binaries()
    except StackError:
        return lacks | {_CITUS}
    return lacks
