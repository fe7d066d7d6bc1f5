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
from tests.support.deliveries import logged_delivery
from tests.support.endpoints import delete_webhook, letters, new_webhook, status_of
from tests.support.outbox import transfer_event, wallet_event
from tests.support.truth import row_count
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
from transferd.ledger.store.deliveries import LOG, read_waiting
from transferd.ledger.store.errors import StoreError
from transferd.notifications.dead_letters import Redriven, purge, redrive

NOBODY = "postgresql://transferd@127.0.0.1:9/transferd"
ADA, BOB = "019a0000-0000-7000-8000-00000000000a", "019a0000-0000-7000-8000-00000000000b"
# What is sent again dies again at once, in its own row, and for each letter that goes another
# delivery dies, with a later id: as if a worker was very quick.
UNDYING = """
CREATE SEQUENCE again;
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
    IF TG_OP = 'UPDATE' THEN
        UPDATE transferd.deliveries SET status = 3, dead_reason = OLD.dead_reason
        WHERE id = OLD.id;
    END IF;
    OLD.event_id := nextval('again');
    OLD.id := ('ffffffff-0000-7000-8000-' || lpad(OLD.event_id, 12, '0'))::uuid;
    INSERT INTO transferd.deliveries SELECT (OLD).*;
    RETURN NULL;
END $$;
CREATE TRIGGER again AFTER UPDATE ON transferd.deliveries FOR EACH ROW
    WHEN (OLD.dead_reason IS NOT NULL AND NEW.dead_reason IS NULL) EXECUTE FUNCTION again();
CREATE TRIGGER gone AFTER DELETE ON transferd.deliveries FOR EACH ROW EXECUTE FUNCTION again();
"""


@asynccontextmanager
async def opened(database: Database) -> AsyncIterator[Store]:
    async with Store(database.settings(), Limits(), 1) as store:
        yield store


@pytest.fixture
async def ada(database: Database) -> str:
    """A webhook."""
    return await new_webhook(database, "http://127.0.0.1:9/ada")


@pytest.fixture
async def bob(database: Database) -> str:
    """Another one."""
    return await new_webhook(database, "http://127.0.0.1:9/bob")


async def found(database: Database, wanted: Filter) -> list[DeadLetter]:
    """The letters that pass, oldest first."""
    async with opened(database) as store:
        return await list_dead_letters(store, wanted, after_id=None, limit=1000)


async def letter(
    database: Database,
    endpoint: str,
    *,
    reason: str = "attempts exhausted",
    type: str = "transfer.posted",
) -> DeadLetter:
    """A delivery that was given up."""
    event = transfer_event(type=type) if type.startswith("transfer") else wallet_event(type=type)
    id = await logged_delivery(
        database,
        endpoint,
        event_id=event["id"],
        event_type=type,
        status="dead",
        attempts=5,
        dead_reason=reason,
        event=orjson.loads(cloud_event(event)),
    )
    [kept] = await found(database, Filter(ids=[id]))
    return kept


async def many_letters(database: Database, endpoint: str, count: int) -> list[str]:
    """Events of so many deliveries that were given up, oldest first."""
    rows = await database.fetch(
        "INSERT INTO transferd.deliveries (id, endpoint_id, event_id, event_type, status, attempts,"
        " dead_reason, event, created_at, updated_at) SELECT gen_random_uuid(), $1::uuid, number,"
        " 'transfer.posted', 3, 5, 'attempts exhausted', json_build_object('id', number::text),"
        " now(), now() FROM generate_series(1, $2) AS number RETURNING id, event_id",
        endpoint,
        count,
    )
    return [row["event_id"] for row in sorted(rows, key=lambda row: row["id"])]


async def unreadable(database: Database, body: bytes = b"\xffno event") -> DeadLetter:
    """A message that is no event."""
    async with opened(database) as store, store.transaction() as transaction:
        await insert_dead_letters(transaction, {body: "not an event: oh\0no"})
    return next(
        each for each in await found(database, Filter(reason="undeliverable")) if each.body == body
    )


