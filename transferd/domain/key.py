"""Idempotency keys, and the fingerprints of the requests that are sent with them."""

from typing import NamedTuple

# (id of the API client, key): the same text from two clients is two keys.
Key = tuple[int, str]


class Fingerprint(NamedTuple):
    """A digest of 16 bytes; equal for two requests with the same values.

    `value` is stored with the outcome. `as_sent` is the digest by the rule of earlier versions, in
    which the order and spelling of metadata counted; None if both rules give the same digest.
    """

    value: bytes
    as_sent: bytes | None = None

    def matches(self, stored: bytes) -> bool:
        """Whether an outcome with the fingerprint `stored` belongs to this request."""
        return stored in (self.value, self.as_sent)


# The fingerprint of a request without a key; it is never compared.
NO_FINGERPRINT = Fingerprint(b"")
