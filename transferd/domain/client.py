"""API clients: names that a reader cannot distinguish."""

import unicodedata
from collections.abc import Iterable

# Characters that Python calls printable and a screen does not show: the default ignorable code
# points of Unicode without the format characters.
_INVISIBLE = dict.fromkeys(
    (
        0x034F,
        *range(0x115F, 0x1161),
        *range(0x17B4, 0x17B6),
        *range(0x180B, 0x1810),
        0x3164,
        *range(0xFE00, 0xFE10),
        0xFFA0,
        *range(0xE0100, 0xE01F0),
    )
)


def folded_name(name: str) -> str:
    """The name without differences in case, Unicode form and invisible characters.

    Two names with equal results are a compatibility caseless match (Unicode Standard, D146).
    """
    text = unicodedata.normalize("NFD", name.translate(_INVISIBLE))
    for _ in range(2):
        text = unicodedata.normalize("NFKC", text.casefold())
    return text


def similar_name(name: str, names: Iterable[str]) -> str | None:
    """The first of `names` that is another spelling of this name; None if there is none."""
    folded = folded_name(name)
    return next((each for each in names if each != name and folded_name(each) == folded), None)
