"""The format of `/metrics`: Prometheus text, or OpenMetrics where it is preferred.

Only OpenMetrics carries exemplars. Prometheus prefers it by default.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

_OPENMETRICS = ("application", "openmetrics-text", "1.0.0")
_TEXT = ("text", "plain", "0.0.4")


class _Range(NamedTuple):
    """An element of an Accept header. `version` None matches every version."""

    type: str
    subtype: str
    version: str | None
    quality: float


def exposed(registry: CollectorRegistry, accept: Iterable[str]) -> tuple[bytes, str]:
    """All metrics and their media type, by the lines of the Accept header."""
    if prefers_openmetrics(accept):
        text: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
        return text, openmetrics.CONTENT_TYPE_LATEST
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


def prefers_openmetrics(accept: Iterable[str]) -> bool:
    """Whether the header names OpenMetrics 1.0 with at least the quality of the text format.

    A wildcard, or a header that allows neither format, gets the text format, so that a browser
    shows the metrics. The choice of prometheus_client ignores quality values.
    """
    ranges = [each for line in accept for each in _ranges(line)]
    named = [each for each in ranges if each.type == "application" and each.subtype != "*"]
    quality = _quality(named, *_OPENMETRICS)
    return quality > 0 and quality >= _quality(ranges, *_TEXT)


def _quality(ranges: Iterable[_Range], type: str, subtype: str, version: str) -> float:
    """The quality of a format, by the most specific range that matches (RFC 9110, 12.5.1)."""
    matching = [
        (each.type != "*", each.subtype != "*", each.version is not None, each.quality)
        for each in ranges
        if each.type in ("*", type)
        and each.subtype in ("*", subtype)
        and each.version in (None, version)
    ]
    return max(matching, default=(False, False, False, 0.0))[-1]


def _ranges(line: str) -> Iterator[_Range]:
    for element in line.split(","):
        media_type, *parameters = (part.strip().lower() for part in element.split(";"))
        type, slash, subtype = media_type.partition("/")
        values = dict(each.split("=", 1) for each in parameters if "=" in each)
        try:
            quality = float(values.get("q", "1"))
        except ValueError:
            continue
        if slash:
            yield _Range(type, subtype, values.get("version"), quality)
