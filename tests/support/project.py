"""Paths of the project."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "transferd"
README = ROOT / "README.md"
