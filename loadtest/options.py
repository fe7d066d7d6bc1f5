"""The options that the suite adds to Locust's: `python -m loadtest --options` lists them."""

from argparse import ArgumentParser
from dataclasses import dataclass
from typing import Any, Literal

from loadtest.scenarios import SCENARIOS
from loadtest.shapes import SHAPES

# Locust's own default is one user.
_USERS = 50
# The limit of the contract.
_BATCH_MAX = 5_000
# By default Locust stops users in the middle of a request. This time is longer than the timeout of
# a client, so every request has ended when the audit begins.
_STOP_TIMEOUT_S = 30


@dataclass(frozen=True)
class Options:
    """The options of a run. Timeouts and pauses in seconds, levels in milliseconds and percent."""

    host: str
    scenario: str
    shape: str
    api_key: str
    ledgers: int
    keys_file: str
    wallets: int
    merchants: int
    currency: str
    seed_name: str
    think_s: float
    batch_size: int
    client_timeout_s: float
    trace_ratio: float
    p95_ms: float
    p99_ms: float
    error_percent: float
    insecure: bool
    allow_stale: bool
    audit: Literal["full", "sums", "off"]
    verdict: str
    users: int
    spawn_rate: float
    run_time_s: float | None

    @classmethod
    def of(cls, environment: Any) -> "Options":
        """The current options: the web page can change most of them before each run."""
        parsed = environment.parsed_options
        return cls(
            host=environment.host or "",
            scenario=parsed.scenario,
            shape=parsed.shape,
            api_key=parsed.api_key,
            ledgers=max(int(parsed.ledgers), 1),
            keys_file=parsed.keys_file,
            wallets=max(int(parsed.wallets), 20),
            merchants=max(int(parsed.merchants), 1),
            currency=parsed.currency,
            seed_name=parsed.seed_name,
            think_s=float(parsed.think),
            batch_size=min(max(int(parsed.batch_size), 1), _BATCH_MAX),
            client_timeout_s=float(parsed.client_timeout),
            trace_ratio=float(parsed.trace_ratio),
            p95_ms=float(parsed.p95),
            p99_ms=float(parsed.p99),
            error_percent=float(parsed.error_rate),
            insecure=bool(parsed.insecure),
            allow_stale=bool(parsed.allow_stale),
            audit=parsed.audit,
            verdict=parsed.verdict,
            users=_USERS if parsed.num_users is None else int(parsed.num_users),
            spawn_rate=float(parsed.spawn_rate or _USERS),
            run_time_s=float(parsed.run_time) if parsed.run_time else None,
        )


def add_options(parser: ArgumentParser) -> None:
    """Add the options of the suite to Locust's."""
    add: Any = parser.add_argument
    add("--scenario", choices=list(SCENARIOS), default="uniform", help=_listed(SCENARIOS))
    add("--shape", choices=list(SHAPES), default="constant", help=_listed(SHAPES))
    add(
        "--api-key",
        default="",
        env_var="TRANSFERD_API_KEY",
        include_in_web_ui=False,
        help="Token of an API key with scope admin, which seeding needs. Without it the service"
        " must run with TRANSFERD_AUTH=off.",
    )
    _add_wallets(add)
    add(
        "--metrics-url",
        action="append",
        default=[],
        include_in_web_ui=False,
        metavar="URL",
        help="The /metrics of a replica or worker, for the tab Service; repeat it for each.",
    )
    add(
        "--metrics-port",
        type=int,
        default=0,
        include_in_web_ui=False,
        help="Serve the client's metrics for Prometheus on this port (the web page serves them at"
        " /metrics).",
    )
    add("--think", type=float, default=0.5, help="Mean pause of a user between tasks, in seconds.")
    add("--batch-size", type=int, default=100, help="Transfers of a batch.")
    add("--client-timeout", type=float, default=15.0, help="Timeout of a client in seconds.")
    add(
        "--insecure",
        action="store_true",
        include_in_web_ui=False,
        help="Do not check the certificate of an https service.",
    )
    add("--trace-ratio", type=float, default=0.01, help="Share of requests that are traced.")
    _add_levels(add)
    parser.set_defaults(num_users=_USERS, spawn_rate=_USERS, stop_timeout=_STOP_TIMEOUT_S)


def _add_wallets(add: Any) -> None:
    """The options of ledgers and wallets."""
    add(
        "--ledgers",
        type=int,
        default=1,
        help="Ledgers, each with its own wallets and users. More than one need --keys-file.",
    )
    add(
        "--keys-file",
        default="",
        include_in_web_ui=False,
        metavar="FILE",
        help="A line for each ledger: its name, and the token of an API key with scope admin of one"
        " of its clients.",
    )
    add("--wallets", type=int, default=1000, help="Wallets of shoppers in each ledger.")
    add("--merchants", type=int, default=10, help="Wallets of merchants; the first is the hot one.")
    add("--currency", default="USD", help="The currency of all wallets.")
    add(
        "--seed-name",
        default="loadtest",
        help="Wallets are created once under this name, and later runs use them again. Concurrent"
        " runs need different names.",
    )


def _add_levels(add: Any) -> None:
    """The options of the verdict."""
    add("--p95", type=float, default=500.0, help="Level: p95 of latency, in ms.")
    add("--p99", type=float, default=1000.0, help="Level: p99 of latency, in ms.")
    add("--error-rate", type=float, default=0.1, help="Level: failed requests, in percent.")
    add(
        "--allow-stale",
        action="store_true",
        help="Allow plain reads that are older than earlier ones: they can be stale while Redis"
        " fails. Reads with min_version are still checked.",
    )
    add(
        "--audit",
        choices=["full", "sums", "off"],
        default="full",
        help="After the run: check every transfer in both wallets, only the sums, or nothing.",
    )
    add("--verdict", default="", include_in_web_ui=False, help="Write the verdict as JSON here.")


def _listed(table: Any) -> str:
    return "; ".join(f"{name}: {each.question}" for name, each in table.items())


def take_scenario_from_tags(parsed: Any) -> None:
    """A tag that is the name of a scenario chooses it; other tags choose tasks, as in Locust."""
    tags = parsed.tags or []
    for name in tags:
        if name in SCENARIOS:
            parsed.scenario = name
    parsed.tags = [name for name in tags if name not in SCENARIOS] or None
