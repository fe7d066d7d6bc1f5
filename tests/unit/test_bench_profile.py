"""The stages of the profiler name functions of the service."""

from pathlib import Path

import transferd
from loadtest.bench.profile import STAGES


def test_every_function_that_the_stages_name_exists() -> None:
    package = Path(transferd.__file__).parent
    code = "".join(path.read_text() for path in package.rglob("*.py"))
    own = {"Call", "Router", "Envelope", "Gate", "Committer", "Replays", "Book", "Rendering"}
    for _, parts in STAGES:
        for part in parts:
            name, _, method = part.partition(".")
            if name in own:
                assert f"class {name}" in code, part
                assert not method or f"def {method}(" in code, part
            elif part.endswith(" (") or part in {"events_of", "_write_group"}:
                assert f"def {part.removesuffix(' (')}(" in code, part
