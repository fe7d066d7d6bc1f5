"""Contradictory limits and invalid settings are refused at start with one line."""

import os
from dataclasses import FrozenInstanceError, fields, replace
from ipaddress import ip_network
from itertools import pairwise
from typing import Any, Literal

import pytest
from pydantic import ValidationError

from transferd.config import ConfigurationError, Limits, Settings, load_settings

# The time limits of the contract, from the outside in.
NEST = {
    "client_timeout_s": 15.0,
    "nginx_timeout_s": 12.0,
    "request_deadline_s": 10.0,
    "mailbox_wait_s": 5.0,
    "statement_timeout_s": 3.0,
    "idle_in_transaction_timeout_s": 2.0,
    "lock_timeout_s": 1.0,
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without settings of the service."""
    for name in os.environ.copy():
        if name.upper().startswith(("TRANSFERD_", "NOTIFY_")):
            monkeypatch.delenv(name)
    return monkeypatch


def with_limits(**changes: Any) -> Limits:
    return replace(Limits(), **changes)


def complaint(**changes: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        with_limits(**changes)
    return str(caught.value)


# Limits


def test_the_contract_has_these_limits() -> None:
    limits = Limits()
    assert {name: getattr(limits, name) for name in NEST} == NEST
    assert (limits.body_bytes_max, limits.metadata_bytes_max) == (32 * 1024, 4 * 1024)
    assert (limits.text_chars_max, limits.key_chars_max) == (140, 255)
    assert (limits.list_items_default, limits.list_items_max) == (50, 200)
    assert (limits.replay_ttl_s, limits.claim_ttl_s, limits.claim_poll_s) == (86_400, 3.0, 0.1)


def test_every_limit_is_above_zero() -> None:
    assert all(getattr(Limits(), field.name) > 0 for field in fields(Limits))


@pytest.mark.parametrize(("outer", "inner"), list(pairwise(NEST)))
def test_a_timeout_as_long_as_its_outer_timeout_is_refused(outer: str, inner: str) -> None:
    expected = f"{outer} must be longer than {inner}"
    assert complaint(**{inner: NEST[outer]}) == expected
    assert complaint(**{outer: NEST[inner]}) == expected


def test_limits_that_just_fit_are_accepted() -> None:
    tight_s = (5.02, 5.01, 5.0, 1.5, 1.49, 1.48, 1.47)
    limits = with_limits(**dict(zip(NEST, tight_s, strict=True)), relay_publish_timeout_s=1.479)
    assert limits.mailbox_wait_s + limits.command_timeout_s == limits.request_deadline_s


def test_a_webhook_may_have_at_least_two_secrets() -> None:
    assert with_limits(webhook_secrets_max=2).webhook_secrets_max == 2
    assert complaint(webhook_secrets_max=1) == "webhook_secrets_max must be at least 2"


@pytest.mark.parametrize("name", ["mailbox_wait_s", "command_timeout_s"])
def test_a_wait_and_one_whole_attempt_fit_into_the_deadline(name: str) -> None:
    limits = Limits()
    spare_s = limits.request_deadline_s - limits.mailbox_wait_s - limits.command_timeout_s
    longest_s = getattr(limits, name) + spare_s
    assert getattr(with_limits(**{name: longest_s}), name) == longest_s
    message = complaint(**{name: longest_s + 0.01})
    assert message == "mailbox_wait_s and one whole attempt must fit into request_deadline_s"


@pytest.mark.parametrize(
    "changes",
    [
        {"backlog_low": 4096},
        {"backlog_low": 5000},
        {"backlog_high": 8192},
        {"backlog_high": 3072},
        {"backlog_max": 4096},
    ],
    ids=str,
)
def test_water_marks_are_in_order(changes: dict[str, int]) -> None:
    assert complaint(**changes) == "backlog_low < backlog_high < backlog_max must hold"


def test_a_relay_that_may_publish_longer_than_its_transaction_lives_is_refused() -> None:
    message = "relay_publish_timeout_s must be shorter than idle_in_transaction_timeout_s"
    assert complaint(relay_publish_timeout_s=2.0) == message


def test_limits_do_not_change_once_they_are_checked() -> None:
    limits = Limits()
    with pytest.raises(FrozenInstanceError):
        limits.mailbox_wait_s = 60.0  # type: ignore[misc]


# Settings


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("database_url", "postgresql://db.example/transferd", "postgresql://db.example/transferd"),
        ("port", "0", 0),
        ("auth", "off", "off"),
        ("prepared_statements", "0", False),
        ("log_level", "WARNING", "WARNING"),
        ("worker_host", "0.0.0.0", "0.0.0.0"),
        ("notify_log", "false", False),
        ("retry_delays_s", "0.5, 5,86400", (0.5, 5.0, 86_400.0)),
        ("notify_fail_rate", "0.3", 0.3),
        ("delivery_log_days", "30", 30),
        ("webhook_allow_http", "true", True),
        (
            "webhook_networks",
            "10.1.0.0/16, fd00::/8",
            (ip_network("10.1.0.0/16"), ip_network("fd00::/8")),
        ),
    ],
)
def test_settings_come_from_the_environment(
    environment: pytest.MonkeyPatch, name: str, text: str, value: object
) -> None:
    of_property = {
        "retry_delays_s": "NOTIFY_RETRY_DELAYS_S",
        "webhook_networks": "WEBHOOK_ALLOW_NETWORKS",
    }
    environment.setenv(f"TRANSFERD_{of_property.get(name, name.upper())}", text)
    assert getattr(load_settings(), name) == value


def test_a_password_is_not_in_the_repr(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("TRANSFERD_DATABASE_PASSWORD", "hush")
    settings = load_settings()
    assert settings.database_password is not None
    assert settings.database_password.get_secret_value() == "hush"
    assert "hush" not in repr(settings)


@pytest.mark.parametrize("name", ["NOTIFY_FAIL_RATE", "NOTIFY_DELAY_S"])
def test_a_simulated_setting_has_a_name_without_prefix_too(
    environment: pytest.MonkeyPatch, name: str
) -> None:
    environment.setenv(name, "0.25")
    assert getattr(load_settings(), name.lower()) == 0.25
    environment.setenv(f"TRANSFERD_{name}", "0.5")
    assert getattr(load_settings(), name.lower()) == 0.5
    assert getattr(load_settings(**{name.lower(): 0.75}), name.lower()) == 0.75


def test_an_error_under_the_short_name_names_the_full_one(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setenv("NOTIFY_FAIL_RATE", "2")
    with pytest.raises(ConfigurationError, match=r"^TRANSFERD_NOTIFY_FAIL_RATE: .+$"):
        load_settings()


def test_only_the_prefix_is_read(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PORT", "9000")
    environment.setenv("TRANSFERD_TEAPOT", "short and stout")
    assert load_settings() == Settings()
    assert load_settings().port == 8080


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PORT", "http", "valid integer"),
        ("PORT", "65536", "less than or equal to 65535"),
        ("AUTH", "perhaps", "'on' or 'off'"),
        ("LOG_LEVEL", "LOUD", "'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        ("DATABASE_URL", "mysql://ada:hush@db.example/x", "must start with postgresql://"),
        ("DATABASE_URL", "postgresql://ada:hush@db.example:port/x", ""),
        ("REDIS_URL", "http://:hush@cache.example", "must start with redis://"),
        ("AMQP_URL", "http://:hush@queue.example", "must start with amqp://"),
        ("AMQP_PREFIX", "two words", "should match pattern"),
        ("NOTIFY_RETRY_DELAYS_S", "", "must be ascending seconds"),
        ("NOTIFY_RETRY_DELAYS_S", "soon", "could not convert"),
        ("NOTIFY_RETRY_DELAYS_S", "30,5", "must be ascending seconds"),
        ("NOTIFY_RETRY_DELAYS_S", "0,5", "must be ascending seconds"),
        ("NOTIFY_RETRY_DELAYS_S", "5,86401", "must be ascending seconds of at most a day"),
        ("NOTIFY_RETRY_DELAYS_S", "5,nan", "must be ascending seconds"),
        ("NOTIFY_FAIL_RATE", "1.1", "less than or equal to 1"),
        ("NOTIFY_DELAY_S", "-1", "greater than or equal to 0"),
        ("DELIVERY_LOG_DAYS", "0", "greater than or equal to 1"),
        ("WEBHOOK_ALLOW_NETWORKS", "intranet", "does not appear to be an IPv4 or IPv6 network"),
        ("WEBHOOK_ALLOW_NETWORKS", "10.0.0.1/8", "has host bits set"),
    ],
)
def test_an_invalid_setting_is_one_line(
    environment: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    environment.setenv(f"TRANSFERD_{name}", value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    [line] = str(caught.value).splitlines()
    assert line.startswith(f"TRANSFERD_{name}: ")
    assert words in line
    assert "hush" not in line


def test_all_invalid_settings_are_listed_together(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("TRANSFERD_PORT", "http")
    environment.setenv("TRANSFERD_AUTH", "perhaps")
    with pytest.raises(ConfigurationError, match=r"^TRANSFERD_PORT: .+; TRANSFERD_AUTH: .+$"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("database_url", "postgres://db.example:5432/transferd"),
        ("redis_url", "unix:///run/redis.sock"),
        ("amqp_url", "amqps://queue.example"),
    ],
)
def test_a_setting_that_is_needed_and_missing_is_named(
    name: Literal["database_url", "redis_url", "amqp_url"], address: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings().required(name)
    [line] = str(caught.value).splitlines()
    assert line.startswith(f"TRANSFERD_{name.upper()} is not set")
    assert load_settings(**{name: address}).required(name) == address


def test_settings_do_not_change_once_they_are_read() -> None:
    settings = load_settings()
    with pytest.raises(ValidationError):
        settings.port = 9000  # type: ignore[misc]


# Limits changed by a setting


def limits_of(text: str) -> Limits:
    return Settings(limits=text).limits_of()


def test_limits_are_changed_by_name() -> None:
    changed = limits_of(" mailbox_envelopes_max = 1024, drain_linger_s=3.5,")
    assert changed == replace(Limits(), mailbox_envelopes_max=1024, drain_linger_s=3.5)
    assert isinstance(changed.mailbox_envelopes_max, int)
    assert limits_of("") == Limits()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mailbox=1", "there is no limit 'mailbox'"),
        ("mailbox_envelopes_max=many", "must be a number like 512"),
        ("mailbox_envelopes_max=1.5", "must be a number like 512"),
        ("mailbox_envelopes_max=0", "must be above zero"),
        ("mailbox_envelopes_max", "must be a number like 512"),
        ("list_items_max=1000", "is part of the HTTP contract"),
        ("key_chars_max=1000", "is part of the HTTP contract"),
        ("lock_timeout_s=nan", "must be above zero"),
        ("drain_linger_s=1", "must be longer than nginx_keepalive_s"),
        ("lock_timeout_s=5", "must be longer than lock_timeout_s"),
    ],
)
def test_an_invalid_limit_is_one_line(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        limits_of(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
