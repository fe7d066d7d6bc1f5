"""Bounds of money. Every amount is an integer in the minor unit of its currency."""

# The largest integer that every JSON parser keeps exact (IEEE 754 doubles, RFC 8259 section 6).
AMOUNT_MINOR_MAX = 2**53 - 1

# A balance is a signed 64-bit integer, PostgreSQL's bigint.
BALANCE_MINOR_MIN = -(2**63)
BALANCE_MINOR_MAX = 2**63 - 1


def fits_a_balance(amount_minor: int) -> bool:
    """Whether the amount is in the range of a balance."""
    return BALANCE_MINOR_MIN <= amount_minor <= BALANCE_MINOR_MAX
