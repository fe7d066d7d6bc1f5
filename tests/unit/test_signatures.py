"""Signatures of Standard Webhooks, and Retry-After of receivers."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as some
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from transferd.notifications.sinks.webhook import retry_after_s, sign

# The example of the libraries of the specification; openssl gives the same:
# printf ID.TIME.BODY | openssl dgst -sha256 -mac HMAC -macopt hexkey:KEY -binary | base64
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
EVENT_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIMESTAMP_S = 1614265330
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
DAY_S = 24 * 3600.0


def test_a_signature_is_the_example_of_the_specification() -> None:
    assert sign(SECRET, EVENT_ID, TIMESTAMP_S, BODY) == SIGNATURE


def test_a_body_that_is_not_ascii_verifies_and_a_changed_one_does_not() -> None:
    now_s = int(datetime.now(UTC).timestamp())
    body = '{"reference":"für 🎂"}'.encode()
    headers = {
        "webhook-id": "event",
        "webhook-timestamp": str(now_s),
        "webhook-signature": sign(SECRET, "event", now_s, body),
    }
    assert Verifier(SECRET).verify(body, headers) == {"reference": "für 🎂"}
    with pytest.raises(WebhookVerificationError):
        Verifier(SECRET).verify(body.replace(b"r ", b"r  "), headers)


@pytest.mark.parametrize("secret", ["whsec_not base64", "whsec_A", "whsec_-_-_"])
def test_an_invalid_secret_is_an_error_without_its_value(secret: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        sign(secret, EVENT_ID, TIMESTAMP_S, BODY)
    assert secret.removeprefix("whsec_") not in str(caught.value).split()


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("86401", DAY_S),
        ("9" * 8_000, DAY_S),
        ("Wed, 02 Jan 2030 03:05:35 GMT", 90.0),
        ("Wednesday, 02-Jan-30 03:05:35 GMT", 90.0),
        ("Wed Jan  2 03:05:35 2030", 90.0),
        ("Wed, 02 Jan 2030 03:04:05 GMT", 0.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        ("Wed, 01 Jan 2031 00:00:00 GMT", DAY_S),
        ("Fri, 31 Dec 9999 23:59:59 -0100", DAY_S),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("inf", None),
        ("\u0665", None),
        ("12, 13", None),
        ("Wed, 02 Jan 2030 03:05:35 +99999999999999999999", None),
        ("Wed, 02 Jan 99999 03:05:35 GMT", None),
        ("\udcff", None),
    ],
)
def test_a_retry_after_is_read_bounded_or_ignored(value: str | None, wait_s: float | None) -> None:
    assert retry_after_s(value, NOW, DAY_S) == wait_s


@given(some.text() | some.from_regex(r"[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} \d+ \d+:\d+:\d+ [+-]?\w*"))
def test_no_retry_after_raises_an_error(value: str) -> None:
    wait_s = retry_after_s(value, NOW, DAY_S)
    assert wait_s is None or 0 <= wait_s <= DAY_S


@given(some.timedeltas(min_value=timedelta(0), max_value=timedelta(days=1)))
def test_any_date_within_a_day_is_the_time_until_then(wait: timedelta) -> None:
    moment = NOW + wait
    wait_s = retry_after_s(moment.strftime("%a, %d %b %Y %H:%M:%S GMT"), NOW, DAY_S)
    assert wait_s == wait // timedelta(seconds=1)
