"""What is true: the schema, the queries, migrations and the audit, all in PostgreSQL."""
