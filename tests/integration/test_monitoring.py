"""A real Prometheus scrapes the real daemon: dialects, rules, and every query of every dashboard, under traffic with every fault.

`make dashboards-check` shows what each query of the dashboards gives.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from aiproxyd.telemetry import coder
from aiproxyd.telemetry.exposed import legacy_name
from examples.grafana.generate import FOLDER as DASHBOARDS
from tests.promises.checkout import ROOT
from tests.support.daemon import Daemon, eventually
from tests.support.day import REQUESTS, configuration, live_through
from tests.support.fake_provider import FakeProvider
from tests.support.origins import Origin
from tests.support.otlp import grpc_collector
from tests.support.prometheus import Prometheus, needs_prometheus

# The first test waits for two days to pass, each with its scrapes.
pytestmark = [needs_prometheus, pytest.mark.timeout(300)]

RULES = [ROOT / "examples" / "prometheus" / name for name in ("recording.yml", "alerts.yml")]


class Watched(NamedTuple):
    """A daemon after two days, and who watches it."""

    daemon: Daemon
    prometheus: Prometheus


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, provider: FakeProvider, origins: dict[str, Origin]) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    echo = f"127.0.0.1:{origins['echo.example.com'].port}"
    with (
        grpc_collector() as (collector, _),
        Daemon(folder / "daemon", provider, config=configuration(provider, echo, collector)) as daemon,
        Prometheus(folder / "prometheus", daemon.admin_listen, rule_files=RULES) as prometheus,
    ):
        # What has happened once has a series; `rate` sees what happens to a series between two scrapes.
        for day in (1, 2):
            live_through(daemon, provider)
            daemon.wait_for_metric(day * REQUESTS, "coder_ai_gateway_accounting_outcomes_total")
            daemon.wait_for_metric(day, "coder_ai_gateway_proxy_tunnels_closed_total")
            eventually(
                lambda: daemon.metrics().total("coder_ai_gateway_trace_spans_total", result="sent"), "spans that are sent"
            )
            prometheus.wait_for("sum(coder_ai_gateway_accounting_outcomes_total)", day * REQUESTS)
            prometheus.wait_for_scrapes(2)
        yield Watched(daemon, prometheus)


# Dashboards.


class Shown(NamedTuple):
    """A query of a panel."""

    dashboard: str
    row: str
    panel: str
    expr: str


def shown_queries() -> list[Shown]:
    found = []
    for path in sorted(DASHBOARDS.glob("*.json")):
        row = ""
        for panel in json.loads(path.read_text())["panels"]:
            row = panel["title"] if panel["type"] == "row" else row
            found += [Shown(path.stem, row, panel["title"], target["expr"]) for target in panel.get("targets", ())]
    return found


def filled(expression: str) -> str:
    """Return what Grafana sends: everything chosen, over the last minutes."""
    for variable, value in (("$__rate_interval", "1m"), ("$__range", "5m"), ("$__interval", "15s")):
        expression = expression.replace(variable, value)
    for variable in ("instance", "provider", "model", "client", "user"):
        expression = expression.replace(f'"${variable}"', '".*"')
    assert "$" not in expression
    return expression


@pytest.mark.parametrize("query", shown_queries(), ids=lambda query: f"{query.dashboard}: {query.panel}"[:60])
def test_a_query_of_a_dashboard_has_data(watched: Watched, query: Shown) -> None:
    found = watched.prometheus.query(filled(query.expr))
    print(table(query, found))
    # Panels that nobody has written yet are of features that this day may not use; their queries must be good all the same.
    assert found or query.row == "Everything else", query.expr


def table(query: Shown, found: list[tuple[dict[str, str], float]]) -> str:
    """Return a query with what it gave, for people."""
    lines = [f"\n{query.dashboard} · {query.panel}\n  {query.expr}"]
    for labels, value in found[:6]:
        lines.append(f"    {value:>14.6g}  " + " ".join(f"{name}={text}" for name, text in sorted(labels.items()) if text))
    if len(found) > 6:
        lines.append(f"    … and {len(found) - 6} more")
    return "\n".join(lines)


# Variables of dashboards.


def test_the_variables_of_the_dashboards_find_values(watched: Watched) -> None:
    for label, expression in (
        ("instance", "coder_ai_gateway_build_info"),
        ("provider_name", "coder_ai_gateway_proxy_provider_info"),
        ("model", "coder_ai_gateway_interceptions_total"),
        ("client", "coder_ai_gateway_interceptions_total"),
        ("name", "coder_ai_gateway_user_info"),
    ):
        assert {labels[label] for labels, _ in watched.prometheus.query(expression)}
    assert {labels["name"] for labels, _ in watched.prometheus.query("coder_ai_gateway_user_info")} == {"alice", "bob"}


# Rules.


def test_recording_rules_have_data_and_no_rule_fails(watched: Watched) -> None:
    groups = watched.prometheus.ask("rules")["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        assert rule["health"] == "ok", rule.get("lastError")
        if rule["type"] == "recording":
            assert watched.prometheus.query(rule["name"]), rule["name"]


def test_the_faults_of_the_day_raise_their_alerts_and_no_others(watched: Watched) -> None:
    states = {
        rule["name"]: rule["state"]
        for group in watched.prometheus.ask("rules")["groups"]
        for rule in group["rules"]
        if rule["type"] == "alerting"
    }
    raised = {name for name, state in states.items() if state != "inactive"}
    assert raised == {
        "AiproxydBreakerOpen",
        "AiproxydClientTlsFailures",
        "AiproxydDrift",
        "AiproxydKeysExhausted",
        "AiproxydParseFailures",
        "AiproxydUnpriced",
        "AiproxydUpstreamTlsFailures",
    }


# Exemplars.


def test_an_exemplar_leads_from_a_point_to_the_record(watched: Watched) -> None:
    data = watched.prometheus.ask(
        "query_exemplars",
        query="coder_ai_gateway_interceptions_duration_seconds_bucket",
        start="0",
        end=str(watched.prometheus.query("time()")[0][1] + 60),
    )
    ids = {exemplar["labels"]["interception_id"] for series in data for exemplar in series["exemplars"]}
    assert ids
    assert ids <= {record["id"] for record in watched.daemon.stored()}


# Dialects.


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is in Debian's prometheus package")
def test_promtool_can_read_what_is_scraped_in_all_dialects_at_once(watched: Watched) -> None:
    text = watched.daemon.metrics().text
    assert all(
        f"\n{name}" in text for name in ("coder_aibridged_", "coder_aibridgeproxyd_", "bifrost_", "gen_ai_", "http_requests")
    )
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    # 3 is its status for advice about names; these are not ours to choose.
    assert done.returncode in {0, 3}, done.stderr
    assert "error while linting" not in done.stderr


def test_former_names_have_the_values_of_the_new_ones(watched: Watched) -> None:
    ours = {
        name + ending
        for family in coder.FAMILIES
        for name in [family.name]
        for ending in (("_bucket", "_sum", "_count") if family.kind == "histogram" else ("",))
    }
    metrics = watched.daemon.metrics()
    compared = 0
    for (name, labels), value in metrics.samples.items():
        if name in ours:
            assert metrics.samples[legacy_name(name), labels] == value, name
            compared += 1
    assert compared > len(ours)
    # Over the series of one scrape, in Prometheus' own words.
    for name in ("coder_ai_gateway_tokens_total", "coder_ai_gateway_proxy_mitm_responses_total"):
        assert watched.prometheus.query(f"{name} == ignoring() {legacy_name(name)}")
        assert watched.prometheus.query(f"{name} != ignoring() {legacy_name(name)}") == []


def test_dashboards_of_before_2_35_live_on_by_renaming_alone(watched: Watched, tmp_path: Any, own_daemon: Any) -> None:
    import re

    import yaml

    page = (ROOT / "docs" / "monitoring.md").read_text()
    snippet = re.search(r"```yaml\n(metric_relabel_configs:.*?)```", page, re.DOTALL)
    assert snippet
    daemon = own_daemon()
    with Prometheus(tmp_path, daemon.admin_listen, scrape=yaml.safe_load(snippet[1])) as prometheus:
        prometheus.wait_for_scrapes(1)
        assert prometheus.query('coder_aibridged_provider_info{status="enabled"}')
        assert prometheus.query("coder_aibridgeproxyd_providers_last_reload_success_timestamp_seconds")
        assert prometheus.query('{__name__=~"coder_ai_gateway.*"}') == []


# Queries, panels and alerts of Bifrost's telemetry page, as they stand there.

BIFROST_QUERIES = [
    "rate(bifrost_success_requests_total[5m]) / rate(bifrost_upstream_requests_total[5m]) * 100",
    "increase(bifrost_input_tokens_total[1m])",
    "increase(bifrost_output_tokens_total[1m])",
    "rate(bifrost_output_tokens_total[5m]) / rate(bifrost_input_tokens_total[5m])",
    "sum by (provider) (rate(bifrost_cost_total[1m]))",
    "sum by (provider) (increase(bifrost_cost_total[1d]))",
    "sum by (provider, model) (rate(bifrost_cost_total[5m])) / sum by (provider, model) (rate(bifrost_upstream_requests_total[5m]))",
    "sum by (model) (rate(bifrost_error_requests_total[5m]))",
    "sum by (provider) (rate(bifrost_error_requests_total[5m])) / sum by (provider) (rate(bifrost_upstream_requests_total[5m])) > 0.05",
]


@pytest.mark.parametrize("query", BIFROST_QUERIES)
def test_a_query_of_bifrosts_page_has_data_unchanged(watched: Watched, query: str) -> None:
    assert watched.prometheus.query(query)


def test_figures_of_bifrosts_names_are_those_of_ours(watched: Watched) -> None:
    asked = watched.prometheus.value
    assert asked("sum(bifrost_upstream_requests_total)") == asked("sum(coder_ai_gateway_interceptions_total)")
    assert asked("sum(bifrost_output_tokens_total)") == asked('sum(coder_ai_gateway_tokens_total{type="output"})')
    assert asked("sum(bifrost_cost_total)") == pytest.approx(asked("sum(coder_ai_gateway_cost_usd_total)"))
    assert {labels["team"] for labels, _ in watched.prometheus.query("bifrost_upstream_requests_total")} == {
        "team-of-alice",
        "team-of-bob",
    }


def test_a_cache_of_responses_does_not_exist_and_shows_nothing(watched: Watched) -> None:
    assert watched.prometheus.query("sum by (cache_type) (rate(bifrost_cache_hits_total[5m]))") == []


def test_coders_documented_alerts_can_be_asked(watched: Watched) -> None:
    asked = watched.prometheus.query
    for prefix in ("coder_ai_gateway_", "coder_ai_gateway_proxy_", "coder_aibridged_", "coder_aibridgeproxyd_"):
        assert asked(f'sum by (provider_name, status) ({prefix}provider_info{{status="enabled"}}) > 0')
        assert asked(f'sum by (provider_name, status) ({prefix}provider_info{{status!="enabled"}}) > 0') == []
        gap = f"{prefix}providers_last_reload_timestamp_seconds - {prefix}providers_last_reload_success_timestamp_seconds"
        assert asked(gap)
        assert asked(f"({gap}) > 300") == []
