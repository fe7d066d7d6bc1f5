"""Who calls: resolves a request to an API client, whom idempotency keys belong to."""

import hmac
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from transferd.config import Limits
from transferd.domain.api_key import ADMIN, Scope, digest_of, id_in
from transferd.ledger.store.clients import ApiKey, read_api_key
from transferd.ledger.store.database import Database
from transferd.web.key_uses import KeyUses
from transferd.web.problems import Problem


@dataclass(frozen=True, slots=True)
class Principal:
    """An API client and what it may do; `admin` may do everything."""

    client_id: int
    scopes: frozenset[str]

    def require(self, scope: Scope) -> None:
        """Raise Problem `forbidden` without the scope."""
        if scope not in self.scopes and ADMIN not in self.scopes:
            raise Problem("forbidden", f"This needs the scope {scope}.")


# Migration 0001 gives client 1 to everybody while authentication is off.
_LOCAL = Principal(1, frozenset({ADMIN}))
# RFC 9110 section 11.4: a scheme in any case, spaces and no tab, and a token, whose own shape
# `id_in` knows. Nginx counts requests by the same grammar (nginx/nginx.conf.template).
_CREDENTIALS = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +([!-~]+)")
_UNAUTHENTICATED = {"WWW-Authenticate": "Bearer"}


class Authentication:
    """Resolves `Authorization` headers; keys are kept for a few seconds."""

    def __init__(
        self,
        database: Database,
        limits: Limits,
        uses: KeyUses,
        *,
        is_required: bool,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._limits = limits
        self._uses = uses
        self._is_required = is_required
        self._clock = clock
        self._cached: OrderedDict[str, tuple[float, ApiKey | None]] = OrderedDict()

    @property
    def anonymous(self) -> Principal:
        """Who sends no key. Raises Problem `unauthenticated` where one is required."""
        if self._is_required:
            raise Problem("unauthenticated", headers=_UNAUTHENTICATED)
        return _LOCAL

    async def resolve(self, header: str) -> Principal:
        """The client. Raises Problem `unauthenticated`, always with the same words."""
        credentials = _CREDENTIALS.fullmatch(header)
        token = credentials[1] if credentials is not None else ""
        key_id = id_in(token)
        if key_id is None:
            raise Problem("unauthenticated", headers=_UNAUTHENTICATED)
        key = await self._key(key_id)
        # Compared also when there is no such key, so that its existence cannot be timed.
        matches = hmac.compare_digest(digest_of(token), key.secret_sha256 if key else b"\0" * 32)
        # The cache keeps what is stored and not whether it is valid: a key expires on time.
        now = datetime.now(UTC)
        if key is None or not matches or not _is_valid(key, now):
            raise Problem("unauthenticated", headers=_UNAUTHENTICATED)
        self._uses.note(key_id, now)
        return Principal(key.client_id, key.scopes)

    async def _key(self, key_id: str) -> ApiKey | None:
        now = self._clock()
        cached = self._cached.get(key_id)
        if cached is not None and cached[0] > now:
            return cached[1]
        key = await read_api_key(self._database, key_id)
        self._cached[key_id] = (now + self._limits.api_key_cache_s, key)
        self._cached.move_to_end(key_id)
        while len(self._cached) > self._limits.api_key_cache_entries_max:
            self._cached.popitem(last=False)
        return key


def _is_valid(key: ApiKey, now: datetime) -> bool:
    return key.revoked_at is None and (key.expires_at is None or now < key.expires_at)