async def made_older(database: Database, id: str, hours: float) -> None:
    await database.fetch(
        "UPDATE transferd.deliveries SET updated_at = updated_at - make_interval(secs => $2)"
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
    exhausted = await letter(database, ADA)
    gone = await letter(database, ADA, reason="endpoint gone")
    of_bob = await letter(database, BOB, reason="endpoint gone", type="wallet.frozen")
    odd = await unreadable(database)
    await made_older(database, gone.id, hours=2)
    # What waits, was delivered or skipped, or has lost its letter is none.
    for status in DeliveryStatus:
        await logged_delivery(database, ADA, status=status)
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
            chosen = await list_dead_letters(store, wanted, after_id=None, limit=10)
            assert [each.id for each in chosen] == sorted(each.id for each in expected)
            assert await count_dead_letters(store, wanted) == len(expected)


async def test_a_message_that_is_no_event_is_kept_to_the_byte_and_once(database: Database) -> None:
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
        "INSERT INTO transferd.dead_letters (id, endpoint_id, event_id, event_type, reason, detail,"
        " attempts, body, died_at) VALUES ($1, $2, $3, 'transfer.posted', 'attempts exhausted',"
        " 'answered 500', 5, $4, now())",
        new_id(),
        ada,
        event["id"],
        cloud_event(event),
    )
    # Each command sees it.
    [line] = (await command(database, "list", "--json")).stdout.splitlines()
    assert json.loads(line)["id"] == id
    [dead] = await found(database, Filter())
    assert (dead.reason, dead.body) == ("attempts exhausted", cloud_event(event))
    assert await row_count(database, "transferd.dead_letters") == 0
    assert (await command(database, "redrive", id)).stdout == "1 on their way again\n"
    assert await status_of(database, ada, event["id"]) is DeliveryStatus.PENDING


# Again


async def test_a_letter_that_is_sent_again_waits_and_leaves_by_the_outbox(
    database: Database, ada: str
) -> None:
    dead, odd = await letter(database, ada), await unreadable(database)
    assert dead.event_id is not None
    async with opened(database) as store:
        assert await redrive(store, Filter(), silent) == Redriven(sent=1, kept=1)
        # With as many failures as a new delivery may have, and at once.
        [[waiting], _] = await read_waiting(store, {ada: 10}, [])
    assert (waiting.event_id, waiting.status) == (dead.event_id, DeliveryStatus.PENDING)
    assert (waiting.attempts, waiting.failures) == (5, 0)
    assert waiting.event.encode() == dead.body
    assert await on_their_way(database) == [(ada, dead.event_id)]
    [row] = await database.fetch("SELECT events::text FROM ledger_00.outbox")
    event = orjson.loads(dead.body)
    assert orjson.loads(row["events"]) == [{"endpoint": ada, "event": event}]
    assert [each.id for each in await letters(database)] == [odd.id]


async def test_a_letter_survives_its_webhook_and_is_not_sent_again(
    database: Database, ada: str, bob: str
) -> None:
    dead, other = await letter(database, ada), await letter(database, bob)
    await logged_delivery(database, ada, status="dead")
    await delete_webhook(database, ada)
    assert await row_count(database, "transferd.deliveries") == 2
    async with opened(database) as store:
        assert await redrive(store, Filter(), silent) == Redriven(sent=1, kept=1)
    assert await on_their_way(database) == [(bob, other.event_id)]
    assert await found(database, Filter()) == [dead]


async def test_a_letter_of_the_log_sink_is_sent_again(database: Database) -> None:
    dead = await letter(database, LOG)
    async with opened(database) as store:
        assert await redrive(store, Filter(), silent) == Redriven(sent=1, kept=0)
    assert await on_their_way(database) == [(LOG, dead.event_id)]


async def test_pages_follow_each_other_and_progress_is_told(database: Database, ada: str) -> None:
    events = await many_letters(database, ada, 450)
    told: list[tuple[int, int]] = []
    async with opened(database) as store:
        result = await redrive(store, Filter(), lambda done, total: told.append((done, total)))
    assert result == Redriven(sent=450, kept=0)
    assert told == [(200, 450), (400, 450), (450, 450)]
    sent = await on_their_way(database)
    # Within a page the order does not matter.
    for first in (0, 200, 400):
        page = slice(first, first + 200)
        assert {id for _, id in sent[page]} == set(events[page])
    assert {endpoint for endpoint, _ in sent} == {ada}
    sizes = await database.fetch("SELECT event_count FROM ledger_00.outbox ORDER BY seq")
    assert [row["event_count"] for row in sizes] == [200, 200, 50]


@pytest.mark.parametrize("level", ["read committed", "serializable"])
async def test_two_operators_send_each_letter_once(
    level: str, database: Database, ada: str
) -> None:
    events = await many_letters(database, ada, 300)
    await database.isolate(level)
    async with opened(database) as one, opened(database) as other:
        results = await asyncio.gather(
            redrive(one, Filter(), silent), redrive(other, Filter(), silent)
        )
    assert sum(result.sent for result in results) == 300
    sent = await on_their_way(database)
    assert sorted(id for _, id in sent) == sorted(events)
    assert await letters(database) == []


