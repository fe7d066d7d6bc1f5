"""Distributions: the source distribution holds the repository, the wheel the package."""

import email.parser
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support.project import ROOT

# What the build writes into a source distribution by itself.
_WRITTEN = ("PKG-INFO", "setup.cfg", "transferd.egg-info/")
_BUILD = "import sys; from setuptools import build_meta; build_meta.build_{}(sys.argv[1])"


def ignored() -> list[str]:
    """The patterns of ignored files."""
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    return [line.rstrip("/") for line in lines if line and not line.startswith("#")] + [".git"]


def files(folder: Path) -> set[str]:
    """All files below a folder, relative to it."""
    paths = (path for path in folder.rglob("*") if not path.is_dir())
    return {path.relative_to(folder).as_posix() for path in paths}


def built(kind: str, source: Path, into: Path) -> Path:
    """The distribution that the project's own backend makes of a folder, without a network."""
    into.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _BUILD.format(kind), into],
        cwd=source,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    [made] = into.iterdir()
    return made


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository, since a build writes into its folder."""
    copy = tmp_path_factory.mktemp("source") / "repository"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*ignored()), symlinks=True)
    return copy


@pytest.fixture(scope="module")
def unpacked(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source distribution."""
    place = tmp_path_factory.mktemp("sdist")
    archive = built("sdist", source, place / "packed")
    with tarfile.open(archive) as packed:
        packed.extractall(place / "unpacked", filter="data")
    [folder] = (place / "unpacked").iterdir()
    assert archive.name == f"{folder.name}.tar.gz"
    return folder


def test_the_source_distribution_is_the_whole_repository(source: Path, unpacked: Path) -> None:
    found = {name for name in files(unpacked) if not name.startswith(_WRITTEN)}
    expected = {name for name in files(source) if not name.startswith(_WRITTEN)}
    assert found == expected
    assert found >= {"Makefile", "constraints.txt", ".ci/services", "tests/conftest.py"}
    assert found >= {"docs/architecture.md", "transferd/py.typed", "nginx/nginx.conf.template"}
    for name in (".ci/venv", ".ci/services", "nginx/render", "deploy/scale"):
        assert os.access(unpacked / name, os.X_OK), name


def test_a_wheel_from_it_has_the_whole_package_and_nothing_else(
    unpacked: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "repository"
    shutil.copytree(unpacked, copy, symlinks=True)
    wheel = built("wheel", copy, tmp_path / "wheel")
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
        [metadata] = [name for name in names if name.endswith(".dist-info/METADATA")]
        described = email.parser.Parser().parsestr(packed.read(metadata).decode())
    package = {name for name in names if ".dist-info/" not in name}
    assert package == {f"transferd/{name}" for name in files(unpacked / "transferd")}
    assert package >= {
        "transferd/py.typed",
        "transferd/ledger/migrations/0001_ledger.sql",
        "transferd/ledger/migrations/ledger/0001_tables.sql",
        "transferd/ledger/queries.sql",
        "transferd/ledger/shared.sql",
        "transferd/ledger/citus.sql",
        "transferd/cache/claim.lua",
        "transferd/web/static/favicon.ico",
        "transferd/web/static/swagger-ui.css",
    }
    links = dict(line.split(", ", 1) for line in described.get_all("Project-URL", []))
    assert links.keys() == {"Documentation", "Changelog", "Source", "Issues"}
    assert all(link.startswith("https://") for link in links.values())
