"""`make chaos`: rounds with a fault under load, and a check after each round.

`python -m tests.fault.chaos --help` lists the options.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import orjson

from tests.fault.chaos.faults import FAULTS
from tests.fault.chaos.protections import PROTECTIONS, Protection
from tests.fault.chaos.races import RACES
from tests.fault.chaos.rounds import Result, RoundOptions, chaos_runner, table
from tests.fault.chaos.topology import chaos_deployment
from transferd.devstack import StackError

# Takes more than a minute, so it runs only with --fault.
_LONG = "outage-rabbitmq-60"


@click.command()
@click.option("--rounds", default=1, show_default=True, help="Rounds of each fault.")
@click.option("--seed", default=1, show_default=True, help="The seed of the first round.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    type=click.Choice([*FAULTS, *RACES]),
    help="The fault or race; may be repeated. Without it: all except the longest outage.",
)
@click.option(
    "--without",
    type=click.Choice(list(PROTECTIONS)),
    help="Remove this protection, and run the fault that causes damage without it.",
)
@click.option("--report", "file", default="reports/chaos/chaos.json", show_default=True)
@click.option(
    "--ledgers",
    default=8,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Ledgers that have load at the same time. A race has its size in all of them together.",
)
@click.option("--limits", default="", help="For TRANSFERD_LIMITS, such as group_envelopes_max=1.")
def main(
    *,
    rounds: int,
    seed: int,
    faults: Sequence[str],
    without: str | None,
    file: str,
    ledgers: int,
    limits: str,
) -> None:
    """Cause faults under load, and check that no transfer is lost, executed twice or invented.

    The exit code is 1 if there was a violation. The output has the command that repeats its round.
    """
    removed = PROTECTIONS[without] if without else None
    usual = [removed.fault] if removed else [*(each for each in FAULTS if each != _LONG), *RACES]
    report = Path(file)
    report.parent.mkdir(parents=True, exist_ok=True)
    try:
        running = _run(list(faults) or usual, rounds, seed, ledgers, limits, removed, report)
        results = asyncio.run(running)
    except StackError as error:
        raise click.ClickException(str(error)) from None
    click.echo("\n" + "\n".join(table(results)))
    wrong = [result for result in results if result.violations]
    for result in wrong:
        for violation in result.violations:
            click.secho(
                f"{result.fault}, seed {result.seed}: {violation.kind}: {violation.text}", fg="red"
            )
    for result in wrong:
        again = f"--fault {result.fault} --seed {result.seed} --rounds 1 --ledgers {ledgers}"
        again += f" --without {without}" if without else ""
        click.echo(f'to repeat: make chaos ARGS="{again}"')
    click.echo(f"{len(results)} rounds, {len(wrong)} with violations; {file}")
    sys.exit(bool(wrong))


async def _run(  # noqa: PLR0917 one caller
    names: Sequence[str],
    rounds: int,
    seed: int,
    ledgers: int,
    limits: str,
    removed: Protection | None,
    report: Path,
) -> list[Result]:
    """Run all rounds. The report is written after each, so an interrupted run has its results."""
    results = []
    options = RoundOptions()
    if removed is not None:
        click.echo(f"without {removed.name}: {removed.removed}")
        # A service without a protection may not recover, so the waits are short.
        options = replace(options, settle_s=5.0, events_s=5.0, **removed.load)
    with tempfile.TemporaryDirectory(prefix="transferd-chaos-") as name:
        async with (
            chaos_deployment(
                Path(name), ledgers=ledgers, limits=limits, report=click.echo
            ) as deployment,
            chaos_runner(deployment) as runner,
        ):
            for fault, number in ((each, n) for n in range(rounds) for each in names):
                if removed is not None:
                    await runner.recreate(removed.layers)
                began_s = time.monotonic()
                if fault in RACES:
                    result = await runner.run_race(
                        fault, seed + number, size=1 / ledgers, options=options
                    )
                else:
                    result = await runner.run_fault(fault, seed + number, options=options)
                results.append(result)
                _print(result, time.monotonic() - began_s)
                _save(results, report)
    return results


def _save(results: Sequence[Result], report: Path) -> None:
    report.write_bytes(orjson.dumps(results, option=orjson.OPT_INDENT_2))


def _print(result: Result, seconds: float) -> None:
    back = "" if result.recovery_s is None else f" back after {result.recovery_s:.2f} s,"
    text = (
        f"{result.fault} (seed {result.seed}): {result.what}; {result.acknowledged:,} acknowledged"
        f" in {result.ledgers} ledger{'s' if result.ledgers > 1 else ''},"
        f" {result.unknown} without answer, {result.failed} with a 5xx,{back}"
        f" {result.events:,} events; {seconds:.0f} s"
    )
    wrong = f"; {len(result.violations)} VIOLATIONS" if result.violations else ""
    click.secho(text + wrong, fg="red" if wrong else None)


if __name__ == "__main__":
    main()
