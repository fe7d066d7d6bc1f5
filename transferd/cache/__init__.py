"""The cache in Redis: wallet snapshots, replays and claims. Losing it loses no data."""
