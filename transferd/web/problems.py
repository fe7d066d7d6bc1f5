"""One table: errors and refusals -> problems (https://www.rfc-editor.org/rfc/rfc9457)."""

from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from transferd.commit.origin import Origin
from transferd.domain import errors

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class ProblemType:
    """A type of problem; `meaning` is the text of its page under /problems/."""

    status: int
    title: str
    meaning: str


TYPES: dict[str, ProblemType] = {
    "malformed-request": ProblemType(
        400, "Malformed request", "This is not HTTP, or its address or a header is too long."
    ),
    "malformed-json": ProblemType(
        400, "Malformed JSON", "The body is not valid JSON in UTF-8, or is nested too deeply."
    ),
    "idempotency-key-missing": ProblemType(
        400,
        "Idempotency-Key missing",
        "This request moves money, so it needs an Idempotency-Key header: 1 to 255 printable"
        " characters, new for each intent and the same for each repetition of it.",
    ),
    "idempotency-key-invalid": ProblemType(
        400, "Idempotency-Key invalid", "The key must be 1 to 255 printable ASCII characters."
    ),
    "cursor-invalid": ProblemType(
        400,
        "Cursor invalid",
        "Use next_cursor of the page before, unchanged, on the same list with the same filters; or"
        " begin again without one.",
    ),
    "unauthenticated": ProblemType(
        401, "Unauthenticated", "Send Authorization: Bearer with a valid API key."
    ),
    "forbidden": ProblemType(
        403, "Forbidden", "The API key lacks the scope for this, or no key may do it."
    ),
    "user-not-found": ProblemType(404, "User not found", "There is no user with this id."),
    "wallet-not-found": ProblemType(404, "Wallet not found", "There is no wallet with this id."),
    "transfer-not-found": ProblemType(
        404, "Transfer not found", "There is no transfer with this id."
    ),
    "hold-not-found": ProblemType(404, "Hold not found", "There is no hold with this id."),
    "webhook-not-found": ProblemType(404, "Webhook not found", "There is no webhook with this id."),
    "delivery-not-found": ProblemType(
        404, "Delivery not found", "This webhook has no such delivery in its log."
    ),
    "not-found": ProblemType(404, "Not found", "There is nothing at this address."),
    "method-not-allowed": ProblemType(
        405, "Method not allowed", "The Allow header lists the methods of this address."
    ),
    "request-in-progress": ProblemType(
        409,
        "Request in progress",
        "A request with this key is still running. Repeat it with the same key for its answer.",
    ),
    "reversal-exceeds-transfer": ProblemType(
        409,
        "Reversal exceeds transfer",
        "The sum of all reversals cannot exceed the transfer; `left` says what remains.",
    ),
    "not-reversible": ProblemType(409, "Not reversible", "A reversal cannot be reversed."),
    "hold-not-active": ProblemType(
        409,
        "Hold not active",
        "The hold was captured or released: `hold_status` and `ended_at` say how and when, and"
        " `transfer_id` names the final capture.",
    ),
    "hold-expired": ProblemType(
        409, "Hold expired", "The hold has reached `expires_at`; what was left is available again."
    ),
    "wallet-not-empty": ProblemType(
        409,
        "Wallet not empty",
        "A wallet can be closed only when its balance is zero and it has no open holds.",
    ),
    "webhook-disabled": ProblemType(
        409,
        "Webhook disabled",
        "Nothing is sent to a disabled webhook. Set its status to active first.",
    ),
    "too-many-secrets": ProblemType(
        409,
        "Too many secrets",
        "Each secret that was replaced signs until the time that was promised for it, and no more"
        " secrets fit into a request. The first of them ends at `free_at`: rotate again after it.",
    ),
    "version-not-reached": ProblemType(
        412,
        "Version not reached",
        "The wallet has not reached the version that was named; `version` is its own.",
    ),
    "version-changed": ProblemType(
        412,
        "Version changed",
        "The wallet has another version than If-Match names, and nothing was changed. `version` and"
        " `etag` are the current ones. Read the wallet again before you repeat the change.",
    ),
    "body-too-large": ProblemType(
        413, "Body too large", "The body has more than the `bytes_max` bytes of this address."
    ),
    "unsupported-media-type": ProblemType(
        415, "Unsupported media type", "Send Content-Type: application/json, not compressed."
    ),
    "invalid-request": ProblemType(
        422, "Invalid request", "`errors` names each field that is wrong, and why."
    ),
    "insufficient-funds": ProblemType(
        422, "Insufficient funds", "`shortfall` is how much more the wallet would need."
    ),
    "currency-mismatch": ProblemType(
        422, "Currency mismatch", "Both wallets and the transfer must have the same currency."
    ),
    "batch-refused": ProblemType(
        422,
        "Batch refused",
        "All or none: `index` counts from 0 to the first transfer that was refused, `refusal` says"
        " why. Nothing was posted.",
    ),
    "same-wallet": ProblemType(422, "Same wallet", "A transfer needs two different wallets."),
    "wallet-frozen": ProblemType(422, "Wallet frozen", "A frozen wallet receives but cannot pay."),
    "wallet-closed": ProblemType(422, "Wallet closed", "A closed wallet takes part in nothing."),
    "balance-out-of-range": ProblemType(
        422, "Balance out of range", "A balance stays inside a signed 64-bit integer."
    ),
    "capture-exceeds-hold": ProblemType(
        422, "Capture exceeds hold", "`remaining` is what is left of the hold."
    ),
    "amount-below-captured": ProblemType(
        422,
        "Amount below captured",
        "The amount of a hold cannot be less than what is `captured` already.",
    ),
    "expiry-invalid": ProblemType(
        422,
        "Expiry invalid",
        "A hold must expire after the database's time, which is `now`, and within 366 days.",
    ),
    "too-many-holds": ProblemType(
        422,
        "Too many holds",
        "The wallet has `open_holds_max` open holds. Capture or release some of them first.",
    ),
    "destination-missing": ProblemType(
        422, "Destination missing", "Name a destination in the hold or in the capture."
    ),
    "destination-mismatch": ProblemType(
        422, "Destination mismatch", "The hold names another destination than the capture."
    ),
    "idempotency-key-reused": ProblemType(
        422,
        "Idempotency-Key reused",
        "This key was used for a different request, which may have moved money, so the same intent"
        " with a new key can pay twice. First look at GET /idempotency-keys/{key}, which has the"
        " answer to that request, or repeat that request exactly as it was sent. Use a new key only"
        " for a new intent.",
    ),
    "mailbox-full": ProblemType(
        429, "Mailbox full", "This one wallet has too much waiting. Try again after Retry-After."
    ),
    "rate-limited": ProblemType(429, "Rate limited", "Too many requests. Wait for Retry-After."),
    "internal-error": ProblemType(
        500, "Internal error", "Repeat the request with the same key; report the request_id."
    ),
    # Only a proxy in front of the replicas answers this.
    "bad-gateway": ProblemType(
        502,
        "Bad gateway",
        "No replica answered. Repeat the request with the same key to learn what happened.",
    ),
    "overloaded": ProblemType(503, "Overloaded", "Nothing happened. Try again after Retry-After."),
    "draining": ProblemType(503, "Draining", "This replica is stopping; nothing happened."),
    "database-unavailable": ProblemType(
        503, "Database unavailable", "PostgreSQL is out of reach; nothing happened. Try again."
    ),
    "deadline-exceeded": ProblemType(
        504,
        "Deadline exceeded",
        "Whether it happened is not known yet. Repeat the request with the same key to learn it.",
    ),
}

