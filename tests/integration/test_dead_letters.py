"""Dead letters: filtered, redriven exactly once, or purged after a confirmation."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from click.testing import CliRunner, Result

from tests.conftest import Database
from tests.support.deliveries import logged_delivery
from tests.support.endpoints import delete_webhook, letters, new_webhook, status_of
from tests.support.home import execute_on_rows
from tests.support.outbox import transfer_event, wallet_event
from tests.support.store import open_main
from tests.support.truth import row_count
from tests.support.waiting import patient_s
from transferd.cli import main
from transferd.commit.events import cloud_event
from transferd.domain.ledger import MAIN
from transferd.domain.webhook import DeliveryStatus
from transferd.ledger.ids import new_id
from transferd.ledger.store.database import LedgerDatabase
from transferd.ledger.store.dead_letters import (
    DeadLetter,
    Filter,
    count_dead_letters,
    insert_dead_letters,
    list_dead_letters,
)
from transferd.ledger.store.deliveries import LOG, read_waiting
from transferd.ledger.store.errors import StoreError
from transferd.notifications.dead_letters import Redriven, purge, redrive

ADA, BOB = "019a0000-0000-7000-8000-00000000000a", "019a0000-0000-7000-8000-00000000000b"
# A redriven delivery fails again at once, in its own row, and for each letter that is redriven or
# purged another delivery fails, with a later id: as if a worker was very fast.
UNDYING = """
CREATE SEQUENCE again;
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
    IF TG_OP = 'UPDATE' THEN
        UPDATE {table} SET status = 3, dead_reason = OLD.dead_reason
        WHERE id = OLD.id;
    END IF;
    OLD.event_id := nextval('again');
    OLD.id := ('ffffffff-0000-7000-8000-' || lpad(OLD.event_id, 12, '0'))::uuid;
    INSERT INTO {table} SELECT (OLD).*;
    RETURN NULL;
END $$;
CREATE TRIGGER again AFTER UPDATE ON {table} FOR EACH ROW
    WHEN (OLD.dead_reason IS NOT NULL AND NEW.dead_reason IS NULL) EXECUTE FUNCTION again();
