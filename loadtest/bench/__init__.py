"""Benchmark of the service against a row-locking handler that does the same work."""