async def test_a_letter_stays_if_the_outbox_does_not_take_it(database: Database, ada: str) -> None:
    kept = [await letter(database, ada) for _ in range(2)]
    await database.fetch("ALTER TABLE ledger_00.outbox ADD CHECK (event_count > 2)")
    async with opened(database) as store:
        with pytest.raises(StoreError):
            await redrive(store, Filter(), silent)
    assert {each.id for each in await letters(database)} == {each.id for each in kept}
    assert await on_their_way(database) == []


@pytest.mark.parametrize(("name", "dead"), [("redrive", 6), ("purge", 3)])
async def test_what_dies_meanwhile_is_left_for_the_next_time(
    database: Database, ada: str, name: str, dead: int
) -> None:
    for _ in range(3):
        await letter(database, ada)
    await database.servers.as_superuser(UNDYING, database=database.name)
    async with opened(database) as store, asyncio.timeout(patient_s(5)):
        if name == "redrive":
            assert await redrive(store, Filter(), silent) == Redriven(sent=3, kept=0)
        else:
            assert await purge(store, Filter(), silent) == 3
    assert len(await letters(database)) == dead


# Away


async def test_only_what_was_chosen_is_purged(database: Database) -> None:
    for _ in range(3):
        await letter(database, ADA, reason="endpoint gone")
    rest = await letter(database, ADA)
    told: list[tuple[int, int]] = []
    async with opened(database) as store:
        count = await purge(
            store,
            Filter(reason="endpoint gone"),
            lambda done, total: told.append((done, total)),
        )
    assert count == 3
    assert told == [(3, 3)]
    assert [each.id for each in await letters(database)] == [rest.id]
    assert await row_count(database, "transferd.deliveries") == 1
    assert await on_their_way(database) == []


# The command


async def test_list_shows_the_oldest_first_and_how_many_there_are(database: Database) -> None:
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


async def test_list_without_letters_is_one_line(database: Database) -> None:
    result = await command(database, "list")
    assert (result.exit_code, result.output) == (0, "0 of 0 dead letters\n")
    result = await command(database, "list", "--json")
    assert (result.exit_code, result.output) == (0, "")


async def test_list_filters(database: Database) -> None:
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


async def test_show_shows_the_message(database: Database) -> None:
    dead, odd = await letter(database, ADA), await unreadable(database)
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


async def test_redrive_takes_ids(database: Database, ada: str) -> None:
    dead, other = await letter(database, ada), await letter(database, ada)
    result = await command(database, "redrive", dead.id)
    assert (result.exit_code, result.stdout) == (0, "1 on their way again\n")
    assert "redriving" in result.stderr
    assert "1/1" in result.stderr
    assert await on_their_way(database) == [(ada, dead.event_id)]
    assert [each.id for each in await letters(database)] == [other.id]
    result = await command(database, "redrive", dead.id)
    assert (result.exit_code, result.stdout) == (0, "0 on their way again\n")


async def test_redrive_takes_filters_or_all(database: Database, ada: str, bob: str) -> None:
    gone = await letter(database, ada, reason="endpoint gone")
    exhausted = await letter(database, bob)
    await unreadable(database)
    result = await command(database, "redrive", "--reason", "endpoint gone")
    assert result.stdout == "1 on their way again\n"
    result = await command(database, "redrive", "--all", "--endpoint", bob)
    assert result.stdout == "1 on their way again\n"
    await letter(database, ADA)
    result = await command(database, "redrive", "--all")
    assert result.stdout == (
        "0 on their way again; 2 are no events, or their webhook was deleted, and stay\n"
    )
    assert await on_their_way(database) == [(ada, gone.event_id), (bob, exhausted.event_id)]


@pytest.mark.parametrize(
    ("answer", "arguments", "left"),
    [("y\n", [], 0), ("n\n", [], 2), ("", [], 2), (None, ["--yes"], 0)],
    ids=["yes", "no", "silence", "said before"],
)
async def test_purge_asks_first(
    database: Database, answer: str | None, arguments: list[str], left: int
) -> None:
    await letter(database, ADA)
    await unreadable(database)
    result = await command(database, "purge", "--all", *arguments, answer=answer)
    assert result.exit_code == (1 if left else 0)
    assert ("2 purged" in result.stdout) is not bool(left)
    assert ("Purge?" in result.stdout) is not bool(arguments)
    assert len(await letters(database)) == left


async def test_purge_takes_ids(database: Database) -> None:
    dead, other = await letter(database, ADA), await letter(database, ADA)
    result = await command(database, "purge", dead.id, "--yes")
    assert (result.exit_code, result.stdout) == (0, "1 purged\n")
    assert "purging" in result.stderr
    assert [each.id for each in await letters(database)] == [other.id]


@pytest.mark.parametrize("name", [["redrive"], ["purge", "--yes"]], ids=" ".join)
async def test_what_is_not_clear_is_a_usage_error_and_touches_nothing(
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
