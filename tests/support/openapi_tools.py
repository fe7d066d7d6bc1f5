"""Programs that read the OpenAPI document: linters, generators, type checkers."""

import os
import shutil
import sys
from pathlib import Path

from tests.support.command import ran
from tests.support.project import ROOT

CLIENTS = ROOT / "tests" / "clients"
NODE_TOOLS = Path(sys.prefix) / "node" / "node_modules"
# No tool needs the network. By default Redocly sends usage data and looks for newer versions.
_QUIET = {
    "REDOCLY_TELEMETRY": "off",
    "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true",
    "NO_UPDATE_NOTIFIER": "1",
    "NO_COLOR": "1",
}
# Generators run other programs, such as ruff.
_PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


async def python_tool(name: str, *arguments: str | Path) -> tuple[int, str]:
    """Run a program that pip has installed; return exit code and output."""
    return await ran(Path(sys.executable).with_name(name), *arguments, PATH=_PATH)


async def node_tool(name: str, *arguments: str | Path) -> tuple[int, str]:
    """Run a program that npm has installed; return exit code and output."""
    script = NODE_TOOLS / ".bin" / name
    if not script.exists():
        raise RuntimeError(f"There is no {name} in {NODE_TOOLS}: `make test` installs it.")
    return await node(script, *arguments)


async def node(*arguments: str | Path) -> tuple[int, str]:
    """Run a JavaScript program; return exit code and output."""
    program = shutil.which("node")
    if program is None:
        raise RuntimeError("There is no node: `make test` installs it, or says how.")
    return await ran(program, *arguments, **_QUIET)
