"""Dead letters: found by filters, sent again exactly once, or thrown away if that is confirmed."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from click.testing import CliRunner, Result

from tests.conftest import Database
from tests.support.endpoints import letters, new_webhook, status_of
from tests.support.outbox import transfer_event, wallet_event
from tests.support.waiting import patient_s
from transferd.cli import main
from transferd.commit.events import cloud_event
from transferd.config import Limits
from transferd.domain.webhook import DeliveryStatus
from transferd.ledger.ids import new_id
from transferd.ledger.store.database import Database as Store
from transferd.ledger.store.dead_letters import (
    DeadLetter,
    Filter,
    count_dead_letters,
    insert_dead_letters,
    list_dead_letters,
)
from transferd.ledger.store.deliveries import DeliveryRecord, record_deliveries
from transferd.ledger.store.errors import StoreError
from transferd.notifications.dead_letters import Redriven, purge, redrive

NOBODY = "postgresql://transferd@127.0.0.1:9/transferd"
ADA, BOB = "019a0000-0000-7000-8000-00000000000a", "019a0000-0000-7000-8000-00000000000b"
# Whatever dies again comes back at once, with a later id: as if a worker was very quick.
UNDYING = """
CREATE SEQUENCE again;
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
    INSERT INTO transferd.dead_letters SELECT (OLD).*;
    UPDATE transferd.dead_letters
    SET id = ('ffffffff-0000-7000-8000-' || lpad(nextval('again')::text, 12, '0'))::uuid
    WHERE id = OLD.id;
    RETURN NULL;
