"""Random hexadecimal digits, drawn from the operating system in bulk."""

import os

_BYTES = 4096


class _Supply:
    """Digits that nothing has used yet."""

    def __init__(self) -> None:
        self.text = ""
        self.used = 0


_supply = _Supply()
# A copy of the process must not use the same digits.
os.register_at_fork(after_in_child=_supply.__init__)  # type: ignore[misc]


def random_digits(count: int) -> str:
    """The next `count` random digits, at most 8192. One system call makes digits for 170 ids."""
    supply = _supply
    start = supply.used
    end = start + count
    if end > len(supply.text):
        supply.text = os.urandom(_BYTES).hex()
        start, end = 0, count
    supply.used = end
    return supply.text[start:end]
