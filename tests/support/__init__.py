"""Helpers that several test files use. A helper of one test file belongs in that file.

Running a test
    servers: PostgreSQL and Redis of a run; a database for each test.
    pgbouncer: a PgBouncer in transaction mode before PostgreSQL.
    memory: a directory in memory for servers; the resident memory of processes.
    waiting: waiting for conditions; how long deadlines are on this machine.
    configurations: the configurations in which the tests run.
    configuration_option: the option `--configuration` of pytest.
    every_configuration: `make test-configurations`.
    failures: a plugin of pytest that names all failures at the end.
    project: paths of the project.

The service
    api: a client of the HTTP API.
    contract: API keys, raw requests, footprints of a database, invalid requests.
    probes: requests for every operation, with gaps for values.
    events: a client of event streams.
    raw_http: clients that send raw bytes, slowly or wrongly.
    pressure: many calls at once; rows that another session locks.
    command: `transferd` and other programs as processes.
    live: a replica for synchronous tests.
    topology: replicas behind Nginx, as processes.
    request_reader: the reader of request bodies, without a connection.
    json_spellings: other spellings of the same JSON values.
    ledger_model: a model of a ledger to compare the service with.
    load: payments, with a record of the acknowledged and the unknown outcomes.
    past: reads of past balances and statements; a change that is not committed yet.
    truth: checks of the ledger in PostgreSQL, without the service.
    damage: requests that fill a ledger, and every kind of damage to it.

Notifications
    outbox, deliveries, endpoints: rows as replicas and notifiers write them.
    notifying: a worker with receivers.
    receivers: a receiver of webhooks.
    webhook_sink: a webhook sink, and receivers that send raw bytes.
    queues: the queues of the broker.

Faults
    proxy, links, full_disk: a TCP proxy with faults.
    faulty_front: an HTTP proxy with faults.

Tools and documents
    browser: Chromium, driven by Playwright.
    openapi_tools: linters, generators and type checkers for the OpenAPI document.
    contract_checks: checks of schemathesis.
    promql, watching: the rules and dashboards of deploy/observability.
    trace_collector: a collector of traces.
    locusts, locust_stats: the load test as a process; Locust's statistics without Locust.
    settings_table: the table of settings in docs/configuration.md.
    readme_walk: the walk through the API in README.md.
    serving: a web application on a free port.
"""
