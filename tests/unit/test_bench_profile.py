"""A sample of the profiler is put down to the right stage of a transfer."""

from pathlib import Path

import pytest

import transferd
from loadtest.bench.profile import STAGES, shares, stage_of

_SERVE = "serve (transferd/cli/serving.py:17);Runner.run (asyncio/runners.py:118)"


@pytest.mark.parametrize(
    ("frames", "stage"),
    [
        ("RequestHandler.start (web_protocol.py:1);create (transferd/web/x.py:3)", "validation"),
        ("Committer._commit (c.py:1);decide (transferd/domain/decide.py:1)", "decide"),
        ("_write_group (group.py:1);Connection._do_execute (asyncpg/connection.py:1)", "write"),
        ("data_received (asyncpg/protocol.c:1)", "read what PostgreSQL answers"),
        ("uv__io_poll (linux.c:1)", "event loop and sockets"),
    ],
)
def test_the_innermost_stage_counts_and_libraries_only_without_one(frames: str, stage: str) -> None:
    assert stage_of(f"{_SERVE};{frames}") == stage


def test_shares_add_up(tmp_path: Path) -> None:
    recording = tmp_path / "samples"
    recording.write_text(f"{_SERVE};decide (d.py:1) 30\n{_SERVE};uv_run (core.c:1) 10\n")
    found = shares(recording)
    assert (found["decide"], found["event loop and sockets"]) == (0.75, 0.25)
    assert sum(found.values()) == 1


def test_every_function_that_the_stages_name_exists() -> None:
    package = Path(transferd.__file__).parent
    code = "".join(path.read_text() for path in package.rglob("*.py"))
    own = {"Call", "Router", "Envelope", "Gate", "Committer", "Replays", "Book", "Rendering"}
    for _, parts in STAGES:
        for part in parts:
            name, _, method = part.partition(".")
            if name in own:
                assert f"class {name}" in code, part
                assert not method or f"def {method}(" in code, part
            elif part.endswith(" (") or part in {"events_of", "_write_group"}:
                assert f"def {part.removesuffix(' (')}(" in code, part
