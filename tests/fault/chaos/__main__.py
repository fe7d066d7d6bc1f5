"""`make chaos`: rounds of faults under load, each checked; python -m tests.fault.chaos --help."""

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
from tests.fault.chaos.rounds import Pace, Result, stage, table
from tests.fault.chaos.topology import chaos_topology
from transferd.devstack import StackError

# Each takes a minute and more; --fault names it.
_LONG = "outage-rabbitmq-60"


@click.command()
@click.option("--rounds", default=1, show_default=True, help="Of each fault.")
@click.option("--seed", default=1, show_default=True, help="Of the first round; then one more.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    type=click.Choice([*FAULTS, *RACES]),
    help="Which one; may be repeated. Without it all but the longest outage.",
)
@click.option(
    "--without",
    type=click.Choice(list(PROTECTIONS)),
    help="Take this protection out of the service, and play the fault that shows what it is for.",
)
@click.option("--report", "file", default="reports/chaos/chaos.json", show_default=True)
@click.option("--limits", default="", help="For TRANSFERD_LIMITS, such as group_envelopes_max=1.")
def main(
    *, rounds: int, seed: int, faults: Sequence[str], without: str | None, file: str, limits: str
) -> None:
    """Break things under load: is no acknowledged transfer lost, doubled or invented?

    The exit code is 1 if anything was wrong; the seed of that round plays it again.
    """
    removed = PROTECTIONS[without] if without else None
    usual = [removed.fault] if removed else [*(each for each in FAULTS if each != _LONG), *RACES]
    report = Path(file)
    report.parent.mkdir(parents=True, exist_ok=True)
    try:
        results = asyncio.run(
            _play(list(faults) or usual, rounds, seed, limits, removed=removed, report=report)
        )
    except StackError as error:
        raise click.ClickException(str(error)) from None
    click.echo("\n" + "\n".join(table(results)))
    for result in results:
        for violation in result.violations:
            click.secho(
                f"{result.fault}, seed {result.seed}: {violation.kind}: {violation.text}", fg="red"
            )
    wrong = [result for result in results if not result.passed]
    for result in wrong:
        again = f"--fault {result.fault} --seed {result.seed} --rounds 1"
        again += f" --without {without}" if without else ""
        click.echo(f'once more: make chaos ARGS="{again}"')
    click.echo(f"{len(results)} rounds, {len(wrong)} with violations; {file}")
    sys.exit(bool(wrong))


async def _play(
    names: Sequence[str],
    rounds: int,
    seed: int,
    limits: str,
    *,
    removed: Protection | None,
    report: Path,
) -> list[Result]:
    """All rounds; the report is written after each, so that hours are not lost with the last."""
    results = []
    pace = Pace()
    if removed is not None:
        click.echo(f"without {removed.name}: {removed.removed}")
        # What is broken for good is not worth a long wait.
        pace = replace(pace, settle_s=5.0, events_s=5.0, **removed.load)
    with tempfile.TemporaryDirectory(prefix="transferd-chaos-") as name:
        async with (
            chaos_topology(Path(name), limits=limits, report=click.echo) as topology,
            stage(topology) as stand,
        ):
            for fault, number in ((each, n) for n in range(rounds) for each in names):
                if removed is not None:
                    await stand.renew(removed.layers)
                began_s = time.monotonic()
                if fault in RACES:
                    result = await stand.race(fault, seed + number)
                else:
                    result = await stand.play(fault, seed + number, lambda _: None, pace=pace)
                results.append(result)
                _tell(result, time.monotonic() - began_s)
                _save(results, report)
    return results


def _save(results: Sequence[Result], report: Path) -> None:
    found = [result.to_json() for result in results]
    report.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))


def _tell(result: Result, seconds: float) -> None:
    back = "" if result.recovery_s is None else f" back after {result.recovery_s:.2f} s,"
    text = (
        f"{result.fault} (seed {result.seed}): {result.what}; {result.acknowledged:,} acknowledged,"
        f" {result.unknown} without answer, {result.failed} with a 5xx,{back}"
        f" {result.events:,} events; {seconds:.0f} s"
    )
    wrong = f"; {len(result.violations)} VIOLATIONS" if result.violations else ""
    click.secho(text + wrong, fg="red" if wrong else None)


if __name__ == "__main__":
    main()
