"""`make bench`: throughput and latency of the service beside those of other programs.

Each round measures all columns of each row one after the other. The table contains medians. All
servers are private and run on this machine, with fsync on.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import asyncpg
import click
import uvloop

from loadtest.bench.measures import Options, prepare
from loadtest.bench.rows import ROWS, Row
from loadtest.bench.setup import Setup, bench_setup

_SETTINGS = ("server_version", "fsync", "synchronous_commit", "shared_buffers", "max_wal_size")

Found = dict[str, dict[str, list[float]]]


@click.command()
@click.option(
    "--only",
    multiple=True,
    type=click.Choice([row.name for row in ROWS]),
    help="A row to measure; repeatable. The rows of 1,000 ledgers are measured only this way.",
)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--seconds", default=4.0, show_default=True, help="The duration of each measurement.")
@click.option("--connections", default=128, show_default=True, type=click.IntRange(1))
@click.option(
    "--wallets", default=1_000_000, show_default=True, help="Wallets of the large ledger."
)
@click.option(
    "--transfers", default=10_000_000, show_default=True, help="Transfers of the large ledger."
)
@click.option(
    "--out",
    default="reports/bench",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder of bench.json and bench.svg.",
)
def main(  # noqa: PLR0917 click passes them by name
    only: tuple[str, ...],
    rounds: int,
    seconds: float,
    connections: int,
    wallets: int,
    transfers: int,
    out: Path,
) -> None:
    """Measure the service beside a row-locking handler, pgbench and bare aiohttp."""
    rows = _chosen(only)
    options = Options(seconds, connections, wallets, transfers, rate=0.0)
    found, settings = uvloop.run(_measure(rows, rounds, options))
    report = _report(rows, found, settings, rounds, options)
    _print(report)
    out.mkdir(parents=True, exist_ok=True)
    (out / "bench.json").write_text(json.dumps(report, indent=2) + "\n")
    _plot(report, out / "bench.svg")
    click.echo(f"\nwritten: {out / 'bench.json'} and {out / 'bench.svg'}")


def _chosen(only: Iterable[str]) -> list[Row]:
    """The chosen rows, and the rows whose medians they need. By default all that are not long."""
    wanted = set(only) or {row.name for row in ROWS if not row.long}
    for row in ROWS:
        if row.name in wanted:
            wanted |= set(row.needs)
    return [row for row in ROWS if row.name in wanted]


async def _measure(rows: list[Row], rounds: int, options: Options) -> tuple[Found, dict[str, str]]:
    found: Found = {row.name: {} for row in rows}
    steps = sum(1 if row.once else rounds for row in rows)
    async with bench_setup() as setup:
        with click.progressbar(length=steps, label="starting", show_eta=True) as bar:
            await prepare(setup, for_zipf="zipf" in found)
            for number in range(rounds):
                for row in rows:
                    if row.once and number:
                        continue
                    bar.label = f"round {number + 1}: {row.name:<13}"
                    bar.render_progress()
                    for column, value in (await row.measure(setup, options)).items():
                        found[row.name].setdefault(column, []).append(value)
                    if row.name == "uniform":
                        options = options._replace(
                            rate=statistics.median(found["uniform"]["transferd"])
                        )
                    bar.update(1)
        return found, await _settings(setup)


async def _settings(setup: Setup) -> dict[str, str]:
    """The machine, and the settings that affect the figures."""
    connection = await asyncpg.connect(setup.postgres.superuser_url)
    values = {name: await connection.fetchval(f"SHOW {name}") for name in _SETTINGS}
    await connection.close()
    return {
        "when": time.strftime("%Y-%m-%d"),
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "processor": _processor(),
        "system": platform.platform(terse=True),
        "Python": platform.python_version(),
        **{f"PostgreSQL {name}": value for name, value in values.items()},
        "servers": f"{setup.postgres.origin}; {setup.redis.origin}",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return next(names, "unknown")


def _report(
    rows: list[Row], found: Found, settings: dict[str, str], rounds: int, options: Options
) -> dict[str, Any]:
    medians = {
        row: {column: statistics.median(values) for column, values in columns.items()}
        for row, columns in found.items()
    }
    return {
        "machine": settings,
        "settings": {
            "rounds": rounds,
            "seconds": options.seconds,
            "connections": options.connections,
            "wallets of the large ledger": options.wallets,
            "transfers of the large ledger": options.transfers,
        },
        "rows": [
            {
                "name": row.name,
                "what": row.what,
                "unit": row.unit,
                "medians": medians[row.name],
                "rounds": found[row.name],
                "figures": [
                    {
                        "what": figure.what,
                        "value": figure.of(medians),
                        "at_least": figure.at_least,
                        "at_most": figure.at_most,
                        "unit": figure.unit,
                        "is_reached": figure.is_reached(figure.of(medians)),
                    }
                    for figure in row.figures
                ],
            }
            for row in rows
        ],
    }


def _print(report: dict[str, Any]) -> None:
    machine = report["machine"]
    click.echo(
        f"\n{machine['processor']}, {machine['cores']} cores, {machine['memory']}; ", nl=False
    )
    click.echo(f"{machine['system']}; Python {machine['Python']}; {machine['servers']}")
    click.echo(", ".join(f"{name} {value}" for name, value in report["settings"].items()))
    for row in report["rows"]:
        columns = "  ".join(f"{name} {_short(v)}" for name, v in row["medians"].items())
        click.echo(f"\n{row['what']}  [{row['name']}]")
        click.echo(f"    {columns}  {row['unit']}")
        for figure in row["figures"]:
            number = f"{_short(figure['value'])}{figure['unit']}"
            click.echo(f"    {figure['what']:<24}{number:>14}  {_verdict(figure)}".rstrip())


def _verdict(figure: dict[str, Any]) -> str:
    """The bound of a figure and whether it is reached; nothing without a bound."""
    if figure["at_least"] is not None:
        bound = f">= {figure['at_least']:g}"
    elif figure["at_most"] is not None:
        bound = f"<= {figure['at_most']:g}"
    else:
        return ""
    return f"{bound:<8} {'reached' if figure['is_reached'] else 'NOT REACHED'}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def _plot(report: dict[str, Any], path: Path) -> None:
    """Write an SVG with a group of bars for each row that is a rate."""
    # The import takes a second, and only this function needs it.
    from matplotlib.figure import Figure

    rates = [row for row in report["rows"] if row["unit"].endswith("/s")]
    if not rates:
        return
    figure = Figure(figsize=(8, 1 + 0.9 * len(rates)), layout="constrained")
    axes = figure.subplots()
    labels: list[str] = []
    for row in reversed(rates):
        for column, value in reversed(row["medians"].items()):
            labels.append(f"{row['name']}: {column}")
            own = column in ("transferd", "large")
            axes.barh(len(labels), value, color="tab:blue" if own else "tab:gray")
            axes.annotate(f" {value:,.0f}", (value, len(labels)), va="center", fontsize=8)
    axes.set_yticks(range(1, len(labels) + 1), labels, fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel("per second (logarithmic)")
    axes.set_title(f"transferd on {report['machine']['cores']} cores, medians")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


if __name__ == "__main__":
    main()
