"""The ledger in PostgreSQL: schema, migrations, queries and audit."""
