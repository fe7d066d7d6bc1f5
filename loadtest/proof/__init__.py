"""The proof of a run: what was recorded, and the rules that it has to keep. Pure.

Chaos records every request with all its tries and reads the ledger from PostgreSQL. The load test
keeps a bounded history and reads statements through the API. Both apply the same rules.
"""
