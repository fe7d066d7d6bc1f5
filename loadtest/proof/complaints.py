"""Checks of single answers: pure functions that return a complaint or None."""

import itertools
from collections.abc import Mapping
from typing import Any

from loadtest.proof.answers import REFUSALS_OF_TRANSFERS
from loadtest.proof.hold_record import (
    CAPTURE,
    CREATE,
    RELEASE,
    hold_of_path,
    kind_of_path,
    microseconds,
)

# What a request about a hold has and its answer does not.
_NOT_SHOWN = frozenset({"expires_in_s", "final"})


def transfer_complaint(
    asked: Mapping[str, Any],
    answer: Mapping[str, Any],
    kind: str = "transfer",
    *,
    balance_min: int | None = 0,
) -> str | None:
    """Whether a transfer (201) is the requested one. balance_min: None if it is not limited."""
    for name, value in asked.items():
        # 1.0 and true are not valid amounts, but in Python they equal 1.
        if answer.get(name) != value or type(answer.get(name)) is not type(value):
            return f"{name} is {answer.get(name)!r}, asked for {value!r}"
    if answer.get("kind") != kind or answer.get("status") != "posted":
        return f"kind {answer.get('kind')!r} and status {answer.get('status')!r}"
    for name, least in (("source_version", 0), ("source_balance_after", balance_min)):
        value = answer.get(name)
        if not isinstance(value, int) or (least is not None and value < least):
            return f"{name} is {value!r}"
    if not isinstance(answer.get("id"), str) or len(answer["id"]) != 36:
        return f"id is {answer.get('id')!r}"
    return None


def refusal_complaint(asked_minor: int | None, answer: Mapping[str, Any]) -> str | None:
    """Whether a refusal is complete. asked_minor: None if the request had no amount."""
    if not answer.get("request_id") or not answer.get("detail"):
        return f"a refusal without request_id or detail: {answer}"
    if answer.get("code") != "insufficient-funds":
        return None
    available, shortfall = answer.get("available"), answer.get("shortfall")
    if not isinstance(available, int) or not isinstance(shortfall, int):
        return f"insufficient-funds without available and shortfall: {answer}"
    # Both numbers come from one balance, so concurrent transfers do not change their sum.
    if shortfall < 1 or asked_minor not in (None, available + shortfall):
        return f"asked for {asked_minor}, available {available}, shortfall {shortfall}"
    return None


def wallet_complaint(wallet_id: str, currency: str, answer: Mapping[str, Any]) -> str | None:
    """Whether a wallet (200) is the requested one, and its amounts agree."""
    if answer.get("id") != wallet_id or answer.get("currency") != currency:
        return f"asked for {wallet_id} {currency}, got {answer.get('id')} {answer.get('currency')}"
    try:
        expected = answer["balance"] - answer["held"] + answer["overdraft_limit"]
        if answer["available"] != expected:
            return f"available is {answer['available']}, not {expected}: {answer}"
        if answer["version"] < 0 or answer["available"] < 0:
            return f"version {answer['version']}, available {answer['available']}"
    except (KeyError, TypeError):
        return f"not a wallet: {answer}"
    return None


def statement_complaint(entries: list[dict[str, Any]]) -> str | None:
    """Whether a page of a statement, newest first, has no gap, and each balance follows."""
    try:
        for newer, older in itertools.pairwise(entries):
            if newer["version"] != older["version"] + 1:
                return f"version {newer['version']} follows {older['version']}"
            if newer["balance_after"] != older["balance_after"] + newer["amount"]:
                return (
                    f"balance {newer['balance_after']} at version {newer['version']} is not"
                    f" {older['balance_after']} + {newer['amount']}"
                )
    except (KeyError, TypeError):
        return f"not a statement: {entries[:2]}"
    return None


def batch_complaint(
    asked: list[dict[str, Any]], results: list[dict[str, Any]], *, atomic: bool
) -> str | None:
    """Whether the results of a batch (200) belong to its items, in the same order."""
    if len(results) != len(asked):
        return f"{len(results)} results for {len(asked)} transfers"
    for number, (item, result) in enumerate(zip(asked, results, strict=True)):
        if result.get("status") == "posted":
            complaint = transfer_complaint(item, result)
        elif atomic:
            complaint = f"an atomic batch with a result {result.get('code')}"
        elif result.get("code") not in REFUSALS_OF_TRANSFERS:
            complaint = f"code {result.get('code')!r}"
        else:
            complaint = refusal_complaint(item["amount"], result)
        if complaint is not None:
            return f"result {number}: {complaint}"
    return None


def hold_complaint(path: str, asked: Mapping[str, Any], answer: Mapping[str, Any]) -> str | None:
    """Whether the success of a POST about a hold is what it asks for, and the hold adds up."""
    kind = kind_of_path(path)
    wanted = {name: value for name, value in asked.items() if name not in _NOT_SHOWN}
    if kind == CAPTURE:
        return transfer_complaint(wanted | {"hold_id": hold_of_path(path)}, answer, "capture")
    wanted |= {"status": "released" if kind == RELEASE else "active"}
    if kind != CREATE:
        wanted["id"] = hold_of_path(path)
    for name, value in wanted.items():
        if answer.get(name) != value or type(answer.get(name)) is not type(value):
            return f"{name} is {answer.get(name)!r}, asked for {value!r}"
    if not isinstance(answer.get("id"), str) or len(answer["id"]) != 36:
        return f"id is {answer.get('id')!r}"
    try:
        parts = [answer[name] for name in ("captured", "released", "remaining")]
        if answer["amount"] != sum(parts) or min(parts) < 0:
            return f"a hold that does not add up: {answer}"
        if parts[2 if kind == RELEASE else 1]:
            return f"a {answer['status']} hold with released {parts[1]}, remaining {parts[2]}"
        lasts_us = microseconds(answer["expires_at"]) - microseconds(answer["created_at"])
    except (KeyError, TypeError, ValueError):
        return f"not a hold: {answer}"
    if "expires_in_s" in asked and lasts_us != asked["expires_in_s"] * 1_000_000:
        return f"it expires after {lasts_us} microseconds, asked for {asked['expires_in_s']} s"
    return None
