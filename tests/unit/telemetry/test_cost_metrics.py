"""What the sink counts of cost and of time between tokens."""

import pytest

from aiproxyd.model.billing import Billing
from aiproxyd.model.observation import ConnectDecided, ConnectionSecured, ResponseProgressed
from aiproxyd.model.usage import TokenUsage
from aiproxyd.model.verdict import Action
from aiproxyd.telemetry.own import OverheadPart
from tests.unit.telemetry.observed import USER, Scrape, described, ended, started

COST = "coder_ai_gateway_cost_usd_total"
UNPRICED = "coder_ai_gateway_cost_control_unpriced_token_usage_records_total"


def test_cost_is_counted_by_its_basis() -> None:
    scrape = Scrape().observe(started(), described(), ended())
    scrape.observe(started(billing=Billing.SUBSCRIPTION), described(), ended())
    labels = {"provider": "claude", "model": "claude-x", "initiator_id": USER, "client": "Claude Code"}
    assert scrape.value(COST, **labels, basis="list_price") == pytest.approx(0.000201)
    assert scrape.value(COST, **labels, basis="list_price_equivalent") == pytest.approx(0.000201)
    assert scrape.value(UNPRICED) is None


def test_what_has_no_price_is_counted_and_never_zero() -> None:
    scrape = Scrape().observe(started(), described(), ended(response_model="unknown-model"))
    assert scrape.value(COST) is None
    assert scrape.value(UNPRICED, provider="claude", provider_type="anthropic", model="claude-x") == 1


def test_a_request_whose_worker_died_costs_what_was_reported() -> None:
    scrape = Scrape().observe(
        started(),
        described(),
        ResponseProgressed(at=1001, interception_id="i1", response_model="m", usage=TokenUsage(input_tokens=1_000_000)),
    )
    scrape.sink.worker_lost("w")
    assert scrape.value(COST) == 1


@pytest.mark.parametrize(
    ("more", "is_told"),
    [
        ({}, True),
        ({"usage": TokenUsage(output_tokens=1)}, False),
        ({"first_output_seconds": None}, False),
    ],
)
def test_the_time_between_tokens_is_told_where_it_can_be(more: dict, is_told: bool) -> None:
    scrape = Scrape().observe(started(), described(), ended(**more))
    seconds = scrape.value("coder_ai_gateway_time_per_output_token_seconds_sum")
    assert seconds == (pytest.approx(0.02) if is_told else None)


def test_overhead_is_split_by_part() -> None:
    scrape = Scrape().observe(
        ConnectDecided(at=1, action=Action.DECRYPT, reason="provider", status_code=200, decide_seconds=0.5, dial_seconds=2),
        ConnectionSecured(at=1, provider="p", seconds=3),
        started(),
        described(),
        ended(held_seconds=4.0, tap_seconds=5.0),
    )
    sums = {part: scrape.value("coder_ai_gateway_proxy_overhead_seconds_sum", part=part) for part in OverheadPart}
    assert sums == {"auth": 0.5, "upstream_connect": 2, "tls": 3, "first_byte": 4, "tap": 5}


def test_overhead_that_nobody_measured_is_not_zero() -> None:
    scrape = Scrape().observe(started(), described(), ended())
    for part in OverheadPart:
        assert scrape.value("coder_ai_gateway_proxy_overhead_seconds_count", part=part) == 0


def test_users_may_be_left_out_of_every_metric() -> None:
    scrape = Scrape(per_user=False).observe(started(), described(has_prompt=True), ended())
    for name in ("interceptions_total", "tokens_total", "prompts_total", "cost_usd_total"):
        assert {labels["initiator_id"] for labels in scrape.labels(f"coder_ai_gateway_{name}")} == {"all"}
