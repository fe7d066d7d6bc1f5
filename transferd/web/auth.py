"""Authentication: resolves a request to an API client, the owner of its idempotency keys."""

import hmac
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from transferd.config import Limits
from transferd.domain.api_key import ADMIN, Scope, digest_of, id_in
from transferd.domain.ledger import MAIN, Ledger
from transferd.ledger.store.clients import ApiKey, read_api_key
from transferd.ledger.store.database import Database
from transferd.web.key_uses import KeyUses
from transferd.web.problems import Problem


@dataclass(frozen=True, slots=True)
class Principal:
    """An API client, its ledger, and what it may do there; `admin` may do everything."""

    client_id: int
    scopes: frozenset[str]
    ledger: Ledger

    def require(self, scope: Scope) -> None:
        """Raise Problem `forbidden` without the scope."""
        if scope not in self.scopes and ADMIN not in self.scopes:
            raise Problem("forbidden", f"This needs the scope {scope}.")


# RFC 9110 section 11.4: a scheme in any case, spaces but no tab, and a token; `id_in` checks the
# shape of the token. Nginx limits requests by the same grammar (nginx/nginx.conf.template).
_CREDENTIALS = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +([!-~]+)")
_UNAUTHENTICATED = {"WWW-Authenticate": "Bearer"}


def local_client(ledger: Ledger) -> Principal:
    """The client of requests without a key while authentication is off."""
    # Migration 0001 creates client 1 in main. In other ledgers it has no row.
    return Principal(1, frozenset({ADMIN}), ledger)


class Authentication:
    """Resolves `Authorization` headers, with a cache of API keys.

    `anonymous` is the client of requests without a key; None: each request needs a key.
    """

    def __init__(
        self,
        database: Database,
        limits: Limits,
        uses: KeyUses,
        *,
        anonymous: Principal | None,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._limits = limits
        self._uses = uses
        self._anonymous = anonymous
        self._clock = clock
        self._cached: OrderedDict[str, tuple[float, ApiKey | None]] = OrderedDict()

    @property
    def anonymous(self) -> Principal:
        """The client of a request without a key. Raises Problem `unauthenticated` with auth on."""
        if self._anonymous is None:
            raise Problem("unauthenticated", headers=_UNAUTHENTICATED)
        return self._anonymous

    async def resolve(self, header: str) -> Principal:
        """The client. Raises Problem `unauthenticated`, with the same text for every reason."""
        credentials = _CREDENTIALS.fullmatch(header)
        token = credentials[1] if credentials is not None else ""
        key_id = id_in(token)
        if key_id is None:
            raise Problem("unauthenticated", headers=_UNAUTHENTICATED)
        key = await self._key(key_id)
        # Compared also for an unknown key, so that timing does not show which keys exist.
        digest = digest_of(token, key.ledger if key else MAIN)
        matches = hmac.compare_digest(digest, key.secret_sha256 if key else b"\0" * 32)
        # Checked for each request, not when the key is cached, so a key expires on time.
        now = datetime.now(UTC)
        if key is None or not matches or not _is_valid(key, now):
            raise Problem("unauthenticated", headers=_UNAUTHENTICATED)
        self._uses.note(key_id, now)
        return Principal(key.client_id, key.scopes, key.ledger)

    async def _key(self, key_id: str) -> ApiKey | None:
        now = self._clock()
        cached = self._cached.get(key_id)
        if cached is not None and cached[0] > now:
            return cached[1]
        key = await read_api_key(self._database, key_id)
        # The time of before the read: a revoked key works for api_key_cache_s at most, however long
        # the read took. cachetools.TTLCache would count from the end of it.
        self._cached[key_id] = (now + self._limits.api_key_cache_s, key)
        self._cached.move_to_end(key_id)
        while len(self._cached) > self._limits.api_key_cache_entries_max:
            self._cached.popitem(last=False)
        return key


def _is_valid(key: ApiKey, now: datetime) -> bool:
    return key.revoked_at is None and (key.expires_at is None or now < key.expires_at)
