"""`make scale`: its calls of Docker in their order; and how Nginx finds its replicas.

The machine of the tests may have no container engine, so a script in its place records the calls.
tests/fault/test_replicas_behind_nginx.py tests their effect: Nginx before more and fewer replicas.
"""

import os
from pathlib import Path

import pytest

from tests.support.command import ran
from tests.support.project import README

ROOT = README.parent
DOCKER = """#!/bin/sh
echo "$*" >>"$CALLS"
case "$*" in *"ps --quiet app") for n in $(seq "$NOW"); do echo "$n"; done ;; esac
"""
GETENT = """#!/bin/sh
case $2 in transferd-app-[124]) echo "10.0.0.1 $2" ;; *) exit 2 ;; esac
"""


def tool(folder: Path, name: str, text: str) -> None:
    """A command of that name, found before any other."""
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)


async def calls(tmp_path: Path, *, now: int, wanted: int) -> list[str]:
    """The calls of Docker that change the count of replicas from `now` to `wanted`."""
    tool(tmp_path, "docker", DOCKER)
    log = tmp_path / "calls"
    code, output = await ran(
        ROOT / "deploy/scale",
        str(wanted),
        PATH=f"{tmp_path}:{os.environ['PATH']}",
        CALLS=str(log),
        NOW=str(now),
    )
    assert (code, output) == (0, f"{wanted} replicas\n")
    return [line for line in log.read_text().splitlines() if "up" in line or "exec" in line]


async def test_new_replicas_serve_before_nginx_knows_them(tmp_path: Path) -> None:
    up, reload = await calls(tmp_path, now=2, wanted=3)
    assert "--wait --scale app=3 app" in up
    assert reload.endswith("nginx /nginx/start reload")
    assert "REPLICAS_WANTED=3" in reload


async def test_nginx_removes_replicas_before_they_stop(tmp_path: Path) -> None:
    reload, up = await calls(tmp_path, now=3, wanted=1)
    assert "REPLICAS_WANTED=1" in reload
    assert "--scale app=1 app" in up


@pytest.mark.parametrize("count", ["", "0", "many", "-1"])
async def test_an_invalid_number_is_refused_in_one_line(count: str) -> None:
    code, output = await ran(ROOT / "deploy/scale", count)
    assert (code, output) == (2, "usage: make scale REPLICAS=3\n")


async def found(tmp_path: Path, **environment: str) -> tuple[int, str, list[str]]:
    """The replicas that Nginx is started with, by the names in the network."""
    tool(tmp_path, "getent", GETENT)
    tool(tmp_path, "nginx", "#!/bin/sh\n")
    code, output = await ran(
        ROOT / "nginx/start",
        PATH=f"{tmp_path}:{os.environ['PATH']}",
        NGINX_CONF=str(tmp_path / "conf"),
        **environment,
    )
    path = tmp_path / "conf/replicas.conf"
    lines = path.read_text().splitlines() if path.exists() else []
    return code, output, [line.split()[1] for line in lines]


async def test_replicas_are_found_by_name(tmp_path: Path) -> None:
    _, _, replicas = await found(tmp_path, REPLICAS_AT="transferd-app-:8080")
    assert replicas == [f"transferd-app-{n}:8080" for n in (1, 2, 4)]
    _, _, replicas = await found(tmp_path, REPLICAS_AT="transferd-app-:8080", REPLICAS_WANTED="1")
    assert replicas == ["transferd-app-1:8080"]
    _, _, replicas = await found(tmp_path, REPLICAS_AT="transferd-app-:8080", REPLICAS_WANTED="3")
    assert replicas == [f"transferd-app-{n}:8080" for n in (1, 2, 4)]


async def test_without_any_replica_nginx_is_not_started(tmp_path: Path) -> None:
    code, output, _ = await found(tmp_path, REPLICAS_AT="unknown-:8080")
    assert (code, output) == (1, "no replica is known under unknown-:8080\n")


@pytest.mark.parametrize("replica", ["nowhere", "a b:80", "host:", ":80", "host:80;evil"])
async def test_an_invalid_address_is_not_written_to_the_configuration(
    replica: str, tmp_path: Path
) -> None:
    code, output = await ran(ROOT / "nginx/render", tmp_path, replica)
    assert (code, output) == (2, f"not HOST:PORT: {replica}\n")
    assert not (tmp_path / "replicas.conf").exists()
