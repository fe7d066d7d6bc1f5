"""A plugin of pytest: the option `--configuration` and the marker `needs_configuration`."""

from collections import Counter
from typing import Any

import pytest

from tests.support.configurations import CONFIGURATIONS, NEEDS, lacking

_DESELECTED = pytest.StashKey[dict[str, int]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--configuration",
        choices=list(CONFIGURATIONS),
        default="plain",
        help="the configuration of the servers and the service in the tests",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.stash[_DESELECTED] = {}
    config.addinivalue_line(
        "markers",
        "needs_configuration(what, why): deselected in each configuration that lacks it: "
        + ", ".join(sorted(NEEDS)),
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests whose requirements this run does not meet."""
    lacks = lacking(config)
    kept, out, reasons = [], [], Counter[str]()
    for item in items:
        for marker in item.iter_markers("needs_configuration"):
            if marker.args[0] not in NEEDS:
                raise pytest.UsageError(f"{item.nodeid} needs {marker.args[0]!r}, which is unknown")
            if marker.args[0] in lacks:
                reasons[f"{marker.args[0]}: {marker.kwargs['why']}"] += 1
                out.append(item)
                break
        else:
            kept.append(item)
    items[:] = kept
    config.stash[_DESELECTED] = reasons
    config.hook.pytest_deselected(items=out)
    if hasattr(config, "workeroutput"):
        config.workeroutput["deselected"] = dict(reasons)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the counts from a process of pytest-xdist: all deselect the same tests.

    The process that prints the summary collects no tests, so it has no counts.
    """
    if "deselected" in getattr(node, "workeroutput", {}):
        node.config.stash[_DESELECTED] = node.workeroutput["deselected"]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print how many tests were deselected, and why."""
    for why, count in sorted(config.stash[_DESELECTED].items()):
        terminalreporter.write_line(f"DESELECTED [{count}] needs {why}")
