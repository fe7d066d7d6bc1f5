"""The report of a run as JSON, and Locust's counts for the verdict."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from loadtest.audit import Audit
from loadtest.options import Options
from loadtest.verdict import Calls, Verdict, latencies, to_json


@dataclass
class Report:
    """The results of a run. `seconds`: how long users ran."""

    options: Options
    verdict: Verdict
    audit: Audit
    calls: Sequence[Calls]
    seconds: float
    users: int
    cpu: dict[str, float]
    server: dict[str, Any]
    # The name of each ledger, its audit and the number of its violations, if there are several.
    ledgers: Sequence[tuple[str, Audit, int]] = ()

    def to_json(self) -> dict[str, Any]:
        """The content of the file of --verdict."""
        requests = self.verdict.requests
        return {
            "scenario": self.options.scenario,
            "shape": self.options.shape,
            "host": self.options.host,
            "seconds": round(self.seconds, 1),
            "users": self.users,
            **to_json(self.verdict),
            "refused": self._counted("refused"),
            "turned_away": self._counted("turned away"),
            "requests_per_s": self._per_s(requests),
            "transfers_per_s": self._per_s(self.audit.acknowledged),
            "latencies_ms": latencies(self.calls),
            "audit": self.audit.to_json(),
            "ledgers": [
                {
                    "ledger": name,
                    "violations": violations,
                    "transfers_per_s": self._per_s(audit.acknowledged),
                    "audit": audit.to_json(),
                }
                for name, audit, violations in self.ledgers
            ],
            "client": self.cpu,
            "server": self.server,
        }

    def _per_s(self, count: int) -> float:
        return round(count / self.seconds, 1) if self.seconds else 0.0

    def _counted(self, suffix: str) -> int:
        return sum(each.requests for each in self.calls if f"({suffix})" in each.name)


def calls_of(stats: Any) -> list[Calls]:
    """Locust's counts for each name and method."""
    return [
        Calls(method, name, entry.num_requests, entry.num_failures, dict(entry.response_times))
        for (name, method), entry in stats.entries.items()
    ]


def write(report: Report, file: str) -> None:
    """Write it as JSON, and create the folder."""
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(report.to_json(), option=orjson.OPT_INDENT_2))
