"""Idempotency keys, and the fingerprints of the requests that are sent with them."""

from typing import NamedTuple

# (id of the API client, key): the same text is another key for another client.
Key = tuple[int, str]


class Fingerprint(NamedTuple):
    """16 bytes that are equal for two requests if both ask for the same.

    `value` is stored with the outcome. `as_sent` is the value by the rule of earlier versions,
    where order and spelling of metadata counted; None if both rules give the same value.
    """

    value: bytes
    as_sent: bytes | None = None

    def matches(self, stored: bytes) -> bool:
        """Whether an outcome that is stored with that value belongs to this request."""
        return stored in (self.value, self.as_sent)


# The fingerprint of a request without a key; it is never compared.
NO_FINGERPRINT = Fingerprint(b"")
