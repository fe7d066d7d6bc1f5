"""Ports for programs that start later."""

import subprocess
import sys
from pathlib import Path

import pytest

from transferd.devstack import ports
from transferd.devstack.ports import free_port, free_ports
from transferd.devstack.process import StackError

_TAKE_ONE = """
from transferd.devstack.ports import free_port
print(free_port(), flush=True)
input()
"""


@pytest.fixture(autouse=True)
def claims(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_claims", ports._Claims())


def only(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> None:
    monkeypatch.setattr(ports, "PORTS", range(numbers[0], numbers[-1] + 1))


def test_a_port_is_given_to_one_process_until_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _TAKE_ONE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        theirs = int(other.stdout.readline())
        only(monkeypatch, theirs)
        with pytest.raises(StackError, match="no free loopback port"):
            free_port()
        other.communicate("\n")
    assert free_port() == theirs


def test_a_port_is_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = free_ports(3)
    only(monkeypatch, first, first + 2)
    with pytest.raises(StackError):
        free_port()


def test_ports_in_a_row_are_within_the_range(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, free_ports(2))
    monkeypatch.setattr(ports, "_claims", ports._Claims())
    with pytest.raises(StackError):
        free_ports(2)


def test_an_old_claim_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_CLAIMS_MAX", 1)
    first = free_port()
    free_port()
    only(monkeypatch, first)
    assert free_port() == first


def test_a_port_is_found_without_a_directory_for_claims(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    assert free_port() in ports.PORTS
