"""The header that carries a trace: https://www.w3.org/TR/trace-context/#traceparent-header."""

import re

from transferd.digits import random_digits

_PATTERN = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII
)


def is_traceparent(text: str | None) -> bool:
    """Whether the text is a valid traceparent; ids of zeros are not."""
    return text is not None and _PATTERN.fullmatch(text) is not None


def trace_id_of(traceparent: str | None) -> str | None:
    """The id of the trace; None without a valid traceparent."""
    return traceparent[3:35] if traceparent is not None and is_traceparent(traceparent) else None


def is_sampled(traceparent: str) -> bool:
    """Whether the caller records the trace."""
    return bool(int(traceparent[-2:], 16) & 1)


def new_trace_id() -> str:
    """A random id of 128 bits in hexadecimal. It is never zero in practice, which is not valid."""
    return random_digits(32)


def traceparent_of(trace_id: str, *, sampled: bool) -> str:
    """The traceparent of a new span in the trace."""
    return f"00-{trace_id}-{random_digits(16)}-{'01' if sampled else '00'}"


def new_traceparent() -> str:
    """The traceparent of a new trace that is not recorded."""
    return f"00-{random_digits(32)}-{random_digits(16)}-00"
