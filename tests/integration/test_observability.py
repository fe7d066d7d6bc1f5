"""Rules and dashboards use only exported metrics, and each alert fires in its situation."""

import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.conftest import Database, Replicas, Workers
from tests.support.api import Api
from tests.support.contract import transfer_body
from tests.support.endpoints import new_webhook
from tests.support.pressure import counted
from tests.support.project import ROOT
from tests.support.promql import FOREIGN, exported, faults, names_in
from tests.support.proxy import Proxy
from tests.support.receivers import receiving, status
from tests.support.trace_collector import Collector, collecting
from tests.support.waiting import until
from tests.support.watching import (
    FOLDER,
    SITUATIONS,
    alerts,
    dashboards,
    promtool,
    queries,
    read,
    rules,
    situations,
)
from transferd.config import Limits
from transferd.worker import Worker

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
KEY = "a-key-of-this-test-only"
TRACE = "4b" * 16
# The header Accept of Prometheus 3.
ACCEPT = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


async def metrics_of(api: Api) -> str:
    return (await api.get("/metrics")).body.decode()


async def metrics_of_worker(worker: Worker) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"{worker.url}/metrics") as reply:
        return await reply.text()


async def busy_service(database: Database, replicas: Replicas, workers: Workers) -> tuple[str, str]:
    """The metrics of a replica and a worker after some traffic and one dead letter."""
    worker = await workers.start()
    api = await replicas.start()
    async with receiving() as receiver:
        receiver.answer = status(410)
        await new_webhook(database, receiver.url)
        ada, bob = await api.wallet(100), await api.wallet()
        for amount in (1, 1, 1_000):
            await api.transfer(ada, bob, amount, key=f"{KEY}-{amount}")
        await api.balance(ada)

        async def there_is_a_dead_letter() -> bool:
            shown = await metrics_of_worker(worker)
            return "transferd_dead_letters_total 0.0" not in shown

        await until(there_is_a_dead_letter)
    return await metrics_of(api), await metrics_of_worker(worker)


def expressions() -> list[str]:
    """Every expression of rules and dashboards."""
    shown = [query for dashboard in dashboards().values() for query in queries(dashboard)]
    return [rule["expr"] for rule in rules()] + shown


# Exported metrics