CREATE TRIGGER gone AFTER DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION again();
"""


@pytest.fixture
async def ada(database: Database) -> str:
    """The id of a webhook."""
    return await new_webhook(database, "http://127.0.0.1:9/ada")


@pytest.fixture
async def bob(database: Database) -> str:
    """The id of another webhook."""
    return await new_webhook(database, "http://127.0.0.1:9/bob")


async def found(database: Database, wanted: Filter) -> list[DeadLetter]:
    """The dead letters that the filter selects, oldest first."""
    async with open_main(database.settings()) as store:
        return await list_dead_letters(store, wanted, after_id=None, limit=1000)


async def letter(
    database: Database,
    endpoint: str,
    *,
    reason: str = "attempts exhausted",
    type: str = "transfer.posted",
) -> DeadLetter:
    """A dead letter of an endpoint."""
    event = transfer_event(type=type) if type.startswith("transfer") else wallet_event(type=type)
    id = await logged_delivery(
        database,
        endpoint,
        event_id=event["id"],
        event_type=type,
        status="dead",
        attempts=5,
        dead_reason=reason,
        event=orjson.loads(cloud_event(event, database.ledger.name)),
    )
    [kept] = await found(database, Filter(ids=[id]))
    return kept


async def many_letters(database: Database, endpoint: str, count: int) -> list[str]:
    """The events of this many new dead letters, oldest first."""
    rows = await database.fetch(
        "INSERT INTO ledger_00.deliveries (id, endpoint_id, event_id, event_type, status, attempts,"
        " dead_reason, event, created_at, updated_at) SELECT gen_random_uuid(), $1::uuid, number,"
        " 'transfer.posted', 3, 5, 'attempts exhausted', json_build_object('id', number::text),"
        " now(), now() FROM generate_series(1, $2) AS number RETURNING id, event_id",
        endpoint,
        count,
    )
    return [row["event_id"] for row in sorted(rows, key=lambda row: row["id"])]


async def unreadable(database: Database, body: bytes = b"\xffno event") -> DeadLetter:
    """The dead letter of a message that is no event."""
    async with open_main(database.settings()) as store, store.transaction() as transaction:
        await insert_dead_letters(transaction, {body: "not an event: oh\0no"})
    return next(
        each for each in await found(database, Filter(reason="undeliverable")) if each.body == body
    )


async def made_older(database: Database, id: str, hours: float) -> None:
    await execute_on_rows(
        database,
        "ledger_00.deliveries",
        f"UPDATE {{table}} SET updated_at = updated_at - interval '{hours} hours'"
        f" WHERE id = '{id}'",
    )


async def in_the_outbox(database: Database) -> list[tuple[str | None, str]]:
    """Endpoint and event of each item in the outbox."""
    rows = await database.fetch("SELECT events::text FROM ledger_00.outbox ORDER BY seq")
    items = [item for row in rows for item in orjson.loads(row["events"])]
    return [(item["endpoint"], item["event"]["id"]) for item in items]


def silent(_: int, __: int) -> None:
    """Ignore the progress."""


async def command(database: Database, *arguments: str, answer: str | None = None) -> Result:
    """`transferd dead-letters` with these arguments, beside the loop of the test."""
    environment = database.variables(COLUMNS="80")
    return await asyncio.to_thread(
        CliRunner().invoke, main, ["dead-letters", *arguments], env=environment, input=answer
    )


# Filters


async def test_a_letter_has_to_match_every_filter(
    database: Database, store: LedgerDatabase
) -> None:
    exhausted = await letter(database, ADA)
    gone = await letter(database, ADA, reason="endpoint gone")
    of_bob = await letter(database, BOB, reason="endpoint gone", type="wallet.frozen")
    odd = await unreadable(database)
    await made_older(database, gone.id, hours=2)
    # Deliveries that wait, are delivered or skipped, or are dead without a reason are no letters.
    for status in DeliveryStatus:
        await logged_delivery(database, ADA, status=status)
    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)
    for wanted, expected in [
        (Filter(), {exhausted, gone, of_bob, odd}),
        (Filter(endpoint_id=ADA), {exhausted, gone}),
        (Filter(event_type="wallet.frozen"), {of_bob}),
        (Filter(reason="endpoint gone"), {gone, of_bob}),
        (Filter(died_before=an_hour_ago), {gone}),
        (Filter(ids=[odd.id, exhausted.id]), {odd, exhausted}),
        (Filter(endpoint_id=BOB, reason="endpoint gone"), {of_bob}),
        (Filter(endpoint_id=BOB, reason="attempts exhausted"), set()),
        (Filter(ids=[]), set()),
    ]:
        chosen = await list_dead_letters(store, wanted, after_id=None, limit=10)
        assert [each.id for each in chosen] == sorted(each.id for each in expected)
        assert await count_dead_letters(store, wanted) == len(expected)


async def test_a_message_that_is_no_event_is_kept_once_and_byte_for_byte(
    database: Database,
) -> None:
    odd = await unreadable(database)
    assert (odd.endpoint_id, odd.event_id, odd.event_type) == (None, None, None)
    assert (odd.reason, odd.attempts, odd.body) == ("undeliverable", 0, b"\xffno event")
    # A text of PostgreSQL has no NUL.
    assert odd.detail == "not an event: ohno"
    assert await unreadable(database) == odd
    other = await unreadable(database, b"\xffno event either")
    assert {each.id for each in await found(database, Filter())} == {odd.id, other.id}


async def test_a_letter_of_the_version_before_is_its_delivery(database: Database, ada: str) -> None:
    event = transfer_event()
    id = await logged_delivery(database, ada, event_id=event["id"], status="dead", attempts=5)
    await database.fetch(
        "INSERT INTO ledger_00.dead_letters (id, endpoint_id, event_id, event_type, reason, detail,"
        " attempts, body, died_at) VALUES ($1, $2, $3, 'transfer.posted', 'attempts exhausted',"
        " 'answered 500', 5, $4, now())",
        new_id(MAIN),
        ada,
        event["id"],
        cloud_event(event, database.ledger.name),
    )
    # Each command finds the delivery.
    [line] = (await command(database, "list", "--json")).stdout.splitlines()
    assert json.loads(line)["id"] == id
    [dead] = await found(database, Filter())
    assert (dead.reason, dead.body) == (
        "attempts exhausted",
        cloud_event(event, database.ledger.name),
    )
    assert await row_count(database, "ledger_00.dead_letters") == 0
    assert (await command(database, "redrive", id)).stdout == "1 redriven\n"
    assert await status_of(database, ada, event["id"]) is DeliveryStatus.PENDING


# Redrive


async def test_a_redriven_letter_is_pending_and_its_event_is_in_the_outbox(
    database: Database, ada: str, store: LedgerDatabase
) -> None:
    dead, odd = await letter(database, ada), await unreadable(database)
    assert dead.event_id is not None
    assert await redrive(store, Filter(), silent) == Redriven(sent=1, kept=1)
    # It is due at once, and all attempts of a new delivery are left.
    [[waiting], _] = await read_waiting(store, {ada: 10}, [])
    assert (waiting.event_id, waiting.status) == (dead.event_id, DeliveryStatus.PENDING)
    assert (waiting.attempts, waiting.failures) == (5, 0)
    assert waiting.event.encode() == dead.body
    assert await in_the_outbox(database) == [(ada, dead.event_id)]
    [row] = await database.fetch("SELECT events::text FROM ledger_00.outbox")
    event = orjson.loads(dead.body)
    assert orjson.loads(row["events"]) == [{"endpoint": ada, "event": event}]
    assert [each.id for each in await letters(database)] == [odd.id]


async def test_a_letter_survives_its_webhook_and_is_not_redriven(
    database: Database, ada: str, bob: str, store: LedgerDatabase
) -> None:
    dead, other, of_log = [await letter(database, each) for each in (ada, bob, LOG)]
    await logged_delivery(database, ada, status="dead")
    await delete_webhook(database, ada)
    assert await row_count(database, "ledger_00.deliveries") == 3
    assert await redrive(store, Filter(), silent) == Redriven(sent=2, kept=1)
    assert set(await in_the_outbox(database)) == {(bob, other.event_id), (LOG, of_log.event_id)}
    assert await found(database, Filter()) == [dead]


async def test_a_redrive_goes_page_by_page_and_reports_progress(
    database: Database, ada: str, store: LedgerDatabase
) -> None:
    events = await many_letters(database, ada, 450)
    reported: list[tuple[int, int]] = []
    result = await redrive(store, Filter(), lambda done, total: reported.append((done, total)))
    assert result == Redriven(sent=450, kept=0)
    assert reported == [(200, 450), (400, 450), (450, 450)]
    sent = await in_the_outbox(database)
    # The order within a page is not defined.
    for first in (0, 200, 400):
        page = slice(first, first + 200)
        assert {id for _, id in sent[page]} == set(events[page])
    assert {endpoint for endpoint, _ in sent} == {ada}
    sizes = await database.fetch("SELECT event_count FROM ledger_00.outbox ORDER BY seq")
    assert [row["event_count"] for row in sizes] == [200, 200, 50]


@pytest.mark.parametrize("level", ["read committed", "serializable"])
async def test_two_concurrent_redrives_send_each_letter_once(
    level: str, database: Database, ada: str
) -> None:
    events = await many_letters(database, ada, 300)
    await database.isolate(level)
    settings = database.settings()
    async with open_main(settings) as one, open_main(settings) as other:
        results = await asyncio.gather(
            redrive(one, Filter(), silent), redrive(other, Filter(), silent)
        )
    assert sum(result.sent for result in results) == 300
    sent = await in_the_outbox(database)
    assert sorted(id for _, id in sent) == sorted(events)
    assert await letters(database) == []


async def test_a_letter_stays_if_its_event_cannot_be_written_to_the_outbox(
    database: Database, ada: str, store: LedgerDatabase
) -> None:
    kept = [await letter(database, ada) for _ in range(2)]
    await database.fetch("ALTER TABLE ledger_00.outbox ADD CHECK (event_count > 2)")
    with pytest.raises(StoreError):
        await redrive(store, Filter(), silent)
    assert {each.id for each in await letters(database)} == {each.id for each in kept}
    assert await in_the_outbox(database) == []


@pytest.mark.parametrize(("name", "dead"), [("redrive", 6), ("purge", 3)])
async def test_letters_that_appear_meanwhile_are_left_for_the_next_run(
    database: Database, ada: str, name: str, dead: int, store: LedgerDatabase
) -> None:
    for _ in range(3):
        await letter(database, ada)
    await execute_on_rows(database, "ledger_00.deliveries", UNDYING)
    async with asyncio.timeout(patient_s(5)):
        if name == "redrive":
            assert await redrive(store, Filter(), silent) == Redriven(sent=3, kept=0)
        else:
            assert await purge(store, Filter(), silent) == 3
    assert len(await letters(database)) == dead


# The command


async def test_list_shows_the_oldest_first_and_how_many_there_are(database: Database) -> None:
    result = await command(database, "list")
    assert (result.exit_code, result.output) == (0, "0 of 0 dead letters\n")
    several = [
        await letter(database, ADA),
        await letter(database, BOB),
        await unreadable(database),
    ]
    first, second, third = sorted(each.id for each in several)
    result = await command(database, "list")
    assert result.exit_code == 0
    shown = [line.split()[0] for line in result.stdout.splitlines() if line.strip()]
    assert [word for word in shown if len(word) == 36] == [first, second, third]
    assert result.stdout.splitlines()[-1] == "3 of 3 dead letters"
    [of_bob] = [line.split() for line in result.stdout.splitlines() if BOB in line]
    assert of_bob[2:] == ["transfer.posted", BOB, "5", "attempts", "exhausted:", "answered", "500"]
    [odd] = [line.split() for line in result.stdout.splitlines() if "undeliverable" in line]
    assert odd[2:] == ["-", "-", "0", "undeliverable:", "not", "an", "event:", "ohno"]
    result = await command(database, "list", "--limit", "2")
    assert result.stdout.splitlines()[-1] == "2 of 3 dead letters"
    assert third not in result.stdout


async def test_list_has_an_option_for_each_filter(database: Database) -> None:
    exhausted, odd = await letter(database, ADA), await unreadable(database)
    frozen = await letter(database, BOB, type="wallet.frozen")
    await made_older(database, exhausted.id, hours=2)
    for arguments, expected in [
        (["--endpoint", BOB], [frozen.id]),
        (["--type", "wallet.frozen"], [frozen.id]),
        (["--reason", "undeliverable"], [odd.id]),
        (["--older-than", "1.5"], [exhausted.id]),
        (["--older-than", "3"], []),
        (["--endpoint", ADA, "--reason", "undeliverable"], []),
    ]:
        result = await command(database, "list", "--json", *arguments)
        assert result.exit_code == 0, result.output
        shown = [json.loads(line)["id"] for line in result.stdout.splitlines()]
        assert shown == expected, arguments


async def test_list_as_json_is_one_object_per_line(database: Database) -> None:
    dead = await letter(database, ADA)
    [line] = (await command(database, "list", "--json")).stdout.splitlines()
    shown = json.loads(line)
    assert datetime.fromisoformat(shown.pop("died_at")).tzinfo is not None
    assert shown == {
        "id": dead.id,
        "event_id": dead.event_id,
        "event_type": "transfer.posted",
        "endpoint_id": ADA,
        "attempts": 5,
        "reason": "attempts exhausted",
        "detail": "answered 500",
    }


async def test_show_prints_the_letter_with_its_message(database: Database) -> None:
    dead, odd = await letter(database, ADA), await unreadable(database)
    shown = json.loads((await command(database, "show", dead.id)).stdout)
    assert shown["message"] == json.loads(dead.body)
    assert (shown["id"], shown["reason"]) == (dead.id, "attempts exhausted")
    shown = json.loads((await command(database, "show", odd.id)).stdout)
    assert shown["message"] == "\ufffdno event"
    assert shown["event_id"] is None
    id = new_id(MAIN)
    result = await command(database, "show", id)
    assert (result.exit_code, result.output) == (1, f"Error: there is no dead letter {id}\n")


async def test_redrive_takes_ids_filters_or_all(database: Database, ada: str, bob: str) -> None:
    first = await letter(database, ada)
    gone = await letter(database, ada, reason="endpoint gone")
    exhausted = await letter(database, bob)
    await unreadable(database)
    result = await command(database, "redrive", first.id)
    assert (result.exit_code, result.stdout) == (0, "1 redriven\n")
    assert "redriving" in result.stderr
    assert "1/1" in result.stderr
    for arguments, count in (
        ([first.id], 0),
        (["--reason", "endpoint gone"], 1),
        (["--all", "--endpoint", bob], 1),
    ):
        result = await command(database, "redrive", *arguments)
        assert (result.exit_code, result.stdout) == (0, f"{count} redriven\n")
    await letter(database, ADA)
    result = await command(database, "redrive", "--all")
    assert result.stdout == "0 redriven; 2 kept: not an event, or the webhook was deleted\n"
    assert await in_the_outbox(database) == [
        (ada, first.event_id),
        (ada, gone.event_id),
        (bob, exhausted.event_id),
    ]


@pytest.mark.parametrize(
    ("answer", "arguments", "left"),
    [
        ("y\n", ["--all"], 0),
        ("n\n", ["--all"], 2),
        ("", ["--all"], 2),
        (None, ["--yes"], 1),
        (None, ["--yes", "--reason", "attempts exhausted"], 1),
    ],
    ids=["yes", "no", "silence", "an id", "a filter"],
)
async def test_purge_takes_ids_or_all_and_asks_first(
    database: Database, answer: str | None, arguments: list[str], left: int
) -> None:
    dead = await letter(database, ADA)
    await unreadable(database)
    ids = [dead.id] if arguments == ["--yes"] else []
    result = await command(database, "purge", *ids, *arguments, answer=answer)
    assert result.exit_code == (1 if left == 2 else 0)
    assert (f"{2 - left} purged" in result.stdout) is (left < 2)
    assert ("Purge?" in result.stdout) is (answer is not None)
    assert ("purging" in result.stderr) is (left < 2)
    assert dead.id not in [each.id for each in await letters(database)] or left == 2
    assert len(await letters(database)) == left


@pytest.mark.parametrize("name", [["redrive"], ["purge", "--yes"]], ids=" ".join)
async def test_an_unclear_selection_is_a_usage_error_and_changes_nothing(
    database: Database, name: list[str]
) -> None:
    kept = await letter(database, ADA)
    for arguments in (
        [],
        [ADA, "--all"],
        [ADA, "--endpoint", BOB],
        ["not-an-id"],
        ["--endpoint", "not-an-id"],
        ["--type", "weather.changed"],
        ["--reason", "bad luck"],
        ["--older-than", "-1"],
        ["--older-than", "nan"],
        ["--older-than", "1e12"],
    ):
        result = await command(database, *name, *arguments)
        assert result.exit_code == 2, arguments
        assert result.output.startswith("Usage: "), arguments
    assert await found(database, Filter()) == [kept]
