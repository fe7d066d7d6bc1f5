"""The record of a run, and the rules that it must satisfy. Pure functions.

The chaos test records every request with all its tries and reads the ledger from PostgreSQL. The
load test keeps a bounded history and reads statements through the API. Both apply the same rules.
"""
