"""The contract with Coder's dashboards: written out here once more, so that a change of the code is seen."""

import pytest
from prometheus_client import CollectorRegistry

from aiproxyd.telemetry.coder import FAMILIES, CoderMetrics

INTERCEPTION_LABELS = ("provider", "model", "status", "route", "method", "initiator_id", "client")
BREAKER_LABELS = ("provider", "endpoint", "model")
INFO_LABELS = ("provider_name", "provider_type", "status")

CONTRACT = {
    "coder_ai_gateway_interceptions_total": ("counter", INTERCEPTION_LABELS, ()),
    "coder_ai_gateway_interceptions_inflight": ("gauge", ("provider", "model", "route"), ()),
    "coder_ai_gateway_interceptions_duration_seconds": ("histogram", ("provider", "model"), (0.5, 2, 5, 15, 30, 60, 120)),
    "coder_ai_gateway_passthrough_total": ("counter", ("provider", "route", "method"), ()),
    "coder_ai_gateway_prompts_total": ("counter", ("provider", "model", "initiator_id", "client"), ()),
    "coder_ai_gateway_tokens_total": ("counter", ("provider", "model", "type", "initiator_id", "client"), ()),
    "coder_ai_gateway_non_injected_tool_selections_total": ("counter", ("provider", "model", "name"), ()),
    "coder_ai_gateway_circuit_breaker_state": ("gauge", BREAKER_LABELS, ()),
    "coder_ai_gateway_circuit_breaker_trips_total": ("counter", BREAKER_LABELS, ()),
    "coder_ai_gateway_circuit_breaker_rejects_total": ("counter", BREAKER_LABELS, ()),
    "coder_ai_gateway_key_pool_state": ("gauge", ("provider", "state"), ()),
    "coder_ai_gateway_key_pool_state_transitions_total": ("counter", ("provider", "reason"), ()),
    "coder_ai_gateway_key_pool_exhaustions_total": ("counter", ("provider", "outcome"), ()),
    "coder_ai_gateway_key_pool_failover_attempts": ("histogram", ("provider",), (1, 2, 3, 4, 5, 10, 25)),
    "coder_ai_gateway_provider_info": ("gauge", INFO_LABELS, ()),
    "coder_ai_gateway_providers_last_reload_timestamp_seconds": ("gauge", (), ()),
    "coder_ai_gateway_providers_last_reload_success_timestamp_seconds": ("gauge", (), ()),
    "coder_ai_gateway_proxy_connect_sessions_total": ("counter", ("type",), ()),
    "coder_ai_gateway_proxy_mitm_requests_total": ("counter", ("provider",), ()),
    "coder_ai_gateway_proxy_inflight_mitm_requests": ("gauge", ("provider",), ()),
    "coder_ai_gateway_proxy_mitm_responses_total": ("counter", ("code", "provider"), ()),
    "coder_ai_gateway_proxy_provider_info": ("gauge", INFO_LABELS, ()),
    "coder_ai_gateway_proxy_providers_last_reload_timestamp_seconds": ("gauge", (), ()),
    "coder_ai_gateway_proxy_providers_last_reload_success_timestamp_seconds": ("gauge", (), ()),
}


def test_the_families_are_exactly_those_of_the_contract():
    assert {family.name for family in FAMILIES} == set(CONTRACT)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_type_labels_and_buckets_are_those_of_the_contract(family):
    assert (family.kind, family.labels, family.buckets) == CONTRACT[family.name]


def test_every_family_is_registered_with_its_type():
    registry = CollectorRegistry()
    CoderMetrics(registry)
    registered = {metric.name + ("_total" if metric.type == "counter" else ""): metric.type for metric in registry.collect()}
    assert registered == {name: kind for name, (kind, _, _) in CONTRACT.items()}
