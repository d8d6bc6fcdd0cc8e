"""Twin of aiproxyd/telemetry/exposed.py."""

from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from aiproxyd.telemetry import coder
from aiproxyd.telemetry.exposed import LabelledRegistry, legacy_name
from tests.unit.telemetry.observed import Scrape, described, ended, started


def test_former_names_have_equal_values() -> None:
    scrape = Scrape("coder_legacy").observe(started(), described(has_prompt=True), ended())
    scrape.sink.reload_attempted(5)
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for metric in scrape.registry.collect()
        for sample in metric.samples
    }
    families = {family.name.removesuffix("_total") for family in coder.FAMILIES}
    ours = {key: value for key, value in samples.items() if any(key[0].startswith(name) for name in families)}
    assert ours
    for (name, labels), value in ours.items():
        assert samples[legacy_name(name), labels] == value
    assert samples["coder_aibridgeproxyd_mitm_requests_total", (("provider", "claude"),)] == 1
    # What Coder never had under a former name has none.
    assert not any(name.startswith("coder_aibridged_cost") for name, _ in samples)


def test_former_names_come_only_when_asked_for() -> None:
    assert b"aibridged" not in generate_latest(Scrape().observe(started(), described(), ended()).registry)


def test_constant_labels_are_on_every_series() -> None:
    scrape = Scrape("bifrost").observe(started(), described(), ended())
    registry = LabelledRegistry(scrape.registry, {"environment": "production", "provider": "not this"})
    for metric in registry.collect():
        for sample in metric.samples:
            assert sample.labels["environment"] == "production"
    assert (
        registry.get_sample_value(
            "coder_ai_gateway_proxy_mitm_requests_total", {"provider": "claude", "environment": "production"}
        )
        == 1
    )


def test_durations_and_cost_lead_to_the_record_in_openmetrics() -> None:
    scrape = Scrape("bifrost", "gen_ai").observe(started(), described(), ended())
    text = generate_openmetrics(scrape.registry).decode()
    found = {
        sample.name
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.exemplar and sample.exemplar.labels == {"interception_id": "i1"}
    }
    assert found >= {
        "coder_ai_gateway_interceptions_duration_seconds_bucket",
        "coder_ai_gateway_time_to_first_output_seconds_bucket",
        "coder_ai_gateway_cost_usd_total",
        "bifrost_cost_total",
        "bifrost_upstream_latency_seconds_bucket",
        "gen_ai_client_operation_duration_seconds_bucket",
    }
    assert b"interception_id" not in generate_latest(scrape.registry)
    without = Scrape(exemplars=False).observe(started(), described(), ended())
    assert b"interception_id" not in generate_openmetrics(without.registry)


def test_an_id_that_is_too_long_for_an_exemplar_has_none() -> None:
    id_ = "i" * 200
    scrape = Scrape().observe(started(interception_id=id_), described(interception_id=id_), ended(interception_id=id_))
    assert scrape.value("coder_ai_gateway_interceptions_total") == 1