_CODE_OF_ERROR: tuple[tuple[type[errors.TransferdError], str], ...] = (
    (errors.MailboxFull, "mailbox-full"),
    (errors.Overloaded, "overloaded"),
    (errors.Draining, "draining"),
    (errors.DatabaseUnavailable, "database-unavailable"),
    (errors.DeadlineExceeded, "deadline-exceeded"),
    (errors.RequestInProgress, "request-in-progress"),
    (errors.TransferdError, "internal-error"),
)
_WITH_RETRY_AFTER = frozenset({409, 429, 503})


class Problem(Exception):
    """A problem answer, raised while a request is read; `facts` become members of the body.

    `closes` if the connection ends with it.
    """

    def __init__(
        self,
        code: str,
        detail: str | None = None,
        *,
        facts: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        closes: bool = False,
    ) -> None:
        self.code = code
        self.detail = detail or TYPES[code].meaning
        self.facts = facts or {}
        self.headers = headers or {}
        self.closes = closes
        super().__init__(f"{code}: {self.detail}")

    @property
    def status(self) -> int:
        """The HTTP status."""
        return TYPES[self.code].status

    def body(self, origin: Origin) -> bytes:
        """The problem as JSON."""
        return render(self.code, self.detail, self.facts, origin)

    @classmethod
    def of_error(cls, error: errors.TransferdError) -> "Problem":
        """The problem for a technical failure."""
        code = next(code for kind, code in _CODE_OF_ERROR if isinstance(error, kind))
        headers = {}
        if TYPES[code].status in _WITH_RETRY_AFTER:
            headers["Retry-After"] = str(error.retry_after_s)
        # The text of the problem type. The driver's text may contain SQL or an address.
        return cls(code, TYPES[code].meaning, headers=headers)

    @classmethod
    def of_refusal(cls, refused: errors.Refused) -> "Problem":
        """The problem for a refusal."""
        return cls(refused.reason, refused.detail, facts=refused.facts)


def render(code: str, detail: str, facts: Mapping[str, object], origin: Origin) -> bytes:
    """A problem as JSON, with the path and the id of the request."""
    kind = TYPES[code]
    return orjson.dumps(
        {
            "type": f"/problems/{code}",
            "title": kind.title,
            "status": kind.status,
            "detail": detail,
            "instance": origin.instance,
            "code": code,
            "request_id": origin.request_id,
            **facts,
        }
    )
