"""Documents that never change while the process runs: files, pages, the OpenAPI document."""

import hashlib
from functools import cache
from importlib import resources

from transferd.web.calls import Call
from transferd.web.replies import Reply
from transferd.web.request_headers import is_known

_STATIC = resources.files("transferd.web").joinpath("static")
_MEDIA_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
}


class Document:
    """Bytes with an ETag: clients cache them and revalidate for each use.

    No `max-age`: the addresses stay over an upgrade, and a page must not meet scripts of another
    version.
    """

    __slots__ = ("_body", "_media_type", "_validators")

    def __init__(self, body: bytes, media_type: str) -> None:
        self._body = body
        self._media_type = media_type
        tag = hashlib.blake2b(body, digest_size=16).hexdigest()
        self._validators = {"ETag": f'"{tag}"', "Cache-Control": "no-cache"}

    def answer(self, call: Call) -> Reply:
        """The document, or 304 if the client has it."""
        if is_known(call.request, self._validators["ETag"]):
            return Reply(304, media_type=None, extra=self._validators)
        return Reply(200, self._body, self._media_type, self._validators)


@cache
def static_files() -> dict[str, Document]:
    """The files of this package that browsers get, by name."""
    return {
        file.name: Document(file.read_bytes(), _MEDIA_TYPES[suffix])
        for file in _STATIC.iterdir()
        if (suffix := file.name[file.name.rfind(".") :]) in _MEDIA_TYPES
    }
