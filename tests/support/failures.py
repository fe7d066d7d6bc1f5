"""A plugin of pytest: a failing test does not stop the run; a summary lists all failures."""

from collections.abc import Generator
from traceback import walk_tb
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

_FRAMES = 20
_REASON_CHARS = 500


# `trylast` makes this the innermost wrapper: the wrappers of other plugins get its report.
@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Write a simple report if pytest raises while it makes one.

    pytest parses the source of each frame. The parser can raise RecursionError on deeply nested
    source, and SystemError in CPython 3.11. That would be an internal error and end the run.
    """
    try:
        return (yield)
    except Exception as error:
        return pytest.TestReport(
            nodeid=item.nodeid,
            location=item.location,
            keywords={},
            outcome="failed",
            longrepr=_plain(call.excinfo, error),
            when=call.when,  # type: ignore[arg-type]
            sections=[
                (f"Captured {kind} {when}", text) for when, kind, text in item._report_sections
            ],
            duration=call.duration,
            start=call.start,
            stop=call.stop,
        )


class FileScheduling(LoadFileScheduling):  # type: ignore[misc]
    """The scheduler of `--dist loadfile`, but a test that ends its process is not repeated."""

    def remove_node(self, node: Any) -> Any:
        """Return the test that ran when the process ended, and mark it as done."""
        for file in self.assigned_work[node].values():
            for test, is_over in file.items():
                if not is_over:
                    file[test] = True
                    super().remove_node(node)
                    return test
        return super().remove_node(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileScheduling | None:
    """Replace the scheduler of `--dist loadfile`; keep those of other modes."""
    return FileScheduling(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a line with name and reason for each failed test and each error outside of a test."""
    for kind, name in (("failed", "FAILED"), ("error", "ERROR")):
        for report in terminalreporter.getreports(kind):
            terminalreporter.write_line(f"{name} {report.nodeid} - {_reason(report)}")


def _plain(failure: pytest.ExceptionInfo[BaseException] | None, error: Exception) -> str:
    """The traceback without source lines, and the exception."""
    lines = [f"pytest could not show this failure: {error!r:.200}"]
    if failure is not None:
        frames = [(frame.f_code, number) for frame, number in walk_tb(failure.tb)]
        lines += [
            f"{code.co_filename}:{number}: in {code.co_name}" for code, number in frames[-_FRAMES:]
        ]
        lines.append(failure.exconly(tryshort=True))
    return "\n".join(lines)


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """The reason in one line; the last line of the report if pytest has no message."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else report.longreprtext.rstrip().rpartition("\n")[2]
    return " ".join(text.split())[:_REASON_CHARS]