async def test_rules_and_dashboards_use_only_exported_metrics_without_ids_and_keys(
    database: Database, replicas: Replicas, workers: Workers
) -> None:
    replica, worker = await busy_service(database, replicas, workers)
    known = {rule["record"]: frozenset[str]() for rule in rules() if "record" in rule}
    known |= exported(replica, worker)
    used = expressions()
    assert len(used) > 80
    assert faults(used, known) == []
    # The check finds unknown names and labels.
    for right, wrong, said in (
        ("transferd_outcomes_total", "transferd_results_total", "transferd_results_total is not"),
        ("(result)", "(outcome)", "outcome is no label of ['transferd_outcomes_total']"),
    ):
        assert said in str(faults([query.replace(right, wrong) for query in used], known))
    both = {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"}
    assert exported(replica).keys() >= both | {"transferd_build_info", "transferd_ready"}
    assert exported(worker).keys() >= both | {"transferd_build_info", "transferd_worker_ready"}
    for line in (replica + worker).splitlines():
        name = line.partition("{")[0].partition(" ")[0]
        assert not UUID.search(line), line
        assert KEY not in line
        assert "client" not in line.rpartition("}")[0], line
        assert not name.endswith(("_ms", "_milliseconds", "_kb", "_percent")), name


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as collector:
        yield collector


# The collector is the first fixture, so it still answers when the others export their last spans.
async def test_prometheus_gets_openmetrics_with_the_traces_of_a_replica_and_a_worker(
    collector: Collector, database: Database, replicas: Replicas, workers: Workers
) -> None:
    async with receiving() as receiver:
        tracing: dict[str, Any] = {"tracing": "on", "tracing_endpoint": collector.url}
        worker = await workers.start(**tracing)
        api = await replicas.start(**tracing, tracing_ratio=0.0)
        ada, bob = await api.wallet(100), await api.wallet()
        await new_webhook(database, receiver.url, wallet=bob)
        traced = {"traceparent": f"00-{TRACE}-{'0f' * 8}-01"}
        body = transfer_body(ada, bob, 1)
        assert (await api.post("/transfers", body, key="k", headers=traced)).status == 201

        async def shown(url: str) -> dict[str, set[str]]:
            """The traces of the exemplars of each histogram."""
            async with api.session.get(f"{url}/metrics", headers={"Accept": ACCEPT}) as reply:
                kind = reply.headers["Content-Type"]
                text = await reply.text()
            assert kind == "application/openmetrics-text; version=1.0.0; charset=utf-8"
            found: dict[str, set[str]] = defaultdict(set)
            for family in text_string_to_metric_families(text):  # type: ignore[no-untyped-call]
                for sample in family.samples:
                    if sample.exemplar is not None:
                        found[family.name].add(sample.exemplar.labels["trace_id"])
            return found

        assert await shown(api.url) == {"http_server_request_duration_seconds": {TRACE}}
        lag = "transferd_notification_lag_seconds"

        async def is_delivered() -> bool:
            return await shown(worker.url) == {lag: {TRACE}}

        await until(is_delivered)
        for text in (await metrics_of(api), await metrics_of_worker(worker)):
            report = promtool("check", "metrics", stdin=text)
            assert (report.returncode, report.stdout + report.stderr) == (0, "")
            assert TRACE not in text


async def test_a_replica_exports_whether_it_is_ready_or_draining(
    api: Api, replicas: Replicas
) -> None:
    assert "transferd_ready 1.0" in await metrics_of(api)
    replicas.opened[0].context.lifecycle.is_draining = True
    shown = await metrics_of(api)
    assert "transferd_ready 0.0" in shown
    assert "transferd_draining 1.0" in shown
    assert "transferd_database_up 1.0" in shown


@pytest.mark.parametrize("trouble", ["refuses", "hangs"])
async def test_a_replica_exports_that_postgresql_is_unreachable(
    database: Database, replicas: Replicas, trouble: str
) -> None:
    async with AsyncExitStack() as exits:
        proxy = Proxy(database.settings().required("database_url"))
        await exits.enter_async_context(proxy)
        api = await replicas.start(database_url=proxy.url)
        assert "transferd_database_up 1.0" in await metrics_of(api)
        if trouble == "hangs":
            proxy.stall()
        else:
            await exits.aclose()
        shown = await metrics_of(api)
        assert "transferd_database_up 0.0" in shown
        assert "transferd_ready 0.0" in shown
        proxy.resume()


async def test_a_replica_exports_that_its_circuit_breaker_for_redis_is_open(
    database: Database, replicas: Replicas
) -> None:
    async with Proxy(database.settings().required("redis_url")) as proxy:
        api = await replicas.start(Limits(breaker_open_s=60.0), redis_url=proxy.url)
        ada = await api.wallet()
        assert "transferd_cache_breaker_open 0.0" in await metrics_of(api)
        proxy.stall()
        assert await api.balance(ada) == 0
        assert "transferd_cache_breaker_open 1.0" in await metrics_of(api)
        proxy.resume()


async def test_both_pools_export_their_connections_in_use(api: Api, replicas: Replicas) -> None:
    async def are_idle() -> bool:
        # A loop of the replica may be reading at this moment.
        shown = await metrics_of(api)
        return all(
            f'transferd_pool_connections_in_use{{pool="{pool}"}} 0.0' in shown
            and f'transferd_pool_limit_connections{{pool="{pool}"}} {limit}.0' in shown
            for pool, limit in (("reads", 14), ("commit", 4))
        )

    await until(are_idle)
    async with replicas.opened[0].context.shared.transaction():
        assert counted(replicas, "transferd_pool_connections_in_use", pool="reads") == 1
        assert counted(replicas, "transferd_pool_connections_in_use", pool="commit") == 0


# Rules


def test_promtool_accepts_the_configuration_and_the_rules() -> None:
    files = [str(file.relative_to(FOLDER)) for file in sorted(FOLDER.glob("rules/*.yml"))]
    for arguments in (("check", "config", "prometheus.yml"), ("check", "rules", *files)):
        report = promtool(*arguments)
        assert report.returncode == 0, report.stdout + report.stderr
        assert "FAILED" not in report.stdout + report.stderr


def test_each_alert_fires_in_its_situation_and_in_no_other() -> None:
    report = promtool("test", "rules", SITUATIONS)
    assert report.returncode == 0, report.stdout + report.stderr


def test_every_alert_has_a_situation_and_the_first_one_has_all_its_series() -> None:
    # promtool compares all alerts that fire, so each situation notices wrong rules.
    cases = [case["promql_expr_test"] for case in read(FOLDER / SITUATIONS)["tests"]]
    everything = 'count by (alertname) (ALERTS{alertstate="firing"})'
    assert [[each["expr"] for each in case] for case in cases] == [[everything]] * len(cases)
    healthy, *others = situations()
    assert (healthy.name, healthy.fires) == ("healthy", set())
    fired = set[str]().union(*(case.fires for case in others))
    assert fired == alerts().keys()
    shown = {series.partition("{")[0] for series in healthy.series}
    recorded = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}

    def needed(names: Iterable[str]) -> set[str]:
        unfolded = [needed(names_in(recorded[n])) if n in recorded else {n} for n in names]
        return set[str]().union(*unfolded)

    assert needed({n for rule in alerts().values() for n in names_in(rule["expr"])}) <= shown


