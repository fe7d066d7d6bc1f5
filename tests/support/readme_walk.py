"""The example commands that README.md shows and that `transferd dev` prints (the walk)."""

import asyncio
import json
import re
import textwrap
from pathlib import Path
from typing import Any

from tests.support.project import README

README_URL = "http://127.0.0.1:8080"
_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def walk_in(document: Path = README) -> str:
    """The one shell block of a document that calls the API."""
    [walk] = [
        block for block in _BLOCK.findall(document.read_text(encoding="utf-8")) if "curl" in block
    ]
    assert isinstance(walk, str)
    return walk


def printed_walk(output: str) -> str:
    """The walk in the output of `transferd dev`."""
    _, _, rest = output.partition("another terminal):\n")
    walk, end, _ = rest.partition("Ctrl-C")
    assert end, output
    return textwrap.dedent(walk).strip() + "\n"


async def take(walk: str) -> list[Any]:
    """Run the walk with bash, without a failing command; return the JSON of each printed line."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", walk),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, complaints = await process.communicate()
    assert (process.returncode, complaints) == (0, b""), complaints.decode()
    return [json.loads(line) for line in printed.decode().splitlines()]


async def walk_moves_money(walk: str) -> str:
    """Run the walk and check its output; return the id of the receiving wallet."""
    transfer, receiver, statement = await take(walk)
    assert (transfer["status"], transfer["amount"]) == ("posted", 2500)
    assert transfer["source_balance_after"] == 7500
    assert receiver["id"] == transfer["destination_wallet_id"]
    assert receiver["balance"] == 2500
    entries = [(entry["amount"], entry["balance_after"]) for entry in statement["data"]]
    assert entries == [(-2500, 7500), (10_000, 10_000)]
    id: str = receiver["id"]
    return id
