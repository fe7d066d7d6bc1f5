"""Pool and queries: with `migrate` the only place that knows asyncpg. A module per noun."""
