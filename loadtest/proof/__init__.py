"""The proof of a run: its record, and the rules for it. Pure functions.

Chaos records every request with all its tries and reads the ledger from PostgreSQL. The load test
keeps a bounded history and reads statements through the API. Both apply the same rules.
"""
