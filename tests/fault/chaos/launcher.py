"""`transferd` as chaos runs it: `python -m ... FILE NAMES serve`.

FILE moves its clock (see `skewed`), NAMES are the layers of its protections that it has to do
without, with commas between them; mostly there are none.
"""

import sys
from pathlib import Path

from tests.fault.chaos.skewed import skew


def main() -> None:
    """Skew, and only then import the service: its modules take `datetime` when they are loaded."""
    skew(Path(sys.argv.pop(1)))
    names = sys.argv.pop(1)
    if names:
        from tests.fault.chaos.removals import remove

        remove(names.split(","))
    from transferd.cli import main as transferd

    transferd(prog_name="transferd")


if __name__ == "__main__":
    main()
