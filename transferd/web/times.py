"""Times that come in: RFC 3339 with an offset, inside a range that every layer can hold."""

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator
from pydantic_core import PydanticCustomError

# Nothing here is older.
TIME_MIN = datetime(1970, 1, 1, tzinfo=UTC)
# The last second that a datetime can hold. Its last microsecond is left out: the database driver
# takes `datetime.max` for PostgreSQL's infinity, and gives that back without an offset.
TIME_MAX = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def _rfc_3339(value: str) -> str:
    # pydantic would read seconds since 1970 as well.
    if _RFC_3339.fullmatch(value) is None:
        raise PydanticCustomError("datetime_parsing", "must be a time with an offset (RFC 3339)")
    return value


def _nearest(value: datetime) -> datetime:
    # Compared before it is converted: UTC may be a year that a datetime cannot hold.
    return min(max(value, TIME_MIN), TIME_MAX).astimezone(UTC)


def _in_range(value: datetime) -> datetime:
    if not TIME_MIN <= value <= TIME_MAX:
        raise PydanticCustomError(
            "datetime_range",
            "must be from {first} to {last}",
            {"first": _shown(TIME_MIN), "last": _shown(TIME_MAX)},
        )
    return value.astimezone(UTC)


def _shown(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


_Given = Annotated[AwareDatetime, BeforeValidator(_rfc_3339)]
# A bound of what is looked for. Beyond the range there is nothing, so a time beyond it means the
# same as the end of it.
QueryTime = Annotated[_Given, AfterValidator(_nearest)]
# A time that is stored, exactly or not at all.
StoredTime = Annotated[_Given, AfterValidator(_in_range)]