def test_every_alert_has_a_description_and_a_section_in_the_runbook() -> None:
    text = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert list(sections) == list(alerts())
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"] == f"docs/alerts.md#{name.lower()}"
        assert re.findall(r"^- \*\*(\w+):\*\*", sections[name], re.MULTILINE) == [
            "Means",
            "Look",
            "Do",
        ]
    for anchor in re.findall(r"\(#(\w+)\)", text):
        assert anchor in {name.lower() for name in alerts()}


# Scraping, receivers, dashboards


def test_alerts_go_to_existing_receivers_and_the_file_has_no_secret() -> None:
    config = read(FOLDER / "alertmanager.yml")
    receivers = {receiver["name"] for receiver in config["receivers"]}
    routes = [config["route"], *config["route"]["routes"]]
    assert {route["receiver"] for route in routes} == receivers
    named = re.findall(r"Transferd\w+", (FOLDER / "alertmanager.yml").read_text())
    assert set(named) <= alerts().keys()
    [hook] = config["receivers"][0]["webhook_configs"]
    assert "url" not in hook


def test_everything_is_scraped_under_the_names_of_the_compose_network() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    jobs = {job["job_name"]: job for job in read(FOLDER / "prometheus.yml")["scrape_configs"]}
    for job in jobs.values():
        found = [name for each in job.get("dns_sd_configs", ()) for name in each["names"]]
        targets = [t for each in job.get("static_configs", ()) for t in each["targets"]]
        for name in (*found, *(target.partition(":")[0] for target in targets)):
            assert name in services or name == "localhost"
    # The jobs that alerts name are scraped.
    chosen = {job for rule in alerts().values() for job in re.findall(r'job="(.*?)"', rule["expr"])}
    assert chosen <= jobs.keys()


@pytest.mark.parametrize("name", dashboards())
def test_a_dashboard_can_be_loaded(name: str) -> None:
    dashboard = dashboards()[name]
    assert dashboard["schemaVersion"] == 39
    assert name == f"{dashboard['uid']}.json"
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["instance"]["includeAll"]
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set[tuple[int, int]]()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert taken.isdisjoint(cells), panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
        if panel["type"] != "row":
            sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
            assert {source["uid"] for source in sources} == {"${datasource}"}


def test_dashboards_distinguish_replicas() -> None:
    for dashboard in dashboards().values():
        assert any("{{instance}}" in str(panel) for panel in dashboard["panels"])
        assert any('instance=~"$instance"' in query for query in queries(dashboard))
    titles = [dashboard["title"] for dashboard in dashboards().values()]
    assert titles == ["transferd: internals", "transferd: overview"]


def test_every_exporter_in_an_expression_is_scraped() -> None:
    foreign = {n for query in expressions() for n in names_in(query) if FOREIGN.fullmatch(n)}
    jobs = {job["job_name"] for job in read(FOLDER / "prometheus.yml")["scrape_configs"]}
    job_of = {"pg": "postgresql", "redis": "redis", "rabbitmq": "rabbitmq", "nginx": "nginx"}
    exporters = {name.partition("_")[0] for name in foreign - {"up", "ALERTS"}}
    assert exporters
    assert {job_of[exporter] for exporter in exporters} <= jobs
