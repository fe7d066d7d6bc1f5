"""docker-compose.yml: valid and restrictive; its commands and environments work on real servers.

The machine of the tests may have no container engine, so the commands run without containers.
"""

import asyncio
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import pytest
import yaml

from loadtest.front import program
from tests.conftest import Database
from tests.support.api import Api
from tests.support.command import TRANSFERD, Command, running
from tests.support.project import README
from tests.support.truth import row_count
from tests.support.waiting import until
from transferd.devstack import RabbitServer
from transferd.devstack.ports import free_port

ROOT = README.parent
OURS = {"migrate", "app", "worker"}
PROFILES = ("--profile", "loadtest", "--profile", "observability", "--profile", "citus")
# They end.
JOBS = {"migrate", "citus-nodes"}


def config(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`docker-compose config`: the file with everything filled in."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        ["docker-compose", *arguments, "config"],
        cwd=ROOT,
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """All services as an engine would see them."""
    done = config(*PROFILES)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = yaml.safe_load(done.stdout)["services"]
    return found


def test_grafana_finds_its_dashboards_where_the_files_are_mounted(
    services: dict[str, Any],
) -> None:
    provider = ROOT / "deploy/observability/grafana/provisioning/dashboards/transferd.yml"
    path = yaml.safe_load(provider.read_text())["providers"][0]["options"]["path"]
    mounts = [mount.split(":") for mount in services["grafana"]["volumes"]]
    sources = {target: source for source, target, *_ in mounts}
    assert list(Path(sources[path]).glob("*.json"))


def test_the_compose_file_has_the_whole_topology(services: dict[str, Any]) -> None:
    assert {"locust", "locust-worker", "prometheus", "grafana", "alertmanager"} <= set(services)
    plain = {name for name, service in services.items() if "profiles" not in service}
    assert plain == {"app", "worker", "db", "redis", "rabbitmq", "nginx", "migrate"}


def test_every_service_has_limits_a_health_check_and_few_rights(services: dict[str, Any]) -> None:
    for name, service in services.items():
        limits = service["deploy"]["resources"]["limits"]
        assert limits["memory"], name
        assert limits["cpus"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True, name
        # A job that ends needs no health check.
        assert ("healthcheck" in service) is (name not in JOBS), name
        assert service["image"].rpartition(":")[2][0].isdigit() or ":v" in service["image"], name
        if "build" not in service and not service["image"].startswith("transferd"):
            assert service.get("user", "root") != "root", name


def test_our_image_does_not_run_as_root_and_pins_its_base() -> None:
    text = (ROOT / "Dockerfile").read_text()
    final = text.rpartition("\nFROM ")[2]
    assert "\nUSER 10001" in final
    for line in text.splitlines():
        if line.startswith("FROM python"):
            assert line.split()[1] == "python:3.12.8-slim-bookworm"
    assert "-c constraints.txt" in text


def test_outside_of_development_nothing_has_a_default_password(tmp_path: Path) -> None:
    own = tmp_path / "production.env"
    own.write_text("REPLICAS=4\n")
    done = config("--env-file", str(own), *PROFILES)
    assert done.returncode != 0
    assert "PASSWORD" in done.stderr
    names = ("POSTGRES", "TRANSFERD_DATABASE", "RABBITMQ", "GRAFANA")
    named = {f"{name}_PASSWORD": "secret" for name in names}
    done = config("--env-file", str(own), *PROFILES, **named)
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert services["app"]["environment"]["TRANSFERD_AUTH"] == "on"
    assert "development" not in done.stdout


def test_mounted_files_exist(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0] if isinstance(volume, str) else volume["source"]
            if source.startswith("/"):
                assert Path(source).exists(), f"{name}: {source}"


# Its commands, natively


class Native:
    """Runs the commands of containers, with the addresses of private servers."""

    def __init__(
        self,
        services: dict[str, Any],
        database: Database,
        rabbitmq: RabbitServer,
        exits: AsyncExitStack,
    ) -> None:
        self._services = services
        self._exits = exits
        settings = database.settings()
        amqp = urlsplit(rabbitmq.url)
        self._places = {
            "transferd@db:5432/transferd": urlsplit(settings.required("database_url")).netloc
            + f"/{database.name}",
            "redis:6379/0": settings.required("redis_url").partition("://")[2],
            "transferd:development@rabbitmq:5672/": amqp.netloc + amqp.path,
        }

    def environment(self, name: str, **changes: str) -> dict[str, str]:
        """The service's environment."""
        settings = self._services[name].get("environment", {})
        text = {key: str(value) for key, value in settings.items()}
        for key, value in text.items():
            for place, ours in self._places.items():
                text[key] = text[key].replace(place, ours) if place in value else text[key]
        return (
            text | {"TRANSFERD_HOST": "127.0.0.1", "TRANSFERD_WORKER_HOST": "127.0.0.1"} | changes
        )

    async def start(
        self, name: str, *, places: Mapping[str, str] | None = None, **changes: str
    ) -> Command:
        """Run it, with the names of containers replaced by where they are here."""
        command = self._services[name]["command"]
        text = command if isinstance(command, str) else shlex.join(command)
        for place, ours in (places or {}).items():
            text = text.replace(place, ours)
        words = shlex.split(text)
        known = {
            "transferd": str(TRANSFERD),
            "/nginx/start": str(ROOT / "nginx" / "start"),
            "locust": str(Path(sys.executable).with_name("locust")),
        }
        environment = self.environment(name, **changes)
        environment["PATH"] = f"{os.environ['PATH']}:{Path(program()).parent}"
        return await self._exits.enter_async_context(
            running(*words[1:], settings=environment, program=(known[words[0]],))
        )

    async def is_healthy(self, name: str, port: str, actual: str) -> bool:
        """Whether its health check passes."""
        test = self._services[name]["healthcheck"]["test"]
        process = await asyncio.create_subprocess_exec(
            *(word.replace(f":{port}", f":{actual}") for word in test[1:]),
            stderr=asyncio.subprocess.DEVNULL,
        )
        return await process.wait() == 0


@pytest.fixture
async def native(
    services: dict[str, Any], database: Database, rabbitmq: RabbitServer
) -> AsyncIterator[Native]:
    async with AsyncExitStack() as exits:
        yield Native(services, database, rabbitmq, exits)


async def load_tested(native: Native, host: str, replicas: list[str], worker: str) -> None:
    """Start and stop a run on the web page of the Locust service, with a worker of Locust."""
    web, port = str(free_port()), str(free_port())
    places = {
        "http://nginx:8080": host,
        "--metrics-url http://app:8080": " ".join(f"--metrics-url {url}" for url in replicas),
        "http://worker:8081": worker,
        "--master-host locust": f"--master-host 127.0.0.1 --master-port {port}",
        "--master ": f"--master --master-bind-port {port} --web-host 127.0.0.1 --web-port {web} ",
        "/loadtest/": f"{ROOT}/loadtest/",
    }
    locust = await native.start("locust", places=places)
    # Beside its master, which it waits for.
    await native.start("locust-worker", places=places)
    await locust.says("Starting web interface")
    await until(partial(native.is_healthy, "locust", "8089", web), within_s=30)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{web}") as page:

        async def figures() -> dict[str, Any]:
            async with page.get("/service/data") as response:
                found: dict[str, Any] = await response.json()
                return found

        async def has_a_worker() -> bool:
            async with page.get("/worker-count") as response:
                return bool((await response.json())["worker_count"])

        async def shows_transfers() -> bool:
            found = await figures()
            total = found["rows"][-1]["figures"].get("total", {})
            return found["status"]["seconds"] > 0 and (total.get("done_per_s") or 0) > 0

        await until(has_a_worker, within_s=30)
        form = {"user_count": "20", "spawn_rate": "20", "scenario": "mixed", "wallets": "50"}
        async with page.post("/swarm", data=form) as response:
            assert (await response.json())["success"] is True
        await until(shows_transfers, within_s=30)
        async with page.post("/stop") as response:
            assert response.status == 200
        found = await figures()
        roles = sorted(target["role"] for target in found["targets"])
        assert roles == ["replica", "replica", "worker"]
        status = found["status"]
        assert status["scenario"] == "mixed"
        assert status["state"] == "finished"
        assert status["verdict"].startswith("passed"), status
        async with page.get("/metrics") as response:
            assert "transferd_loadtest_requests_total{" in await response.text()


async def test_the_topology_moves_money_and_publishes_events(
    native: Native, database: Database, tmp_path: Path
) -> None:
    migrating = await native.start("migrate")
    assert await migrating.end() == 0, migrating.output
    ports = [str(free_port()) for _ in range(4)]
    prefix: dict[str, Any] = {"TRANSFERD_AMQP_PREFIX": f"{database.name}."}
    apps = [await native.start("app", TRANSFERD_PORT=port) for port in ports[:2]]
    worker = await native.start("worker", TRANSFERD_WORKER_PORT=ports[2], **prefix)
    for app, port in zip(apps, ports, strict=False):
        await app.says("serving")
        await until(partial(native.is_healthy, "app", "8080", port), within_s=30)
    await worker.says("/readyz answers 200")
    await until(partial(native.is_healthy, "worker", "8081", ports[2]), within_s=30)
    os.chmod(tmp_path, 0o755)
    nginx = await native.start(
        "nginx",
        REPLICAS_AT=f"127.0.0.1:{ports[0]} 127.0.0.1:{ports[1]}",
        NGINX_CONF=str(tmp_path / "nginx"),
        NGINX_LISTEN=f"127.0.0.1:{ports[3]}",
        NGINX_STATUS_LISTEN=f"127.0.0.1:{free_port()}",
    )
    await until(partial(native.is_healthy, "nginx", "8080", ports[3]), within_s=30)
    async with aiohttp.ClientSession() as session:
        api = Api(session, f"http://127.0.0.1:{ports[3]}")
        ada, bob = await api.wallet(1_000), await api.wallet()
        assert (await api.transfer(ada, bob, 250)).status == 201
        assert await api.balance(bob) == 250
        assert (await api.get("/docs")).status == 200

    addresses = [f"http://127.0.0.1:{port}" for port in ports]
    await load_tested(native, addresses[3], addresses[:2], addresses[2])
    for process in (nginx, *apps):
        process.send(signal.SIGTERM)

    async def is_published() -> bool:
        return await row_count(database, "ledger_00.outbox") == 0

    await until(is_published, within_s=30)
    worker.send(signal.SIGTERM)
    assert [await process.end() for process in (*apps, worker)] == [0, 0, 0]


async def test_the_database_gets_a_role_that_cannot_rewrite_history(database: Database) -> None:
    script = (ROOT / "deploy/postgres/init.sh").read_text().replace("transferd", "newcomer")
    url = urlsplit(database.servers.postgres.superuser_url)
    environment = os.environ | {
        "POSTGRES_USER": url.username or "postgres",
        "TRANSFERD_DATABASE_PASSWORD": "it's a \\ secret",
        "PGHOST": url.hostname or "",
        "PGPORT": str(url.port),
    }
    process = await asyncio.create_subprocess_exec("sh", "-c", script, env=environment)
    assert await process.wait() == 0
    [row] = await database.fetch("SELECT rolsuper FROM pg_roles WHERE rolname = 'newcomer'")
    assert row["rolsuper"] is False
    connection = await asyncpg.connect(
        host=url.hostname,
        port=url.port,
        user="newcomer",
        password="it's a \\ secret",
        database="newcomer",
    )
    await connection.execute("CREATE SCHEMA works")
    await connection.close()
