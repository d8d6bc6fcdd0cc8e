"""Metrics of every dialect, cost and traces of the real daemon, from one client's requests."""

import base64
import ssl
import urllib.request
from pathlib import Path
from typing import Any

import httpx
import pytest

from aiproxyd.telemetry.exposed import legacy_name
from tests.integration.conftest import DaemonMaker
from tests.support.daemon import Daemon
from tests.support.fake_provider import FakeProvider
from tests.support.otlp import attributes_of, grpc_collector
from tests.support.pushgateway import needs_pushgateway, pushgateway

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def _ask(daemon: Daemon, model: str, **headers: str) -> httpx.Response:
    with httpx.Client(
        proxy=daemon.proxy_url(), verify=ssl.create_default_context(cafile=str(daemon.ca_file)), trust_env=False, timeout=60
    ) as client:
        return client.post(
            "https://api.anthropic.com/v1/messages",
            headers={"authorization": "Bearer sk-ant-oat01-abcdefgh"} | headers,
            json={"model": model, "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "hello"}]},
        )


def test_a_request_shows_in_every_dialect_with_its_cost_and_its_trace(
    own_daemon: DaemonMaker, provider: FakeProvider, model: str
) -> None:
    # A price for models that only this test has.
    override: dict[str, Any] = {"model": "fake-*", "input_micros": 1_000_000, "output_micros": 2_000_000}
    with grpc_collector() as (endpoint, received):
        daemon = own_daemon(
            config={
                "metrics": {
                    "dialects": ["coder", "coder_legacy", "bifrost", "gen_ai"],
                    "labels": {"environment": "test"},
                    "header_labels": {"team": "x-bf-prom-team"},
                },
                "tracing": {"enabled": True, "endpoint": endpoint},
                "pricing": {"overrides": [override]},
            }
        )
        answer = _ask(daemon, model, **{"x-bf-prom-team": "search", "traceparent": PARENT})
        assert answer.status_code == 200
        assert [entry.header("x-bf-prom-team") for entry in provider.ledger.entries(model)] == [""]
        record = daemon.record(model)
        daemon.wait_for_metric(1, "bifrost_success_requests_total", team="search", environment="test")
        metrics = daemon.metrics()
        intercept = received.wait_for("Intercept")
    [usage] = record["token_usages"]
    micros = (
        usage["input_tokens"]
        + 2 * usage["output_tokens"]
        + usage["cache_read_input_tokens"]
        + usage["cache_write_input_tokens"]
    )
    assert micros > 0
    assert (usage["cost_micros"], usage["price_source"]) == (micros, "configuration")
    assert (usage["cost_basis"], record["billing"]) == ("list_price_equivalent", "subscription")
    cost = metrics.total("coder_ai_gateway_cost_usd_total", model=model, basis="list_price_equivalent")
    assert cost == pytest.approx(micros / 1e6)
    assert metrics.total("bifrost_cost_total", model=model, team="search") == pytest.approx(micros / 1e6)
    for name in ("interceptions_total", "tokens_total", "proxy_mitm_requests_total", "proxy_connect_sessions_total"):
        ours = "coder_ai_gateway_" + name
        assert metrics.total(ours) == metrics.total(legacy_name(ours)) > 0, name
    assert metrics.total("gen_ai_client_operation_duration_seconds_count", gen_ai_request_model=model) == 1
    assert metrics.total("coder_ai_gateway_proxy_worker_process_resident_memory_bytes", worker="0") > 1e6
    assert intercept.trace_id.hex() == PARENT.split("-")[1]
    assert intercept.parent_span_id.hex() == PARENT.split("-")[2]
    attributes = attributes_of(intercept)
    assert (attributes["interception_id"], attributes["gen_ai.request.model"]) == (record["id"], model)
    assert "hello" not in str(received.spans)


@pytest.mark.parametrize(
    "attack",
    [
        'x"} 1\\ncoder_ai_gateway_interceptions_total{forged="yes',
        "'; DROP TABLE interceptions; --",
        "<script>alert(1)</script>",
    ],
)
def test_the_value_of_a_header_label_is_text(own_daemon: DaemonMaker, model: str, attack: str) -> None:
    daemon = own_daemon(config={"metrics": {"dialects": ["coder", "bifrost"], "header_labels": {"team": "x-bf-prom-team"}}})
    assert _ask(daemon, model, **{"x-bf-prom-team": attack}).status_code == 200
    daemon.record(model)
    daemon.wait_for_metric(1, "bifrost_success_requests_total", team=attack)
    assert not [labels for labels in daemon.metrics().series("coder_ai_gateway_interceptions_total") if "forged" in labels]


def test_an_exemplar_leads_to_the_record(own_daemon: DaemonMaker, model: str) -> None:
    daemon = own_daemon()
    assert _ask(daemon, model).status_code == 200
    record = daemon.record(model)
    daemon.wait_for_metric(1, "coder_ai_gateway_interceptions_total", model=model)
    request = urllib.request.Request(
        f"{daemon.admin_url}/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        text = answer.read().decode()
    assert f'# {{interception_id="{record["id"]}"}}' in text


def test_every_part_of_the_overhead_is_measured_by_each_engine(daemon: Daemon, model: str) -> None:
    name = "coder_ai_gateway_proxy_overhead_seconds"
    before = daemon.metrics()
    assert _ask(daemon, model).status_code == 200
    daemon.wait_for_metric(1, "coder_ai_gateway_interceptions_total", model=model)
    after = daemon.metrics()
    for part in ("auth", "upstream_connect", "tls", "first_byte", "tap"):
        assert after.total(f"{name}_count", part=part) == before.total(f"{name}_count", part=part) + 1, part
        assert after.total(f"{name}_sum", part=part) > before.total(f"{name}_sum", part=part), part


@needs_pushgateway
def test_a_gateway_gets_every_metric_and_the_last_values(own_daemon: DaemonMaker, tmp_path: Path, model: str) -> None:
    with pushgateway(tmp_path, is_locked=True) as gateway:
        push = {
            "url": gateway.url,
            "instance": "here",
            "basic_user": "pusher",
            "basic_password": "secret",
            "interval_seconds": 3600,
        }
        daemon = own_daemon(config={"metrics": {"push": push, "labels": {"environment": "test"}}})
        daemon.wait_for_metric(1, "coder_ai_gateway_metrics_pushes_total", result="succeeded")
        assert _ask(daemon, model).status_code == 200
        daemon.record(model)
        # What came after the first push is there when the daemon has stopped.
        assert gateway.metrics().total("coder_ai_gateway_interceptions_total") == 0
        daemon.stop()
        metrics = gateway.metrics()
    series = {"job": "aiproxyd", "instance": "here", "environment": "test", "model": model}
    assert metrics.total("coder_ai_gateway_interceptions_total", **series) == 1
    assert metrics.total("coder_ai_gateway_tokens_total", **series) > 0


def test_a_scrape_may_want_a_token_or_a_password(own_daemon: DaemonMaker) -> None:
    daemon = own_daemon(config={"metrics": {"token": "scrape-me", "basic_user": "prometheus", "basic_password": "secret"}})
    answers = {}
    for name, authorization in {
        "nothing": None,
        "bearer": "Bearer scrape-me",
        "basic": "Basic " + base64.b64encode(b"prometheus:secret").decode(),
        "another password": "Basic " + base64.b64encode(b"prometheus:guess").decode(),
        "another token": "Bearer guess",
    }.items():
        headers = {} if authorization is None else {"authorization": authorization}
        answers[name] = httpx.get(f"{daemon.admin_url}/metrics", headers=headers, trust_env=False).status_code
    assert answers == {"nothing": 401, "bearer": 200, "basic": 200, "another password": 401, "another token": 401}
