"""`make loadtest`: load-test a running service, or a private one that it starts.

python -m loadtest --scenario mixed --shape steps
"""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import NamedTemporaryFile

import click

from loadtest.ledgers import KeyedLedger
from loadtest.scenarios import SCENARIOS
from loadtest.shapes import SHAPES
from loadtest.topology import private_deployment
from transferd.devstack import StackError

_LOCUSTFILE = Path(__file__).with_name("locustfile.py")
# Two cores can serve this many users.
_USERS = 50


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--scenario", type=click.Choice(list(SCENARIOS)), default="mixed", show_default=True)
@click.option("--shape", type=click.Choice(list(SHAPES)), default="constant", show_default=True)
@click.option(
    "--host", default="", help="The URL of a running service; default: start a private one."
)
@click.option("--replicas", default=2, show_default=True, help="Replicas of the private service.")
@click.option(
    "--users", default=_USERS, show_default=True, help="The largest number of users at a time."
)
@click.option(
    "--ledgers",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Ledgers with clients, wallets and users of their own; see --keys-file for a --host.",
)
@click.option("--ui", is_flag=True, help="Show Locust's web page instead of starting a run.")
@click.option("--reports", default="reports", show_default=True, help="Folder for the reports.")
@click.option(
    "--options",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda context, _, wanted: _list_options(context) if wanted else None,
    help="List the options of the suite that MORE can contain.",
)
@click.argument("more", nargs=-1, type=click.UNPROCESSED)
def main(
    *,
    scenario: str,
    shape: str,
    host: str,
    replicas: int,
    users: int,
    ledgers: int,
    ui: bool,
    reports: str,
    more: tuple[str, ...],
) -> None:
    """Load-test transferd. MORE options go to Locust: see `locust --help`."""
    name = f"{scenario}-{shape}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    folder = Path(reports, name)
    folder.mkdir(parents=True, exist_ok=True)
    arguments = ["--scenario", scenario, "--shape", shape, "--users", str(users)]
    arguments += ["--ledgers", str(ledgers)]
    # The page can start load on any host, so by default only this machine can open it.
    arguments += ["--web-host", "127.0.0.1"] if ui else []
    arguments += ["--verdict", str(folder / "verdict.json"), *more]
    if not ui:
        arguments += ["--headless", "--html", str(folder / "report.html")]
        arguments += ["--csv", str(folder / "stats"), "--json-file", str(folder / "requests")]
    try:
        code = asyncio.run(_run(host, replicas, ledgers, folder, arguments))
    except StackError as error:
        raise click.ClickException(str(error)) from None
    except asyncio.CancelledError:
        raise click.ClickException("stopped before the load test began") from None
    click.echo(f"reports: {folder}", err=True)
    sys.exit(code)


def _list_options(context: click.Context) -> None:
    # The import of Locust takes a second, and gevent patches `socket` and `time` in this process.
    from locust.argument_parser import LocustArgumentParser

    from loadtest.options import add_options

    parser = LocustArgumentParser(add_help=False, usage="make loadtest ARGS=...")
    add_options(parser)
    click.echo(parser.format_help())
    context.exit()


@contextmanager
def _keys_file(ledgers: Sequence[KeyedLedger]) -> Iterator[str]:
    """The name of a file with the keys, which only this user can read."""
    with NamedTemporaryFile("w", prefix="transferd-keys-") as file:
        file.writelines(f"{each.ledger.name} {each.token}\n" for each in ledgers)
        file.flush()
        yield file.name


async def _run(host: str, replicas: int, ledgers: int, folder: Path, arguments: list[str]) -> int:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    environment = dict(os.environ)
    if not host:
        # The private service requires no key, and refuses an unknown one.
        environment.pop("TRANSFERD_API_KEY", None)
    async with AsyncExitStack() as exits:
        ours: list[str] = []
        if not host:
            deployment = await exits.enter_async_context(
                private_deployment(
                    replicas, ledgers, folder, lambda line: click.echo(line, err=True)
                )
            )
            host = deployment.url
            for program in deployment.programs.values():
                ours += ["--metrics-url", program.address]
            if ledgers > 1:
                ours += ["--keys-file", exits.enter_context(_keys_file(deployment.ledgers))]
        locust = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "locust", "--locustfile", str(_LOCUSTFILE)),
            *("--host", host, *ours, *arguments),
            env=environment,
        )
        # Ctrl-C reaches Locust as well, which ends the run with its verdict. Wait for that.
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        loop.add_signal_handler(signal.SIGTERM, locust.terminate)
        return await locust.wait()


if __name__ == "__main__":
    main()
