"""What is fast and may vanish: wallet snapshots, replays and claims in Redis."""
