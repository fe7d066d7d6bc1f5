"""The header that carries a trace: https://www.w3.org/TR/trace-context/#traceparent-header."""

import random
import re

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


def new_trace_id() -> int:
    """An id of 128 bits."""
    # Zero is not a valid id, so the highest bit is set. Sampling uses only the lower 64 bits.
    return random.getrandbits(128) | 1 << 127


def traceparent_of(trace_id: int, *, sampled: bool) -> str:
    """The traceparent of a new span in the trace."""
    return f"00-{trace_id:032x}-{random.getrandbits(64) | 1 << 63:016x}-{sampled:02x}"


def new_traceparent() -> str:
    """The traceparent of a new trace that is not recorded."""
    return traceparent_of(new_trace_id(), sampled=False)
