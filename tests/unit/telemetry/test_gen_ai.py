"""Twin of aiproxyd/telemetry/gen_ai.py and semconv.py."""

import pytest

from aiproxyd.model.observation import PassthroughEnded, PassthroughStarted
from aiproxyd.model.outcome import ErrorType, Outcome, UsageSource
from aiproxyd.providers.apis import APIS
from aiproxyd.telemetry import gen_ai, semconv
from tests.unit.telemetry.observed import Scrape, described, ended, started

LABELS = {
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "anthropic",
    "gen_ai_request_model": "claude-x",
    "gen_ai_response_model": "claude-x-1",
    "server_address": "api.anthropic.com",
    "server_port": "443",
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


# From the conventions' own pages: well-known values, and buckets in the words "SHOULD be specified with".
OPERATIONS = {"chat", "embeddings", "generate_content", "text_completion"}
BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKEN_BUCKETS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)


@pytest.mark.parametrize("api", sorted(APIS))
def test_every_api_is_an_operation_of_the_conventions(api: str) -> None:
    assert semconv.operation_name(api) in OPERATIONS
    assert (semconv.operation_name(api) == "embeddings") is ("embed" in api)


@pytest.mark.parametrize(
    ("provider_type", "host", "name"),
    [
        ("google", "generativelanguage.googleapis.com", "gcp.gemini"),
        ("google", "europe-west1-aiplatform.googleapis.com", "gcp.vertex_ai"),
        ("anthropic", "api.anthropic.com", "anthropic"),
        ("mistral", "api.mistral.ai", "mistral_ai"),
        ("xai", "api.x.ai", "x_ai"),
        ("azure", "a.openai.azure.com", "azure.ai.openai"),
        ("a type of tomorrow", "h", "a type of tomorrow"),
    ],
)
def test_a_provider_is_called_what_the_conventions_call_it(provider_type: str, host: str, name: str) -> None:
    assert semconv.provider_name(provider_type, host) == name


def test_the_buckets_are_the_conventions_and_longer_ones() -> None:
    assert gen_ai.TOKEN_USAGE.buckets == TOKEN_BUCKETS
    for family in (gen_ai.DURATION, gen_ai.FIRST_CHUNK, gen_ai.PER_CHUNK):
        assert family.buckets[: len(BUCKETS)] == BUCKETS
    assert gen_ai.DURATION.buckets[-1] == gen_ai.FIRST_CHUNK.buckets[-1] > 600
