"""`Settings`: read from the environment and checked at start. Only this module reads settings."""

from dataclasses import fields
from ipaddress import IPv4Network, IPv6Network, ip_network
from math import isfinite
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    AliasChoices,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from transferd.limits import ConfigurationError, Limits

# Limits in the OpenAPI document, which is the same in every installation.
_CONTRACT_LIMITS = frozenset(
    {
        "batch_transfers_max",
        "key_chars_max",
        "list_items_default",
        "list_items_max",
        "listed_holds_looked_at_max",
        "metadata_bytes_max",
        "text_chars_max",
    }
)

__all__ = ["ConfigurationError", "Limits", "Settings", "load_settings"]


def _address(*schemes: str) -> AfterValidator:
    """Check an address here. For a wrong one the drivers would raise a stack trace."""

    def check(value: str) -> str:
        if not value.startswith(schemes):
            raise ValueError(f"must start with {' or '.join(schemes)}")
        # Reading the port parses it and raises ValueError for a wrong one.
        _ = urlsplit(value).port
        return value

    return AfterValidator(check)


def _delays(value: str) -> str:
    delays = [float(part) for part in value.split(",") if part.strip()]
    if (
        not delays
        or not all(0 < delay <= 24 * 3600 for delay in delays)
        or delays != sorted(delays)
    ):
        raise ValueError("must be ascending seconds of at most a day: 5,30,300,3600")
    return value


def _networks(value: str) -> str:
    for part in value.split(","):
        if part.strip():
            ip_network(part.strip())
    return value


class Settings(BaseSettings):
    """The settings of an operator: environment variables with the prefix `TRANSFERD_`."""

    model_config = SettingsConfigDict(
        env_prefix="TRANSFERD_", extra="ignore", frozen=True, populate_by_name=True
    )

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
        description="`off` gives every caller all rights, as `dev` does, on loopback only.",
    )
    ledger: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,39}$")] = Field(
        "main",
        description="Ledger of requests without an API key, of `keys create` and of `keys list`.",
    )
    prepared_statements: bool = Field(
        True, description="Turn off behind PgBouncer in transaction mode."
    )
    cache: bool = Field(True, description="Turn off to run without Redis: slower, but correct.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe log line to write."
    )
    tracing: Literal["on", "off"] = Field(
        "off",
        description="`on` sends traces by OpenTelemetry, see docs/tracing.md; no other variable"
        " turns it on.",
    )
    tracing_endpoint: Annotated[str, _address("http://", "https://")] | None = Field(
        None,
        description="Collector of traces (OTLP over HTTP), such as `http://localhost:4318`. Without"
        " it the `OTEL_EXPORTER_OTLP_` variables apply.",
    )
    tracing_ratio: float = Field(
        1.0,
        ge=0.0,
        le=1.0,
        description="Share of requests to trace; the flag of a `traceparent` overrides it.",
    )
    database_password: SecretStr | None = Field(
        None,
        description="Password for TRANSFERD_DATABASE_URL, so that the address need not contain it.",
    )

    amqp_prefix: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{0,64}$")] = Field(
        "",
        description="Prefix of the names of exchange and queues, so that several installations can"
        " share a broker.",
    )
    worker_host: str = Field("127.0.0.1", description="Address of the worker's `/readyz`.")
    worker_port: int = Field(
        8081, ge=0, le=65535, description="Port of the worker's `/readyz` and `/metrics`."
    )
    notify_log: bool = Field(True, description="Write a log line for each event.")
    notify_retry_delays_s: Annotated[str, AfterValidator(_delays)] = Field(
        "5,30,300,3600",
        description="Seconds to wait before each further attempt to deliver an event.",
    )
    notify_fail_rate: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        validation_alias=AliasChoices("TRANSFERD_NOTIFY_FAIL_RATE", "NOTIFY_FAIL_RATE"),
        description="Share of attempts to deliver that fail, for tests (or `NOTIFY_FAIL_RATE`).",
    )
    notify_delay_s: float = Field(
        0.0,
        ge=0.0,
        le=3600.0,
        validation_alias=AliasChoices("TRANSFERD_NOTIFY_DELAY_S", "NOTIFY_DELAY_S"),
        description="Seconds added to each attempt to deliver, for tests (or `NOTIFY_DELAY_S`).",
    )
    delivery_log_days: int = Field(
        7,
        ge=1,
        le=3650,
        description="Days that deliveries are kept, and repeated events recognized.",
    )
    limits: str = Field(
        "",
        description="Changes to the limits of `transferd/limits.py`, such as"
        " `mailbox_envelopes_max=1024,read_connections=20`.",
    )
    webhook_allow_http: bool = Field(False, description="Allow webhooks that are not https.")
    webhook_allow_networks: Annotated[str, AfterValidator(_networks)] = Field(
        "",
        description="Networks that webhooks may reach although they are not public, such as"
        " `10.1.0.0/16,fd00::/8`.",
    )

    @property
    def retry_delays_s(self) -> tuple[float, ...]:
        """The delays before the second attempt, the third, and so on."""
        return tuple(float(part) for part in self.notify_retry_delays_s.split(",") if part.strip())

    @property
    def webhook_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """Networks that webhooks may reach although they are not public."""
        parts = self.webhook_allow_networks.split(",")
        return tuple(ip_network(part.strip()) for part in parts if part.strip())

    def limits_of(self) -> Limits:
        """The limits with the changes of `TRANSFERD_LIMITS`. Raises ConfigurationError."""
        defaults = Limits()
        known = {field.name: getattr(defaults, field.name) for field in fields(Limits)}
        changes: dict[str, Any] = {}
        for part in self.limits.split(","):
            name, _, value = (word.strip() for word in part.partition("="))
            if not name and not value:
                continue
            if name not in known:
                raise ConfigurationError(f"TRANSFERD_LIMITS: there is no limit {name!r}")
            if name in _CONTRACT_LIMITS:
                raise ConfigurationError(f"TRANSFERD_LIMITS: {name} is part of the HTTP contract")
            try:
                # The type of the default: a count stays an integer.
                changes[name] = type(known[name])(value)
            except ValueError:
                raise ConfigurationError(
                    f"TRANSFERD_LIMITS: {name} must be a number like {known[name]}"
                ) from None
            if not (changes[name] > 0 and isfinite(changes[name])):
                raise ConfigurationError(f"TRANSFERD_LIMITS: {name} must be above zero")
        return Limits(**changes)

    def required(self, name: Literal["database_url", "redis_url", "amqp_url"]) -> str:
        """The setting, or ConfigurationError with the variable to set."""
        value: str | None = getattr(self, name)
        if not value:
            raise ConfigurationError(
                f"TRANSFERD_{name.upper()} is not set: set it, or use `transferd dev`, which starts"
                " its own server"
            )
        return value


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment, `overrides` first. Raises ConfigurationError in one line."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        problems = "; ".join(f"{_variable(item['loc'])}: {item['msg']}" for item in error.errors())
        raise ConfigurationError(problems) from error


def _variable(location: tuple[int | str, ...]) -> str:
    # The location of a setting with an alias is the alias, which already has the prefix.
    return f"TRANSFERD_{str(location[0]).upper().removeprefix('TRANSFERD_')}"
