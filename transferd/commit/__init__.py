"""Many turns, one transaction."""
