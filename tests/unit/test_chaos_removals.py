"""Protections are taken out only where they are: a patch that no longer fits does not start."""

import subprocess
import sys

import pytest

from tests.fault.chaos.protections import ALONE, PROTECTIONS
from tests.fault.chaos.removals import CONSTRAINTS, PATCHES, replace, reword
from tests.support.project import ROOT
from transferd.ledger.store.database import Database, queries


def test_every_layer_can_be_removed_and_is_used() -> None:
    layers = {layer for each in PROTECTIONS.values() for layer in each.layers}
    layers |= {layer for each in ALONE.values() for layer in each.without}
    assert layers == {*PATCHES, *CONSTRAINTS}


def test_what_is_protected_twice_is_tried_with_each_layer_alone() -> None:
    shared = {
        layer for each in PROTECTIONS.values() if len(each.layers) > 1 for layer in each.layers
    }
    alone = {layer for each in ALONE.values() for layer in each.layers}
    assert alone == shared
    for each in ALONE.values():
        assert each.layers.isdisjoint(each.without)


def test_all_patches_fit() -> None:
    # In a process of their own: nothing would undo them here.
    code = f"from tests.fault.chaos.removals import remove; remove({list(PATCHES)})"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_transaction_is_asked_for_as_before() -> None:
    # The one function that is called with whatever its callers say.
    code = """
import asyncio, inspect
from tests.fault.chaos.removals import remove
from transferd.config import Limits, Settings
from transferd.ledger.store.database import Database
names = list(inspect.signature(Database.transaction).parameters)
assert names == ["self", "ledger", "is_retried"], names
remove(["commit-before-answer"])
Database(Settings(), Limits(), 1).transaction("ledger_00", is_retried=True)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_patch_of_what_is_not_there_fails() -> None:
    with pytest.raises(AssertionError, match="no look_twice of its own"):
        replace(Database, "look_twice", lambda true: true)
    before = dict(queries("ledger_00"))
    with pytest.raises(AssertionError, match="does not say 'FOR SHARE'"):
        reword("lock_and_look_up", "FOR SHARE", "")
    # What is there twice could be the wrong one.
    with pytest.raises(AssertionError, match="does not say"):
        reword("write_group", "unnest", "")
    assert queries("ledger_00") == before
