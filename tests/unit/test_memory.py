"""The directory in memory for the servers of the tests."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support import memory as memory_module
from tests.support.memory import memory_directory


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "memory"
    directory.mkdir()
    monkeypatch.setattr(memory_module, "_MEMORY", directory)
    monkeypatch.setattr(memory_module, "_ROOM_BYTES", 0)
    return directory


def test_the_directory_is_removed_at_the_end(memory: Path, tmp_path: Path) -> None:
    with memory_directory(otherwise=tmp_path) as place:
        assert place.parent == memory
        (place / "file").write_text("data")
    assert list(memory.iterdir()) == []


def test_the_files_of_a_killed_run_are_removed_by_the_next(memory: Path, tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    (memory / f"transferd-tests-{ended.pid}-x").mkdir()
    running = memory / f"transferd-tests-{os.getppid()}-y"
    running.mkdir()
    with memory_directory(otherwise=tmp_path):
        assert not (memory / f"transferd-tests-{ended.pid}-x").exists()
        assert running.exists()


def test_without_enough_memory_the_other_directory_is_used(
    tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_module, "_ROOM_BYTES", 2**63)
    with memory_directory(otherwise=tmp_path) as place:
        assert place == tmp_path
    monkeypatch.setattr(memory_module, "_MEMORY", memory / "missing")
    with memory_directory(otherwise=tmp_path) as place:
        assert place == tmp_path
