"""Clients that send raw bytes, slowly or wrongly."""

import asyncio
import re
import socket
import time
from contextlib import suppress
from dataclasses import dataclass

import orjson

_DRIP_S = 0.05


@dataclass(frozen=True)
class Ending:
    """The bytes received before the other side ended the connection, and the time until then."""

    answer: bytes
    took_s: float

    @property
    def statuses(self) -> list[int]:
        """The status of each answer, in order."""
        found = re.findall(rb"^HTTP/1\.[01] (\d{3}) ", self.answer, re.MULTILINE)
        return [int(status) for status in found]

    @property
    def code(self) -> str:
        """The code of the problem in the last answer."""
        head, _, body = self.answer.rpartition(b"\r\n\r\n")
        assert b"application/problem+json" in head, self.answer
        code: str = orjson.loads(body)["code"]
        return code


def head(method: str, path: str, **headers: str | int) -> bytes:
    """The head of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def post(path: str, length: int | str, **headers: str | int) -> bytes:
    """The head of a POST with a body of this length."""
    kinds: dict[str, str | int] = {"Content_Type": "application/json", "Content_Length": length}
    return head("POST", path, **(kinds | headers))


async def until_ended(
    port: int, sent: bytes, *, drip: bytes = b"", then_end: bool = False
) -> Ending:
    """Send the bytes, then `drip` byte by byte, and read until the other side ends the connection.

    With `then_end` this side is closed for writing after the last byte.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    started = time.monotonic()

    async def send() -> None:
        writer.write(sent)
        for byte in drip:
            await asyncio.sleep(_DRIP_S)
            writer.write(bytes([byte]))
        if then_end:
            writer.write_eof()

    sending = asyncio.create_task(send())
    answer = b""
    try:
        while piece := await reader.read(65536):
            answer += piece
    except ConnectionError:
        pass
    finally:
        took_s = time.monotonic() - started
        sending.cancel()
        await cut(writer)
    return Ending(answer, took_s)


async def cut(writer: asyncio.StreamWriter) -> None:
    """Abort the connection."""
    writer.transport.abort()
    with suppress(ConnectionError):
        await writer.wait_closed()


def open_without_reading(port: int, sent: bytes) -> socket.socket:
    """A connection that sends these bytes and does not read the answer."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", port))
    connection.sendall(sent)
    return connection
