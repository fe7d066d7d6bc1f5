"""`python -m transferd`: the same as `transferd`."""

from transferd.cli import main

main()
