"""Twin of aiproxyd/telemetry/gen_ai.py and semconv.py."""

import pytest

from aiproxyd.model.observation import PassthroughEnded, PassthroughStarted
from aiproxyd.model.outcome import ErrorType, Outcome, UsageSource
from aiproxyd.telemetry import gen_ai, semconv
from tests.unit.telemetry.observed import Scrape, described, ended, started

LABELS = {
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "anthropic",
    "gen_ai_request_model": "claude-x",
    "gen_ai_response_model": "claude-x-1",
    "server_address": "api.anthropic.com",
}


def test_an_operation_is_observed_by_the_conventions_names() -> None:
    scrape = Scrape("gen_ai", header_labels=("team",)).observe(started(labels={"team": "a"}), described(), ended())
    assert scrape.value("gen_ai_client_operation_duration_seconds_sum", **LABELS, error_type="", team="a") == 3
    assert scrape.value("gen_ai_client_token_usage_sum", **LABELS, gen_ai_token_type="input") == 100
    assert scrape.value("gen_ai_client_token_usage_sum", **LABELS, gen_ai_token_type="output") == 101
    assert scrape.value("gen_ai_client_operation_time_to_first_chunk_seconds_sum", **LABELS) == 1
    assert scrape.value("gen_ai_client_operation_time_per_output_chunk_seconds_sum", **LABELS) == pytest.approx(0.02)


def test_a_failure_names_its_error() -> None:
    scrape = Scrape("gen_ai")
    for id_, outcome, error in (("a", Outcome.UPSTREAM_ERROR, ErrorType.OVERLOADED), ("b", Outcome.PARSE_FAILED, None)):
        scrape.observe(
            started(interception_id=id_),
            described(interception_id=id_),
            ended(interception_id=id_, outcome=outcome, error_type=error, usage_source=UsageSource.NONE),
        )
    assert scrape.value("gen_ai_client_operation_duration_seconds_count", error_type="overloaded") == 1
    assert scrape.value("gen_ai_client_operation_duration_seconds_count", error_type="parse_failed") == 1
    assert scrape.value("gen_ai_client_token_usage_count") is None


def test_what_is_not_intercepted_is_no_operation() -> None:
    scrape = Scrape("gen_ai").observe(
        PassthroughStarted(at=1, request_id="p", provider="claude", method="GET", route="/v1/models"),
        PassthroughEnded(at=3, request_id="p", provider="claude", status_code=200),
    )
    assert scrape.value("gen_ai_client_operation_duration_seconds_count") is None


def test_inventions_of_providers_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gen_ai, "MAX_SERIES_TUPLES", 60)
    scrape = Scrape("gen_ai")
    for number in range(200):
        scrape.observe(started(), described(), ended(response_model=f"m{number}"))
    assert scrape.value("gen_ai_client_operation_duration_seconds_count") == 200
    assert len(scrape.labels("gen_ai_client_operation_duration_seconds_count")) <= 60


def test_the_words_are_the_conventions() -> None:
    assert semconv.operation_name("google.generate_content") == "generate_content"
    assert semconv.provider_name("google") == "gcp.gemini"
    assert semconv.provider_name("a type of tomorrow") == "a type of tomorrow"
