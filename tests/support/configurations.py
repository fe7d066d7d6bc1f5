"""The configurations that an operator may choose; `--configuration NAME` runs any test in one."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from transferd.config import Limits


@dataclass(frozen=True)
class Configuration:
    """How servers, replicas and workers of the tests are set up."""

    # Of the service, beside those that a test chooses itself.
    settings: Mapping[str, object] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)
    # Of PostgreSQL.
    postgres: Mapping[str, str] = field(default_factory=dict)
    # Whether the service reaches PostgreSQL by way of a PgBouncer.
    pooled: bool = False
    # What a test may need, and is not there.
    lacks: frozenset[str] = frozenset()

    def limits_with(self, limits: Limits) -> Limits:
        """The limits of a test, changed where it has left them as they usually are."""
        usual = Limits()
        return replace(
            limits,
            **{
                name: value
                for name, value in self.limits.items()
                if getattr(limits, name) == getattr(usual, name)
            },
        )

    def variables(self) -> dict[str, str]:
        """The same for a process of its own."""
        variables = {f"TRANSFERD_{name.upper()}": str(v) for name, v in self.settings.items()}
        if self.limits:
            limits = ",".join(f"{name}={value}" for name, value in self.limits.items())
            variables["TRANSFERD_LIMITS"] = limits
        return variables


PLAIN = Configuration()

CONFIGURATIONS: Mapping[str, Configuration] = {
    "plain": PLAIN,
    "serializable": Configuration(
        postgres={"default_transaction_isolation": "serializable"},
        lacks=frozenset({"no other configuration", "read committed"}),
    ),
    # 1.18, as Debian has it, knows no prepared statements.
    "pgbouncer": Configuration(
        settings={"prepared_statements": False},
        pooled=True,
        lacks=frozenset({"no other configuration", "connections of its own"}),
    ),
    "no-cache": Configuration(
        settings={"cache": False}, lacks=frozenset({"no other configuration", "cache"})
    ),
    "one-by-one": Configuration(
        limits={"group_envelopes_max": 1, "turn_envelopes_max": 1},
        lacks=frozenset({"no other configuration"}),
    ),
}

# What `needs_configuration` may name.
NEEDS = frozenset().union(*(each.lacks for each in CONFIGURATIONS.values()))


def chosen(config: pytest.Config) -> Configuration:
    """The configuration of this run."""
    return CONFIGURATIONS[config.getoption("--configuration")]
