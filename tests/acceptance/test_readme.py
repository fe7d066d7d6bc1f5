"""The commands, examples, limits and links of README.md are right."""

import re
import shlex
from functools import partial

import aiohttp
import pytest
from click.testing import CliRunner

from tests.conftest import Database, Replicas, Workers
from tests.support.api import Api
from tests.support.command import run, running
from tests.support.contract import ApiWithKey
from tests.support.project import README
from tests.support.readme_walk import README_URL, take, walk_in, walk_moves_money
from tests.support.waiting import until
from transferd.cli import main
from transferd.config import Limits
from transferd.domain.api_key import SCOPES

_CALL = re.compile(r"`(GET|POST|PATCH|DELETE) (/[\w/{}.-]*)`")


def readme() -> str:
    return README.read_text(encoding="utf-8")


def settings_of(database: Database) -> dict[str, str]:
    """The settings that README.md describes, with the database of this test."""
    return database.variables()


def shell_lines(markdown: str) -> list[str]:
    """The commands in the fenced blocks for a shell, one a line, without prompts."""
    found: list[str] = []
    for block in re.findall(r"^```(?:sh|console)\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL):
        lines = block.replace("\\\n", " ").splitlines()
        # Where some lines have a prompt, the others are output.
        found += [line[2:] for line in lines if line.startswith("$ ")] or lines
    return found


def documented_commands() -> list[list[str]]:
    """The words after `transferd` in README.md and docs/notifications.md, each command once."""
    text = readme() + (README.parent / "docs/notifications.md").read_text(encoding="utf-8")
    inline = re.findall(r"`(transferd [^`]+)`", text)
    found = set()
    for line in [*shell_lines(text), *inline]:
        match = re.search(r"(?:^|[/ ])transferd ([^;&|#<>]+)", line)
        if match and not line.startswith("#"):
            found.add(tuple(shlex.split(match[1])))
    return [list(each) for each in sorted(found)]


async def test_the_walk_moves_money(api: Api) -> None:
    receiver = await walk_moves_money(walk_in().replace(README_URL, api.url))
    assert await api.balance(receiver) == 2500


async def test_a_walk_that_does_not_work_is_noticed(api: Api) -> None:
    # The port may contain the number, so the address is put in afterwards.
    for old, new, walk in (
        ('"currency": "USD", "initial_balance"', '"initial_balance"', take),
        ("2500", "2501", walk_moves_money),
    ):
        text = walk_in().replace(old, new)
        with pytest.raises(AssertionError):
            await walk(text.replace(README_URL, api.url))


async def test_the_example_of_a_hotel_works(api: Api) -> None:
    walk = walk_in(README.parent / "docs/holds.md").replace(README_URL, api.url)
    adjusted, _, _, released, guest, refused, at_the_end = await take(walk)
    assert (adjusted["amount"], released["captured"], released["released"]) == (
        60_000,
        48_000,
        12_000,
    )
    for shown in (guest, at_the_end):
        assert (shown["balance"], shown["held"], shown["available"]) == (52_000, 0, 52_000)
    assert refused["code"] == "hold-expired"


def test_every_documented_command_works(database: Database) -> None:
    settings = settings_of(database)
    documented = documented_commands()
    assert ["ledgers", "audit"] in documented
    assert ["migrate"] in documented
    assert ["keys", "list"] in documented
    for words in documented:
        if words[0] in ("dev", "serve", "worker"):
            # These run until they are stopped. With --help they refuse unknown options too.
            assert CliRunner().invoke(main, [*words, "--help"]).exit_code == 0, words
            continue
        result = CliRunner().invoke(main, words, env=settings)
        assert result.exit_code == 0, f"transferd {' '.join(words)}: {result.output}"
        assert result.output.strip()


def test_an_unknown_option_is_refused_beside_help() -> None:
    assert CliRunner().invoke(main, ["serve", "--prot", "1", "--help"]).exit_code == 2


def test_every_documented_target_of_make_exists() -> None:
    documented = re.findall(r"^make ([\w-]+)", "\n".join(shell_lines(readme())), re.MULTILINE)
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    assert set(documented) <= set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    assert "test" in documented


async def test_the_api_key_of_the_readme_has_the_scopes_that_it_names(
    database: Database, replicas: Replicas
) -> None:
    [words] = [words for words in documented_commands() if words[:2] == ["keys", "create"]]
    code, output = await run(*words, settings=settings_of(database))
    assert code == 0
    token = output.splitlines()[-1]
    shop = ApiWithKey(await replicas.start(auth="on"), token)
    scopes = {words[at + 1] for at, word in enumerate(words) if word == "--scope"}
    assert (await shop.get("/users")).status == (200 if "wallets:read" in scopes else 403)
    assert (await shop.post("/users", {})).code == "forbidden"
    assert set(SCOPES) <= set(re.findall(r"`([a-z:]+)`", readme()))


async def test_every_documented_worker_becomes_ready(workers: Workers, database: Database) -> None:
    settings = settings_of(database) | {
        "TRANSFERD_AMQP_URL": workers.amqp_url,
        "TRANSFERD_AMQP_PREFIX": workers.prefix,
        "TRANSFERD_WORKER_PORT": "0",
    }
    documented = [words for words in documented_commands() if words[0] == "worker"]
    assert ["worker"] in documented
    for words in documented:
        async with (
            running(*words, settings=settings) as command,
            aiohttp.ClientSession() as session,
        ):
            await command.says("/readyz")

            async def is_ready(session: aiohttp.ClientSession, url: str) -> bool:
                async with session.get(f"{url}/readyz") as reply:
                    return reply.status == 200

            await until(partial(is_ready, session, command.url))


async def test_the_table_of_calls_is_complete(api: Api) -> None:
    document = (await api.get("/openapi.json")).json
    served = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    section = readme().partition("## The API\n")[2].partition("\n## ")[0]
    named = set(_CALL.findall(section))
    operations = {call for call in named if call[1].count("/") == 1 and call[0] == "GET"}
    assert named >= served
    for _, path in operations - served:
        assert (await api.get(path)).status == 200, path
    assert named - operations <= served


def test_the_limits_in_the_readme_are_those_of_the_code() -> None:
    limits = Limits()
    text = " ".join(readme().split())
    for bound in (
        f"mailbox holds {limits.mailbox_envelopes_max} requests",
        f"a replica {limits.backlog_max} ",
        f"a group {limits.group_envelopes_max};",
        f"within {limits.request_deadline_s:g} seconds",
        f"at most {limits.body_bytes_max // 1024} KiB",
        f"its metadata {limits.metadata_bytes_max // 1024} KiB",
        f"refused within {limits.api_key_cache_s:g} seconds",
    ):
        assert bound in text


def test_the_targets_of_all_links_exist() -> None:
    for page in (*README.parent.glob("*.md"), *README.parent.glob("docs/*.md")):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if not target.startswith("https://"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readme_lists_every_document() -> None:
    documents = {f"docs/{page.name}" for page in README.parent.glob("docs/*.md")}
    assert "docs/configuration.md" in documents
    assert documents <= set(re.findall(r"\]\((docs/[\w-]+\.md)\)", readme()))
