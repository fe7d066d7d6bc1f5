"""Copies in Redis, fast and disposable: wallet snapshots, replays and claims."""
