"""Times in requests: each is stored exactly, refused, or no bound."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from transferd.web.fields import TIME_MAX, TIME_MIN, QueryTime, StoredTime

_QUERY: TypeAdapter[datetime] = TypeAdapter(QueryTime)
_STORED: TypeAdapter[datetime] = TypeAdapter(StoredTime)
_LAST = "9999-12-31T23:59:59"

# As given, and as stored; None if refused.
STORED: dict[str, datetime | None] = {
    "1970-01-01T00:00:00Z": TIME_MIN,
    "1969-12-31T23:59:59.999999Z": None,
    "1969-12-31T23:59:59-00:01": datetime(1970, 1, 1, 0, 0, 59, tzinfo=UTC),
    "1970-01-01T00:00:00+00:01": None,
    f"{_LAST}Z": TIME_MAX,
    f"{_LAST}.000000Z": TIME_MAX,
    f"{_LAST}.000001Z": None,
    f"{_LAST}.999999Z": None,
    f"{_LAST}.9999999Z": None,
    f"{_LAST}-00:01": None,
    f"{_LAST}-12:00": None,
    f"{_LAST}+14:00": datetime(9999, 12, 31, 9, 59, 59, tzinfo=UTC),
    "0001-01-01T00:00:00Z": None,
    "0001-01-01T00:00:00+23:59": None,
    "2030-01-02t03:04:05z": datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC),
    "2030-01-02 03:04:05Z": datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC),
    "2030-01-02T03:04:05-00:00": datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC),
    "2030-01-02T03:04:05.5+23:59": datetime(2030, 1, 1, 3, 5, 5, 500_000, tzinfo=UTC),
    # PostgreSQL and Python count microseconds; further digits are cut off.
    "2030-01-02T03:04:05.1234569Z": datetime(2030, 1, 2, 3, 4, 5, 123_456, tzinfo=UTC),
    "2030-01-02T03:04:05." + "9" * 30 + "Z": datetime(2030, 1, 2, 3, 4, 5, 999_999, tzinfo=UTC),
}
# Invalid times, also in queries.
NONE = [
    "",
    "0",
    "infinity",
    "-infinity",
    "now",
    "2030-01-02",
    "2030-01-02T03:04Z",
    "2030-01-02T03:04:05",
    "2030-01-02T03:04:05.Z",
    "2030-01-02T03:04:05,5Z",
    "2030-01-02_03:04:05Z",
    "2030-01-02T03:04:05 Z",
    "2030-01-02T03:04:05+0100",
    "2030-01-02T03:04:05+24:00",
    "2030-01-02T03:04:05+23:60",
    "2030-01-02T03:04:05\u221201:00",
    "2030-01-02T03:04:05Z\n",
    " 2030-01-02T03:04:05Z",
    "2030-01-02T24:00:00Z",
    "2030-01-02T03:60:00Z",
    "2030-02-29T03:04:05Z",
    "2030-13-01T03:04:05Z",
    "0000-12-31T23:59:59Z",
    "0000-12-31T23:59:59-12:00",
    "10000-01-01T00:00:00Z",
    "-0001-01-01T00:00:00Z",
    "+2030-01-02T03:04:05Z",
    "\u0662\u0660\u0663\u0660-01-02T03:04:05Z",
    # Leap seconds: neither Python nor PostgreSQL keeps one.
    "2016-12-31T23:59:60Z",
    "2016-12-31T23:59:60.5Z",
    "2016-12-31T23:59:61Z",
]


def read(adapter: TypeAdapter[datetime], text: object) -> datetime | None:
    """The time; None if it is refused."""
    try:
        time = adapter.validate_python(text)
    except ValidationError:
        return None
    assert time.tzinfo is UTC
    return time


@pytest.mark.parametrize(("text", "expected"), STORED.items())
def test_a_time_is_stored_exactly_or_refused(text: str, expected: datetime | None) -> None:
    assert read(_STORED, text) == expected


@pytest.mark.parametrize("text", STORED)
def test_a_bound_beyond_the_range_means_the_end_of_it(text: str) -> None:
    found = read(_QUERY, text)
    assert found is not None
    assert found == STORED[text] or (STORED[text] is None and found in (TIME_MIN, TIME_MAX))


@pytest.mark.parametrize("text", NONE)
@pytest.mark.parametrize("adapter", [_QUERY, _STORED], ids=["query", "stored"])
def test_an_invalid_time_is_refused(adapter: TypeAdapter[datetime], text: str) -> None:
    assert read(adapter, text) is None


def test_a_refusal_names_the_range() -> None:
    with pytest.raises(ValidationError) as error:
        _STORED.validate_python(f"{_LAST}.999999Z")
    [fault] = error.value.errors()
    assert fault["type"] == "datetime_range"
    assert fault["msg"] == "must be from 1970-01-01T00:00:00Z to 9999-12-31T23:59:59Z"


@given(
    st.datetimes(),
    st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda n: timezone(timedelta(minutes=n))),
)
def test_a_time_with_any_offset_is_read_exactly(naive: datetime, offset: Any) -> None:
    given_time = naive.replace(tzinfo=offset)
    stored, bound = (read(adapter, given_time.isoformat()) for adapter in (_STORED, _QUERY))
    assert bound is not None
    if TIME_MIN <= given_time <= TIME_MAX:
        assert stored == bound == given_time
    else:
        assert stored is None
        assert bound == (TIME_MIN if given_time < TIME_MIN else TIME_MAX)
