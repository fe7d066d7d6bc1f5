"""Other spellings of the same JSON values, for hypothesis."""

import json
import re
from typing import Any

from hypothesis import strategies as st

_BLANKS = st.sampled_from(["", " ", "\n", "\t\r\n "])
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@st.composite
def spelled(draw: st.DrawFn, value: Any, *, in_metadata: bool = False) -> str:
    """JSON that the service reads as this value.

    Members are in any order, with blanks and escapes; ids may be upper-case, and numbers in
    metadata may have another notation.
    """
    match value:
        case dict():
            members = [
                draw(_BLANKS)
                + draw(_text(name))
                + draw(_BLANKS)
                + ":"
                + draw(_BLANKS)
                + draw(spelled(item, in_metadata=in_metadata or name == "metadata"))
                + draw(_BLANKS)
                for name, item in draw(st.permutations(list(value.items())))
            ]
            return "{" + ",".join(members) + "}"
        case list():
            return "[" + ",".join(draw(spelled(item)) for item in value) + "]"
        case str():
            is_id = not in_metadata and _ID.fullmatch(value) is not None
            return draw(_text(value.upper() if is_id and draw(st.booleans()) else value))
        case int() | float() if in_metadata and not isinstance(value, bool):
            return draw(_number(value))
        case _:
            return json.dumps(value)


@st.composite
def _text(draw: st.DrawFn, text: str) -> str:
    units = text.encode("utf-16-be")
    escaped = "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
    return draw(
        st.sampled_from([json.dumps(text), json.dumps(text, ensure_ascii=False), f'"{escaped}"'])
    )


@st.composite
def _number(draw: st.DrawFn, number: float) -> str:
    written = [repr(number)]
    if number == int(number) and abs(number) < 2**53:
        # No other notations of zero: parsers read a negative zero differently.
        whole = int(number)
        written += [f"{whole}", f"{whole}.0", f"{whole}e0", f"{whole}.00E+00"]
        written += [f"{whole}0e-1"] if whole else []
    elif isinstance(number, float):
        written += [f"{number!r}0" if "e" not in repr(number) else repr(number).upper()]
    return draw(st.sampled_from(written))
