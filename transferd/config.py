"""Every knob (`Settings`, from the environment) and every bound (`Limits`), checked at start.

Nothing else in the package reads the environment or holds a number that limits a queue, a batch,
a retry or a wait.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


class ConfigurationError(Exception):
    """The settings cannot work together; the message says which one and what it should be."""


@dataclass(frozen=True)
class Limits:
    """Named bounds. Each says why it has its value; making them proves that the waits nest."""

    # A body of the single-transfer routes is under 1 KiB; 4 KiB of metadata and escapes fit in 32.
    body_bytes_max: int = 32 * 1024
    metadata_bytes_max: int = 4 * 1024
    text_chars_max: int = 140
    key_chars_max: int = 255
    list_items_default: int = 50
    list_items_max: int = 200

    # One wallet commits some 5,000 transfers/s in group commits, so a full mailbox is a tenth of a
    # second of work: enough for a burst, too little to make a client wait for nothing.
    mailbox_envelopes_max: int = 512
    # Larger groups no longer lower the cost per transfer but make everybody in them wait longer.
    group_envelopes_max: int = 512
    # A slice of requests takes the loop a quarter of a millisecond. Measured: 2 and 16 are slower.
    answers_per_tick: int = 4
    # One stormed wallet may fill at most half a group, so that the others always find room.
    turn_envelopes_max: int = 256
    # Above the high mark new callers wait at the gate until the backlog is below the low one;
    # as many again may wait there, then the replica is overloaded.
    backlog_high: int = 4096
    backlog_low: int = 3072
    backlog_max: int = 8192
    # Connections that wait to be accepted. A burst that finds the kernel's queue full loses its
    # SYNs, and each of those costs a second.
    accept_queue_max: int = 1024

    # The nest of waits, in seconds: client 15 > nginx 12 > the ones below, each inside the one
    # before, so that whoever waits outside always hears the reason from whoever gave up inside.
    client_timeout_s: float = 15.0
    nginx_timeout_s: float = 12.0
    request_deadline_s: float = 10.0
    mailbox_wait_s: float = 5.0
    statement_timeout_s: float = 3.0
    idle_in_transaction_timeout_s: float = 2.0
    lock_timeout_s: float = 1.0
    # The driver gives a server that hangs (instead of answering that it timed out) this much more.
    command_timeout_s: float = 3.5

    # A first retry comes at once after a serialization failure; the wait doubles up to the largest.
    retry_wait_first_s: float = 0.01
    retry_wait_max_s: float = 0.25
    # Rows that are there already are found by the next attempt; after that they are a fault.
    duplicate_attempts_max: int = 2
    # While a wallet's row stays locked by somebody else its commands try again this often.
    step_aside_s: float = 0.1
    # Wallets remembered as held by somebody else; beyond that all are tried again, which costs one
    # lock time-out.
    contended_wallets_max: int = 10_000

    # Longer than nearly every attempt; that of a killed replica ends by itself. A claim that ends
    # too early costs a rolled back attempt, no more.
    claim_ttl_s: float = 3.0
    # Another replica's claim: ask PostgreSQL this often, and stop believing the claim after that.
    claim_poll_s: float = 0.1
    claim_wait_s: float = 1.0
    replay_ttl_s: int = 24 * 3600
    # A snapshot can be stale only where a refresh failed, and no longer than this.
    snapshot_ttl_s: int = 15
    # A reader that takes longer between its look at PostgreSQL and the cache does not fill it.
    reservation_ttl_s: float = 2.0
    redis_timeout_s: float = 0.25
    # After a failed call Redis is left alone this long, so that an outage costs one call, not one
    # time-out per group.
    breaker_open_s: float = 1.0
    # Requests with the key of one that is under way; each costs memory only.
    joined_requests_max: int = 1024
    cache_read_keys_max: int = 512

    # Reads take a connection each for about a millisecond. The committer has one group in flight
    # and one connection that no read can take from it.
    read_connections: int = 10
    # More reads than this would wait longer for a connection than their callers have patience.
    waiting_reads_max: int = 1024
    commit_connections: int = 1
    pool_acquire_timeout_s: float = 2.0
    api_key_cache_s: float = 5.0
    api_key_cache_entries_max: int = 10_000

    sweep_interval_s: float = 0.25
    # Longer than Nginx's upstream keep-alive (2 s), so that it never writes to a closed connection.
    drain_linger_s: float = 2.5
    drain_timeout_s: float = 12.0

    # The audit holds a chunk of ids, or of outcomes with bodies of some KiB, in memory at a time.
    audit_chunk_rows: int = 2_000
    # A broken ledger may be broken everywhere; a hundred cases of a kind show what kind it is.
    audit_findings_per_check_max: int = 100
    # Nobody waits for the audit, but a server that hangs must not keep it for ever: a day.
    audit_query_timeout_s: float = 24 * 3600.0

    def __post_init__(self) -> None:
        """Raise ConfigurationError unless the waits nest and a wait plus one attempt fits."""
        nest = (
            "client_timeout_s",
            "nginx_timeout_s",
            "request_deadline_s",
            "mailbox_wait_s",
            "statement_timeout_s",
            "idle_in_transaction_timeout_s",
            "lock_timeout_s",
        )
        for outer, inner in pairwise(nest):
            if not getattr(self, outer) > getattr(self, inner):
                raise ConfigurationError(f"{outer} must be longer than {inner}")
        if self.mailbox_wait_s + self.command_timeout_s > self.request_deadline_s:
            raise ConfigurationError(
                "mailbox_wait_s and one whole attempt must fit into request_deadline_s"
            )
        if not self.backlog_low < self.backlog_high < self.backlog_max:
            raise ConfigurationError("backlog_low < backlog_high < backlog_max must hold")


def _address(*schemes: str) -> AfterValidator:
    """Checks what the drivers would only answer with a stack trace."""

    def check(value: str) -> str:
        if not value.startswith(schemes):
            raise ValueError(f"must start with {' or '.join(schemes)}")
        # Reading the port parses it; the error says what is wrong with it.
        _ = urlsplit(value).port
        return value

    return AfterValidator(check)


class Settings(BaseSettings):
    """What an operator sets, by environment variables with the prefix `TRANSFERD_`."""

    model_config = SettingsConfigDict(env_prefix="TRANSFERD_", extra="ignore", frozen=True)

    database_url: Annotated[str, _address("postgresql://", "postgres://")] | None = Field(
        None,
        description="PostgreSQL to use. `dev` starts its own when this is not set.",
    )
    redis_url: Annotated[str, _address("redis://", "rediss://", "unix://")] | None = Field(
        None, description="Redis to use. `dev` starts its own when this is not set."
    )
    amqp_url: Annotated[str, _address("amqp://", "amqps://")] | None = Field(
        None, description="RabbitMQ to use. `dev` starts its own when this is not set."
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    data_dir: str = Field(".transferd", description="Where `dev` keeps the data of its servers.")
    auth: Literal["on", "off"] = Field(
        "on",
        description="`off` lets everybody do everything; `dev` does so, on loopback only.",
    )
    prepared_statements: bool = Field(
        True, description="Turn off behind PgBouncer in transaction mode."
    )
    cache: bool = Field(True, description="Turn off to run without Redis: slower, never wrong.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe log line to write."
    )
    database_password: SecretStr | None = Field(
        None,
        description="Password for database_url, so that it need not stand in the address.",
    )

    def required(self, name: Literal["database_url", "redis_url", "amqp_url"]) -> str:
        """The setting, or ConfigurationError with the variable to set."""
        value: str | None = getattr(self, name)
        if not value:
            raise ConfigurationError(
                f"TRANSFERD_{name.upper()} is not set: set it, or use `transferd dev`, which starts"
                " what is missing"
            )
        return value


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment, `overrides` first. Raises ConfigurationError in one line."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        problems = "; ".join(
            f"TRANSFERD_{'_'.join(str(part) for part in item['loc']).upper()}: {item['msg']}"
            for item in error.errors()
        )
        raise ConfigurationError(problems) from error
