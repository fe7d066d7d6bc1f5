"""Idempotency keys."""

# (id of the API client, key): the same text belongs to somebody else for another client.
Key = tuple[int, str]
