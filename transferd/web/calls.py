"""One request: its client, its origin, and its validated input."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from aiohttp import HttpVersion11
from pydantic import BaseModel, ValidationError

from transferd.actors.ledgers import OpenLedger
from transferd.commit.answer import Answer
from transferd.commit.envelope import Envelope
from transferd.commit.origin import Origin
from transferd.config import Limits
from transferd.domain.command import Command
from transferd.domain.key import NO_FINGERPRINT, Fingerprint, Key
from transferd.ledger.ids import new_id
from transferd.observability.facts import Begin
from transferd.observability.traceparent import is_traceparent, new_traceparent
from transferd.web.auth import Principal
from transferd.web.batch_schemas import ITEM_TAGS
from transferd.web.context import AppContext
from transferd.web.exactness import Fault, faults_of, pointer_step
from transferd.web.problems import Problem
from transferd.web.request import Request
from transferd.web.request_headers import Headers, items_of
from transferd.web.schemas import Body

Model = TypeVar("Model", bound=BaseModel)
Shape = TypeVar("Shape", bound=Body)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_PRINTABLE = re.compile(r"[ -~]+")
# RFC 9110 section 8.3.1. Parameters other than the character set do not matter.
_TCHARS = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_JSON_IN_UTF_8 = re.compile(
    r"[ \t]*application/json(?:[ \t]*;[ \t]*"
    rf"(?:charset=(?:utf-?8|\"utf-?8\")|(?!charset){_TCHARS}=(?:{_TCHARS}|\"[^\"\\]*\"))?)*[ \t]*",
    re.IGNORECASE,
)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def origin_of(request: Request, begin: Begin | None = None) -> Origin:
    """Request id and trace context, accepted where well-formed and generated otherwise.

    With `begin` the request gets a span of its own, below the one that it came with.
    """
    headers = request.headers
    # Neither header is a list, so two lines count as none.
    parent = _single(headers, "traceparent")
    if parent is not None and not is_traceparent(parent):
        parent = None
    traceparent = begin(parent) if begin is not None else parent or new_traceparent()
    # Without an id the request gets the id of the trace, so logs and traces match.
    request_id = _single(headers, "X-Request-Id")
    if request_id is None or _REQUEST_ID.fullmatch(request_id) is None:
        request_id = traceparent[3:35]
    return Origin(request_id, traceparent, request.path, parent)


def _single(headers: Headers, name: str) -> str | None:
    """The value of a header that was sent once."""
    if name not in headers:
        return None
    lines = headers.getall(name)
    return lines[0] if len(lines) == 1 else None


class Call:
    """A request inside a route.

    `path` are the values in its path, by name. `principal`, and its ledger, are set for operations
    only.
    """

    __slots__ = ("_awaits_continue", "context", "ledger", "origin", "path", "principal", "request")

    path: Mapping[str, str]
    principal: Principal
    ledger: OpenLedger

    def __init__(self, context: AppContext, request: Request, origin: Origin) -> None:
        self.context = context
        self.request = request
        self.origin = origin
        self._awaits_continue = False

    async def body(self, model: type[Shape], *, bytes_max: int | None = None) -> Shape:
        """The body as a model; `bytes_max` where it may be longer than usual. Raises Problem."""
        self._check_media_type()
        return self._validated(model, await self._read(bytes_max))

    async def optional_body(self, model: type[Shape]) -> Shape:
        """The body as a model, which is empty if the body is. Raises Problem."""
        raw = await self._read() if self.request.has_body else b""
        if not raw:
            return model()
        self._check_media_type()
        return self._validated(model, raw)

    def query(self, model: type[Model]) -> Model:
        """The query parameters as a model. Raises Problem."""
        values: dict[str, str] = {}
        # Most requests have no query, and this check is cheaper than parsing.
        if self.request.has_query:
            for name, value in self.request.query.items():
                if name in values:
                    raise invalid(f"/{name}", "repeated", "may be given only once")
                values[name] = value
        try:
            return model.model_validate(values)
        except ValidationError as error:
            raise _problem_of(error, self.context.limits) from None

    def new_id(self) -> str:
        """A new id in the ledger of the call."""
        return new_id(self.principal.ledger)

    def key(self, *, required: bool) -> Key | None:
        """The Idempotency-Key with its owner. Raises Problem."""
        headers = self.request.headers.getall("Idempotency-Key", [])
        if not headers:
            if required:
                raise Problem("idempotency-key-missing")
            return None
        text = headers[0]
        if len(text) >= 2 and text[0] == text[-1] == '"':
            text = text[1:-1]
        if (
            len(headers) > 1
            or not 1 <= len(text) <= self.context.limits.key_chars_max
            or _PRINTABLE.fullmatch(text) is None
        ):
            raise Problem("idempotency-key-invalid")
        return (self.principal.client_id, text)

    async def ask(
        self,
        command: Command,
        *,
        key: Key | None,
        fingerprint: Fingerprint = NO_FINGERPRINT,
    ) -> Answer:
        """Send the command to its actor and wait for the answer. Raises TransferdError."""
        now = self.context.clock()
        return await self.ledger.router.ask(
            Envelope(
                command,
                key=key,
                fingerprint=fingerprint,
                origin=self.origin,
                enqueued_at=now,
                deadline=now + self.context.limits.request_deadline_s,
            )
        )

    def _validated(self, model: type[Shape], raw: bytes) -> Shape:
        limits = self.context.limits
        try:
            body = model.model_validate_json(raw)
        except ValidationError as error:
            raise _problem_of(error, limits) from None
        if faults := faults_of(raw, body, faults_max=limits.field_errors_max):
            raise _problem_of_faults(faults)
        return body

    def read_expectation(self) -> None:
        """Read `Expect`. Raises Problem `malformed-request` for all but 100-continue.

        The client is told to continue when the body is read.
        """
        if self.request.headers["Expect"].lower() != "100-continue":
            raise Problem("malformed-request", "Expect may only be 100-continue.")
        # A client of HTTP/1.0 does not know the answer to it (RFC 9110 section 10.1.1).
        self._awaits_continue = self.request.version >= HttpVersion11

    async def _read(self, bytes_max: int | None = None) -> bytes:
        content, limits = self.request.body, self.context.limits
        allowed = bytes_max or limits.body_bytes_max
        # A body that announces too many bytes is refused unread.
        if self.request.content_length > allowed:
            raise _too_large(allowed)
        if content.is_eof():
            # Most bodies arrive together with the head.
            body = content.read_nowait()
            if len(body) > allowed:
                raise _too_large(allowed)
            return body
        try:
            async with asyncio.timeout(limits.body_wait_s):
                return await self._receive(allowed)
        except TimeoutError:
            detail = f"The body did not arrive within {limits.body_wait_s:g} s."
            raise Problem("malformed-json", detail, closes=True) from None
        except ConnectionError as error:
            # The stream keeps the error, and its traceback would keep the stream and the bytes.
            error.__traceback__ = None
            # No error of the service. A client that has disconnected does not get this answer.
            detail = "The body was cut off, or its chunks are malformed."
            raise Problem("malformed-json", detail, closes=True) from None

    async def _receive(self, allowed: int) -> bytes:
        """The rest of a body that is on its way. Raises Problem `body-too-large`."""
        if self._awaits_continue:
            self.request.writer.write(_CONTINUE)
        body = bytearray()
        while part := await self.request.body.readany():
            body += part
            if len(body) > allowed:
                raise _too_large(allowed)
        return bytes(body)

    def _check_media_type(self) -> None:
        headers = self.request.headers
        media_type = headers.get("Content-Type", "")
        if media_type != "application/json" and _JSON_IN_UTF_8.fullmatch(media_type) is None:
            raise Problem("unsupported-media-type")
        if "Content-Encoding" in headers and any(
            encoding.lower() != "identity" for encoding in items_of(headers, "Content-Encoding")
        ):
            raise Problem("unsupported-media-type", "Send the body uncompressed.")


def _too_large(bytes_max: int) -> Problem:
    detail = f"A body may have at most {bytes_max} bytes at this address."
    return Problem("body-too-large", detail, facts={"bytes_max": bytes_max}, closes=True)


def _problem_of(error: ValidationError, limits: Limits) -> Problem:
    if error.error_count() > limits.field_errors_read_max:
        return invalid("", "too_many_errors", f"{error.error_count()} places are wrong")
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    if problems[0]["type"] == "json_invalid":
        return Problem("malformed-json", problems[0]["msg"])
    items = [
        {
            "pointer": _pointer_of(item["loc"]),
            "code": item["type"],
            "message": item["msg"],
        }
        for item in problems[: limits.field_errors_max]
    ]
    return Problem("invalid-request", facts={"errors": items})


def _pointer_of(place: Sequence[str | int]) -> str:
    """The JSON pointer of an error's place, without the tag of an item of a batch."""
    steps = [
        step
        for before, step in zip((None, *place), place, strict=False)
        if not (isinstance(before, int) and step in ITEM_TAGS)
    ]
    return "".join(map(pointer_step, steps))


def _problem_of_faults(faults: Sequence[tuple[str, Fault]]) -> Problem:
    items = [
        {"pointer": pointer, "code": fault.value[0], "message": fault.value[1]}
        for pointer, fault in faults
    ]
    return Problem("invalid-request", facts={"errors": items})


def invalid(pointer: str, code: str, message: str, **facts: object) -> Problem:
    """A problem with one field error; `facts` become further members."""
    errors = [{"pointer": pointer, "code": code, "message": message}]
    return Problem("invalid-request", facts={"errors": errors, **facts})
