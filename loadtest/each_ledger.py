"""The steps of a run that are made in each ledger: seed, begin, audit."""

import secrets
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace

from loadtest.api import Api, ServiceError
from loadtest.api_keys import LedgerKey, keys_of
from loadtest.audit import Audit, audit
from loadtest.options import Options
from loadtest.proof.history import History
from loadtest.proof.violations import Violation, Violations
from loadtest.scenarios import SCENARIOS
from loadtest.seeding import Seeding
from loadtest.session import Session
from loadtest.world import World


def api_of(options: Options, token: str, first_host: str) -> Api:
    """Requests with this token, which may only go to the host of the command line.

    Raises ServiceError.
    """
    if not options.host:
        raise ServiceError("no --host: pass the URL of the service, such as http://localhost")
    if token and options.host != first_host:
        raise ServiceError(
            f"the API key is for {first_host or 'no host yet'}: to send it to {options.host} start"
            " Locust with that --host"
        )
    return Api(options.host, token, options.client_timeout_s, insecure=options.insecure)


def seeded(options: Options, first_host: str) -> list[World]:
    """The wallets of each ledger, with the same keys in all of them. Raises ServiceError."""
    run = f"lt-{secrets.token_hex(4)}"

    def world_of(key: LedgerKey) -> World:
        with closing(api_of(options, key.token, first_host)) as api:
            return Seeding(api, options.seed_name, options.currency).world(
                run, options.wallets, options.merchants, SCENARIOS[options.scenario]
            )

    worlds = [world_of(key) for key in keys_of(options)]
    if len({world.wallets[0] for world in worlds}) < len(worlds):
        raise ServiceError("--keys-file has two keys of one ledger")
    return worlds


def begun(
    options: Options, worlds: Sequence[World], log: Callable[[Violation], None], process: str
) -> list[Session]:
    """The session of each ledger in this process."""
    # The master's page can have changed the number of ledgers.
    keys = keys_of(replace(options, ledgers=len(worlds)))
    return [
        Session(
            options,
            world,
            History({name: number for number, name in enumerate(world.wallets)}),
            log,
            process,
            ledger=key.ledger if len(worlds) > 1 else "",
            api_key=key.token,
        )
        for world, key in zip(worlds, keys, strict=True)
    ]


def audited(sessions: Sequence[Session], first_host: str) -> list[Audit]:
    """The audit of each ledger; its violations are recorded. Raises ServiceError."""
    audits = []
    for session in sessions:
        options = session.options
        with closing(api_of(options, session.api_key, first_host)) as api:
            only_sums = options.audit == "sums"
            found = audit(api, session.world, session.history, only_sums=only_sums)
        for violation in found.violations:
            session.violated(violation.kind, violation.text)
        audits.append(found)
    return audits


def violations_of(sessions: Sequence[Session]) -> Violations:
    """The violations in all ledgers."""
    found = Violations()
    for session in sessions:
        found.merge(session.history.violations)
    return found
