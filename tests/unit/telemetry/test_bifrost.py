"""Twin of aiproxyd/telemetry/bifrost.py: names, types and labels of the telemetry page, and its queries."""

import shutil
import subprocess

import pytest
from prometheus_client import generate_latest

from aiproxyd.model.observation import PassthroughEnded, PassthroughStarted
from aiproxyd.model.outcome import ErrorType, Outcome, UsageSource
from aiproxyd.telemetry import bifrost
from tests.unit.telemetry.observed import USER, Scrape, described, ended, started

BASE = {
    "provider", "model", "method", "virtual_key_id", "virtual_key_name", "routing_engines_used", "routing_rule_id",
    "routing_rule_name", "selected_key_id", "selected_key_name", "number_of_retries", "fallback_index",
}  # fmt: skip

# From the page: name, type, labels; `team` is a custom label.
PAGE = [
    ("http_requests_total", "counter", {"path", "method", "status", "team"}),
    ("http_request_duration_seconds", "histogram", {"path", "method", "status", "team"}),
    ("http_request_size_bytes", "histogram", {"path", "method", "status", "team"}),
    ("http_response_size_bytes", "histogram", {"path", "method", "status", "team"}),
    ("bifrost_upstream_requests_total", "counter", BASE | {"team"}),
    ("bifrost_success_requests_total", "counter", BASE | {"team"}),
    ("bifrost_error_requests_total", "counter", BASE | {"status_code", "team"}),
    ("bifrost_upstream_latency_seconds", "histogram", BASE | {"is_success", "team"}),
    ("bifrost_input_tokens_total", "counter", BASE | {"team"}),
    ("bifrost_output_tokens_total", "counter", BASE | {"team"}),
    ("bifrost_cache_hits_total", "counter", BASE | {"cache_type", "team"}),
    ("bifrost_cost_total", "counter", BASE | {"team"}),
    ("bifrost_stream_first_token_latency_seconds", "histogram", BASE),
    ("bifrost_stream_inter_token_latency_seconds", "histogram", BASE),
]


@pytest.fixture
def scrape() -> Scrape:
    scrape = Scrape("bifrost", header_labels=("team",))
    scrape.observe(started(labels={"team": "search"}), described(), ended())
    scrape.observe(
        started(interception_id="i2"),
        described(interception_id="i2"),
        ended(
            interception_id="i2",
            outcome=Outcome.UPSTREAM_ERROR,
            usage_source=UsageSource.NONE,
            error_type=ErrorType.RATE_LIMITED,
            status_code=429,
            first_output_seconds=None,
        ),
    )
    return scrape


@pytest.mark.parametrize(("name", "kind", "labels"), PAGE, ids=[row[0] for row in PAGE])
def test_a_family_has_the_pages_name_type_and_labels(scrape: Scrape, name: str, kind: str, labels: set[str]) -> None:
    family = next(each for each in bifrost.FAMILIES if each.name == name)
    assert family.kind == kind
    exposed = {metric.name: metric for metric in scrape.registry.collect()}[name.removesuffix("_total")]
    assert exposed.type == kind
    series = name if kind == "counter" else f"{name}_count"
    if name != "bifrost_cache_hits_total":
        assert {frozenset(each) for each in scrape.labels(series)} == {frozenset(labels)}


def test_every_family_is_on_the_page() -> None:
    assert {family.name for family in bifrost.FAMILIES} == {name for name, _, _ in PAGE}


def test_a_request_is_counted_with_its_tokens_and_cost(scrape: Scrape) -> None:
    labels = {"provider": "claude", "model": "claude-x", "method": "chat", "virtual_key_id": USER, "team": "search"}
    assert scrape.value("bifrost_upstream_requests_total", **labels, virtual_key_name="ada") == 1
    assert scrape.value("bifrost_success_requests_total", **labels) == 1
    assert scrape.value("bifrost_input_tokens_total", **labels) == 100
    assert scrape.value("bifrost_output_tokens_total", **labels) == 101
    assert scrape.value("bifrost_cost_total", **labels) == pytest.approx(0.000201)
    assert scrape.value("bifrost_stream_first_token_latency_seconds_sum", model="claude-x") == 1.0
    # Two seconds between 101 tokens.
    assert scrape.value("bifrost_stream_inter_token_latency_seconds_sum", model="claude-x") == pytest.approx(0.02)
    assert scrape.value("bifrost_error_requests_total", status_code="429", team="") == 1
    assert scrape.value("bifrost_upstream_latency_seconds_count", is_success="false", selected_key_name="null") == 1
    assert scrape.value("http_requests_total", path="/v1/messages", method="POST", status="200", team="search") == 1
    assert scrape.value("http_response_size_bytes_sum", status="200") == 5000
    assert scrape.value("bifrost_cache_hits_total") is None


def test_what_is_not_intercepted_is_an_http_request_alone(scrape: Scrape) -> None:
    scrape.observe(
        PassthroughStarted(at=1, request_id="p", provider="claude", method="GET", route="/v1/models"),
        PassthroughEnded(at=3, request_id="p", provider="claude", status_code=200),
        PassthroughStarted(at=1, request_id="q", provider="claude", method="BREW", route="/v1/models"),
    )
    scrape.sink.worker_lost("w")
    assert scrape.value("http_requests_total", path="/v1/models", method="GET", status="200") == 1
    assert scrape.value("http_requests_total", path="/v1/models", method="other", status="0") == 1
    assert scrape.value("http_request_duration_seconds_sum", path="/v1/models", method="GET") == 2
    assert scrape.value("bifrost_upstream_requests_total") == 2


def test_users_may_be_left_out() -> None:
    scrape = Scrape("bifrost", per_user=False).observe(started(), described(), ended())
    [labels] = scrape.labels("bifrost_upstream_requests_total")
    assert (labels["virtual_key_id"], labels["virtual_key_name"]) == ("all", "all")


def test_inventions_of_clients_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bifrost, "MAX_SERIES_TUPLES", 60)
    scrape = Scrape("bifrost", header_labels=("team",), header_label_values=1000)
    for number in range(300):
        scrape.observe(started(labels={"team": f"t{number}"}), described(), ended())
    assert scrape.value("bifrost_upstream_requests_total") == 300
    assert len(scrape.labels("bifrost_upstream_requests_total")) <= 60
    assert scrape.value("bifrost_upstream_requests_total", model="other", team="other") == 260
    assert scrape.value("http_requests_total") == 300
    assert len(scrape.labels("http_requests_total")) == 60


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is in Debian's prometheus package")
@pytest.mark.parametrize("dialect", ["coder_legacy", "bifrost", "gen_ai"])
def test_promtool_can_read_each_dialect(dialect: str) -> None:
    scrape = Scrape(dialect, header_labels=("team",)).observe(started(), described(), ended())
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=generate_latest(scrape.registry), capture_output=True, check=False
    )
    # 3 is its status for advice about style; the names are not ours to change.
    assert checked.returncode in {0, 3}, checked.stderr.decode()
    assert b"error while linting" not in checked.stderr