END $$;
CREATE TRIGGER again AFTER DELETE ON transferd.dead_letters FOR EACH ROW EXECUTE FUNCTION again();
"""


@asynccontextmanager
async def opened(database: Database) -> AsyncIterator[Store]:
    async with Store(database.settings(), Limits(), 1) as store:
        yield store


def letter(
    endpoint: str | None = ADA, *, reason: str = "attempts exhausted", type: str = "transfer.posted"
) -> DeadLetter:
    """A letter with an event that can be sent again."""
    event = transfer_event(type=type) if type.startswith("transfer") else wallet_event(type=type)
    return DeadLetter(
        id=new_id(),
        endpoint_id=endpoint,
        event_id=event["id"],
        event_type=type,
        reason=reason,
        detail="answered 500",
        attempts=5,
        body=cloud_event(event),
    )


def unreadable() -> DeadLetter:
    """A message that is no event."""
    return DeadLetter(
        new_id(), None, None, None, "undeliverable", "not an event: oh\0no", 0, b"\xffno event"
    )


async def keep(database: Database, *several: DeadLetter) -> list[str]:
    """Their ids, oldest first; ids of the same millisecond have no order."""
    async with opened(database) as store, store.transaction() as transaction:
        await insert_dead_letters(transaction, several)
    return sorted(each.id for each in several)


async def made_older(database: Database, id: str, hours: float) -> None:
    await database.fetch(
        "UPDATE transferd.dead_letters SET died_at = died_at - make_interval(secs => $2)"
        " WHERE id::text = $1",
        id,
        hours * 3600,
    )


async def on_their_way(database: Database) -> list[tuple[str | None, str]]:
    """Endpoint and event of what the outbox holds."""
    rows = await database.fetch("SELECT events::text FROM ledger_00.outbox ORDER BY seq")
    items = [item for row in rows for item in orjson.loads(row["events"])]
    return [(item["endpoint"], item["event"]["id"]) for item in items]


def silent(_: int, __: int) -> None:
    """A progress that nobody watches."""


async def command(database: Database, *arguments: str, answer: str | None = None) -> Result:
    """`transferd dead-letters` with these arguments, beside the loop of the test."""
    environment = database.variables(COLUMNS="80")
    return await asyncio.to_thread(
        CliRunner().invoke, main, ["dead-letters", *arguments], env=environment, input=answer
    )


# Which


async def test_filters_choose_and_together_they_choose_less(database: Database) -> None:
    exhausted = letter()
    gone = letter(reason="endpoint gone")
    of_bob = letter(BOB, reason="endpoint gone", type="wallet.frozen")
    odd = unreadable()
    await keep(database, exhausted, gone, of_bob, odd)
    await made_older(database, gone.id, hours=2)
    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)
    async with opened(database) as store:
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
            found = await list_dead_letters(store, wanted, after_id=None, limit=10)
            assert [each.id for each in found] == sorted(each.id for each in expected)
            assert await count_dead_letters(store, wanted) == len(expected)


async def test_a_letter_keeps_its_message_to_the_byte(database: Database) -> None:
    odd = unreadable()
    await keep(database, odd)
    # Twice is once.
    await keep(database, odd)
    async with opened(database) as store:
        [found] = await list_dead_letters(store, Filter(), after_id=None, limit=10)
    assert found.died_at is not None
    # A text of PostgreSQL has no NUL.
    assert found == odd._replace(died_at=found.died_at, detail="not an event: ohno")


# Again


async def test_a_letter_that_is_sent_again_leaves_by_the_outbox(database: Database) -> None:
    webhook = await new_webhook(database, "http://127.0.0.1:9/")
    dead, odd = letter(webhook), unreadable()
    await keep(database, dead, odd)
    assert dead.event_id is not None
    assert dead.event_type is not None
    record = DeliveryRecord(
        id=new_id(),
        event_id=dead.event_id,
        endpoint_id=webhook,
        event_type=dead.event_type,
        status=DeliveryStatus.DEAD,
        attempts=5,
        response_status=500,
        error="answered 500",
        response_excerpt=None,
        event=None,
        wait_s=None,
    )
    async with opened(database) as store:
        async with store.transaction() as transaction:
            await record_deliveries(transaction, [record])
        assert await redrive(store, Filter(), silent) == Redriven(sent=1, unreadable=1)
    assert await on_their_way(database) == [(webhook, dead.event_id)]
    [row] = await database.fetch("SELECT events::text FROM ledger_00.outbox")
    event = orjson.loads(dead.body)
    assert orjson.loads(row["events"]) == [{"endpoint": webhook, "event": event}]
    # Its next message is not taken for a repetition.
    assert await status_of(database, webhook, dead.event_id) is DeliveryStatus.PENDING
    assert [each.id for each in await letters(database)] == [odd.id]


async def test_pages_follow_each_other_and_progress_is_told(database: Database) -> None:
    several = [letter() for _ in range(450)]
    await keep(database, *several)
    told: list[tuple[int, int]] = []
    async with opened(database) as store:
        result = await redrive(store, Filter(), lambda done, total: told.append((done, total)))
    assert result == Redriven(sent=450, unreadable=0)
    assert told == [(200, 450), (400, 450), (450, 450)]
    by_age = sorted(several, key=lambda each: each.id)
    assert await on_their_way(database) == [(ADA, each.event_id) for each in by_age]
    sizes = await database.fetch("SELECT event_count FROM ledger_00.outbox ORDER BY seq")
    assert [row["event_count"] for row in sizes] == [200, 200, 50]


@pytest.mark.parametrize("level", ["read committed", "serializable"])
async def test_two_operators_send_each_letter_once(level: str, database: Database) -> None:
    await database.isolate(level)
    several = [letter() for _ in range(300)]
    await keep(database, *several)
    async with opened(database) as one, opened(database) as other:
        results = await asyncio.gather(
            redrive(one, Filter(), silent), redrive(other, Filter(), silent)
        )
    assert sum(result.sent for result in results) == 300
    sent = await on_their_way(database)
    assert sorted(id for _, id in sent) == sorted(str(each.event_id) for each in several)
    assert await letters(database) == []


async def test_a_letter_stays_if_the_outbox_does_not_take_it(database: Database) -> None:
    ids = await keep(database, letter(), letter())
    await database.fetch("ALTER TABLE ledger_00.outbox ADD CHECK (event_count > 2)")
    async with opened(database) as store:
        with pytest.raises(StoreError):
            await redrive(store, Filter(), silent)
    assert [each.id for each in await letters(database)] == ids
    assert await on_their_way(database) == []


@pytest.mark.parametrize("name", ["redrive", "purge"])
async def test_what_dies_meanwhile_is_left_for_the_next_time(database: Database, name: str) -> None:
    await keep(database, *[letter() for _ in range(3)])
    await database.servers.as_superuser(UNDYING, database=database.name)
    async with opened(database) as store, asyncio.timeout(patient_s(5)):
        if name == "redrive":
            assert await redrive(store, Filter(), silent) == Redriven(sent=3, unreadable=0)
        else:
            assert await purge(store, Filter(), silent) == 3
    assert len(await letters(database)) == 3


# Away


async def test_only_what_was_chosen_is_purged(database: Database) -> None:
    gone = [letter(reason="endpoint gone") for _ in range(3)]
    [rest] = await keep(database, letter())
    await keep(database, *gone)
    told: list[tuple[int, int]] = []
    async with opened(database) as store:
        count = await purge(
            store,
            Filter(reason="endpoint gone"),
            lambda done, total: told.append((done, total)),
        )
    assert count == 3
    assert told == [(3, 3)]
    assert [each.id for each in await letters(database)] == [rest]
    assert await on_their_way(database) == []


# The command


async def test_list_shows_the_oldest_first_and_how_many_there_are(database: Database) -> None:
    first, second, third = await keep(database, letter(), letter(BOB), unreadable())
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


async def test_list_without_letters_is_one_line(database: Database) -> None:
    result = await command(database, "list")
    assert (result.exit_code, result.output) == (0, "0 of 0 dead letters\n")
    result = await command(database, "list", "--json")
    assert (result.exit_code, result.output) == (0, "")


async def test_list_filters(database: Database) -> None:
    exhausted, frozen, odd = letter(), letter(BOB, type="wallet.frozen"), unreadable()
    await keep(database, exhausted, frozen, odd)
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
        found = [json.loads(line)["id"] for line in result.stdout.splitlines()]
        assert found == expected, arguments


async def test_list_as_json_is_one_object_per_line(database: Database) -> None:
    dead = letter()
    await keep(database, dead)
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


async def test_show_shows_the_message(database: Database) -> None:
    dead, odd = letter(), unreadable()
    await keep(database, dead, odd)
    shown = json.loads((await command(database, "show", dead.id)).stdout)
    assert shown["message"] == json.loads(dead.body)
    assert (shown["id"], shown["reason"]) == (dead.id, "attempts exhausted")
    shown = json.loads((await command(database, "show", odd.id)).stdout)
    assert shown["message"] == "\ufffdno event"
    assert shown["event_id"] is None


async def test_show_of_what_is_not_there_is_one_line(database: Database) -> None:
    id = new_id()
    result = await command(database, "show", id)
    assert (result.exit_code, result.output) == (1, f"Error: there is no dead letter {id}\n")


async def test_redrive_takes_ids(database: Database) -> None:
    dead, other = letter(), letter()
    await keep(database, dead, other)
    result = await command(database, "redrive", dead.id)
    assert (result.exit_code, result.stdout) == (0, "1 on their way again\n")
    assert "redriving" in result.stderr
    assert "1/1" in result.stderr
    assert await on_their_way(database) == [(ADA, dead.event_id)]
    assert [each.id for each in await letters(database)] == [other.id]
    result = await command(database, "redrive", dead.id)
    assert (result.exit_code, result.stdout) == (0, "0 on their way again\n")


async def test_redrive_takes_filters_or_all(database: Database) -> None:
    gone, exhausted, odd = letter(reason="endpoint gone"), letter(BOB), unreadable()
    await keep(database, gone, exhausted, odd)
    result = await command(database, "redrive", "--reason", "endpoint gone")
    assert result.stdout == "1 on their way again\n"
    result = await command(database, "redrive", "--all", "--endpoint", BOB)
    assert result.stdout == "1 on their way again\n"
    result = await command(database, "redrive", "--all")
    assert result.stdout == "0 on their way again; 1 are no events and stay\n"
    assert await on_their_way(database) == [(ADA, gone.event_id), (BOB, exhausted.event_id)]


@pytest.mark.parametrize(
    ("answer", "arguments", "left"),
    [("y\n", [], 0), ("n\n", [], 2), ("", [], 2), (None, ["--yes"], 0)],
    ids=["yes", "no", "silence", "said before"],
)
async def test_purge_asks_first(
    database: Database, answer: str | None, arguments: list[str], left: int
) -> None:
    await keep(database, letter(), unreadable())
    result = await command(database, "purge", "--all", *arguments, answer=answer)
    assert result.exit_code == (1 if left else 0)
    assert ("2 purged" in result.stdout) is not bool(left)
    assert ("Purge?" in result.stdout) is not bool(arguments)
    assert len(await letters(database)) == left


async def test_purge_takes_ids(database: Database) -> None:
    dead, other = letter(), letter()
    await keep(database, dead, other)
    result = await command(database, "purge", dead.id, "--yes")
    assert (result.exit_code, result.stdout) == (0, "1 purged\n")
    assert "purging" in result.stderr
    assert [each.id for each in await letters(database)] == [other.id]


@pytest.mark.parametrize("name", [["redrive"], ["purge", "--yes"]], ids=" ".join)
async def test_what_is_not_clear_is_a_usage_error_and_touches_nothing(
    database: Database, name: list[str]
) -> None:
    ids = await keep(database, letter())
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
    assert [each.id for each in await letters(database)] == ids


@pytest.mark.parametrize(
    "arguments",
    [["list"], ["show", ADA], ["redrive", "--all"], ["purge", "--all", "--yes"]],
    ids=lambda arguments: arguments[0],
)
def test_what_is_wrong_with_the_database_is_one_line(
    empty_database: str, arguments: list[str]
) -> None:
    for url in (NOBODY, empty_database, None):
        environment = {"TRANSFERD_DATABASE_URL": url}
        result = CliRunner().invoke(main, ["dead-letters", *arguments], env=environment)
        assert result.exit_code == 1
        [line] = [line for line in result.output.splitlines() if line.startswith("Error: ")]
        assert "PostgreSQL: " in line or "TRANSFERD_DATABASE_URL is not set" in line
        assert "Traceback" not in result.output
