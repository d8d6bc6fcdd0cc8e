"""Twin of aiproxyd/telemetry/traces.py: spans as OpenTelemetry's own messages decode them."""

from collections import Counter
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from aiproxyd.model.events import ThoughtSource
from aiproxyd.model.observation import (
    InterceptionDescribed,
    InterceptionEnded,
    InterceptionStarted,
    Observation,
    PassthroughEnded,
    PassthroughStarted,
    ThoughtRecorded,
    ToolCalled,
    WorkerStarted,
)
from aiproxyd.model.outcome import ErrorType, Outcome, UsageSource
from aiproxyd.model.usage import TokenUsage
from aiproxyd.telemetry.otlp import Sender, create_exporter
from aiproxyd.telemetry.settings import TracingSettings
from aiproxyd.telemetry.traces import MAX_RECORDS, TraceSink, envelope
from tests.support.otlp import attributes_of, grpc_collector, http_collector

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BASE = {
    "Intercept",
    "Intercept.CreateInterceptor",
    "Intercept.RecordInterception",
    "Intercept.ProcessRequest",
    "Intercept.ProcessRequest.Upstream",
    "Intercept.RecordInterceptionEnded",
}


def started(**more: Any) -> InterceptionStarted:
    fields: dict[str, Any] = {
        "at": 1000.0,
        "interception_id": "i1",
        "provider": "claude",
        "provider_type": "anthropic",
        "api": "anthropic.messages",
        "method": "POST",
        "route": "/v1/messages",
        "host": "api.anthropic.com",
        "principal_id": "u1",
        "principal_name": "ada",
    }
    return InterceptionStarted(**(fields | more))


def described(**more: Any) -> InterceptionDescribed:
    fields: dict[str, Any] = {
        "at": 1000.25,
        "interception_id": "i1",
        "request_model": "claude-x",
        "streaming": True,
        "has_prompt": True,
        "prompt": "the prompt",
        "client_session_id": "s1",
    }
    return InterceptionDescribed(**(fields | more))


def tool(position: int = 0) -> ToolCalled:
    return ToolCalled(at=1001, interception_id="i1", tool="Read", position=position, call_id="toolu_1", arguments='{"a": 1}')


def thought(position: int = 0) -> ThoughtRecorded:
    return ThoughtRecorded(
        at=1001, interception_id="i1", position=position, source=ThoughtSource.THINKING, content="the thought"
    )


def ended(**more: Any) -> InterceptionEnded:
    fields: dict[str, Any] = {
        "at": 1002.5,
        "interception_id": "i1",
        "outcome": Outcome.COMPLETED,
        "usage_source": UsageSource.REPORTED,
        "usage": TokenUsage(input_tokens=3, output_tokens=5, cache_read_input_tokens=7),
        "status_code": 200,
        "response_id": "msg_1",
        "response_model": "claude-x-1",
        "finish_reason": "end_turn",
        "first_output_seconds": 0.5,
    }
    return InterceptionEnded(**(fields | more))


FAILED = {"outcome": Outcome.UPSTREAM_ERROR, "usage_source": UsageSource.NONE, "error_type": ErrorType.RATE_LIMITED}


ERROR = 2


class Memory:
    """A sink whose spans stay here."""

    def __init__(self, **settings: Any) -> None:
        self._settings = TracingSettings(endpoint="", **settings)
        self._encoded: list[bytes] = []
        self.sink = TraceSink(self._encoded.extend, self._settings)

    def observe(self, *observations: Observation, worker: str = "w") -> "Memory":
        for observation in observations:
            self.sink.observe(worker, observation)
        return self

    @property
    def spans(self) -> Any:
        request = ExportTraceServiceRequest.FromString(envelope(self._settings).export_request(self._encoded))
        return request.resource_spans[0].scope_spans[0].spans

    @property
    def counts(self) -> Counter[str]:
        return Counter(span.name for span in self.spans)

    @property
    def failed(self) -> set[str]:
        return {span.name for span in self.spans if span.status.code == ERROR}

    def named(self, name: str) -> Any:
        return next(span for span in self.spans if span.name == name)

    def attributes(self, name: str) -> dict[str, Any]:
        return attributes_of(self.named(name))


def test_the_environment_says_more_of_where_we_run_and_nothing_else_of_who(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=staging,service.name=another")
    raw = envelope(TracingSettings(endpoint="", service_name="proxy-7")).export_request([])
    (found,) = ExportTraceServiceRequest.FromString(raw).resource_spans
    attributes = attributes_of(found.resource)
    assert attributes["service.name"] == "proxy-7"
    assert attributes["deployment.environment"] == "staging"


@pytest.mark.parametrize("collector", [grpc_collector, http_collector], ids=["grpc", "http"])
def test_a_collector_gets_every_span_with_its_parent(collector: Any) -> None:
    with collector() as (endpoint, received):
        protocol = "grpc" if collector is grpc_collector else "http"
        settings = TracingSettings(endpoint=endpoint, protocol=protocol, headers={"x-api-key": "of the collector"})
        sender = Sender(create_exporter(settings), envelope(settings))
        sink = TraceSink(sender.put, settings)
        for observation in (started(trace_parent=PARENT), described(), thought(), tool(), ended()):
            sink.observe("w", observation)
        sender.close()
        spans = {span.name: span for span in received.spans}
    intercept = spans["Intercept"]
    assert intercept.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert intercept.parent_span_id.hex() == "b7ad6b7169203331"
    assert (intercept.start_time_unix_nano, intercept.end_time_unix_nano) == (1000 * 10**9, 10025 * 10**8)
    process = spans["Intercept.ProcessRequest"]
    for name, parent in (
        ("Intercept.CreateInterceptor", intercept),
        ("Intercept.RecordInterception", intercept),
        ("Intercept.ProcessRequest", intercept),
        ("Intercept.RecordInterceptionEnded", intercept),
        ("Intercept.ProcessRequest.Upstream", process),
        ("Intercept.RecordPromptUsage", process),
        ("Intercept.RecordTokenUsage", process),
        ("Intercept.RecordToolUsage", process),
        ("Intercept.RecordModelThought", process),
    ):
        assert spans.pop(name).parent_span_id == parent.span_id, name
    assert set(spans) == {"Intercept"}
    attributes = attributes_of(intercept)
    assert (
        attributes
        | {
            "request_path": "/v1/messages",
            "interception_id": "i1",
            "user_id": "u1",
            "provider": "claude",
            "model": "claude-x",
            "streaming": True,
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": "claude-x",
            "gen_ai.response.model": "claude-x-1",
            "gen_ai.response.id": "msg_1",
            "gen_ai.response.finish_reasons": ["end_turn"],
            "gen_ai.usage.input_tokens": 10,
            "gen_ai.usage.output_tokens": 5,
            "gen_ai.conversation.id": "s1",
            "http.response.status_code": 200,
            "server.address": "api.anthropic.com",
            "server.port": 443,
        }
        == attributes
    )
    assert received.resources[0] | {"service.name": "coder-ai-gateway"} == received.resources[0]
    assert received.headers[0]["x-api-key"] == "of the collector"
    # Nothing that was said.
    assert not any(word in str(received.spans) for word in ("the prompt", "the thought", '"a"'))


@pytest.mark.parametrize(
    ("observations", "extra", "failed"),
    [
        ([described(streaming=False), thought(), tool(), ended()], "PTUO", set()),
        ([described(), thought(), thought(1), tool(), ended()], "PTUOO", set()),
        ([described(has_prompt=False), ended()], "T", set()),
        (
            [described(streaming=False), ended(**FAILED, status_code=429)],
            "P",
            {"", ".ProcessRequest", ".ProcessRequest.Upstream"},
        ),
        ([described(), ended(**FAILED, status_code=429)], "P", {"", ".ProcessRequest"}),
        ([described(), ended(outcome=Outcome.CLIENT_ABORTED)], "PT", {"", ".ProcessRequest"}),
        ([ended(**FAILED)], "", {"", ".ProcessRequest", ".ProcessRequest.Upstream"}),
    ],
)
def test_the_counts_and_errors_are_coders(observations: list[Observation], extra: str, failed: set[str]) -> None:
    memory = Memory().observe(started(), *observations)
    names = {"P": "RecordPromptUsage", "T": "RecordTokenUsage", "U": "RecordToolUsage", "O": "RecordModelThought"}
    expected = Counter(BASE) + Counter(f"Intercept.{names[letter]}" for letter in extra)
    assert memory.counts == expected
    assert memory.failed == {f"Intercept{name}" for name in failed}


def test_content_is_there_only_when_it_is_asked_for() -> None:
    memory = Memory(content=True, capture_logs=True).observe(started(), described(), thought(), tool(), ended())
    assert memory.attributes("Intercept.RecordPromptUsage")["gen_ai.input.messages"] == (
        '[{"role": "user", "parts": [{"type": "text", "content": "the prompt"}]}]'
    )
    assert memory.attributes("Intercept.RecordToolUsage")["gen_ai.tool.call.arguments"] == '{"a": 1}'
    assert memory.attributes("Intercept.RecordModelThought")["content"] == "the thought"
    events = memory.named("Intercept").events
    assert {event.name for event in events} == {"interception log"}
    assert [attributes_of(event)["record_type"] for event in events] == [
        "interception_start",
        "prompt_usage",
        "model_thought",
        "tool_usage",
        "token_usage",
        "interception_end",
    ]
    silent = Memory(capture_logs=True).observe(started(), described(), thought(), tool(), ended())
    said = str([attributes_of(event) for event in silent.named("Intercept").events])
    assert not any(word in said for word in ("the prompt", "the thought", '"a"'))


@pytest.mark.parametrize("parent", ["", "00", "00-zz-b7ad6b7169203331-01", "00-" + "0" * 32 + "-b7ad6b7169203331-01"])
def test_a_parent_that_is_none_begins_a_trace(parent: str) -> None:
    assert Memory().observe(started(trace_parent=parent), described(), ended()).named("Intercept").parent_span_id == b""


def test_a_client_that_does_not_sample_gets_no_spans() -> None:
    memory = Memory().observe(started(trace_parent=PARENT[:-1] + "0"), described(), tool(), ended())
    assert not memory.spans


@pytest.mark.parametrize(("ratio", "least", "most"), [(0.0, 0, 0), (0.5, 50, 150), (1.0, 200, 200)])
def test_a_share_of_the_requests_is_traced_and_each_wholly(ratio: float, least: int, most: int) -> None:
    memory = Memory(sample_ratio=ratio)
    for _ in range(200):
        memory.observe(started(), described(has_prompt=False), ended())
    counts = memory.counts
    assert least <= counts["Intercept"] <= most
    assert {counts[name] for name in BASE} == {counts["Intercept"]}


def test_a_passthrough_is_a_span_of_its_own() -> None:
    memory = Memory().observe(
        PassthroughStarted(
            at=1,
            request_id="p",
            provider="claude",
            method="GET",
            route="/v1/models",
            host="api.anthropic.com",
            trace_parent=PARENT,
        ),
        PassthroughEnded(at=2, request_id="p", provider="claude", status_code=404),
    )
    attributes = memory.attributes("Passthrough")
    assert attributes["passthrough_url"] == "/v1/models"
    assert attributes["passthrough_upstream_url"] == "https://api.anthropic.com/v1/models"
    assert memory.named("Passthrough").parent_span_id.hex() == PARENT.split("-")[2]
    assert memory.failed == {"Passthrough"}


def test_what_a_dead_worker_had_open_ends_with_it() -> None:
    memory = Memory().observe(
        started(), described(), PassthroughStarted(at=1, request_id="p", provider="claude", method="GET", route="/")
    )
    memory.sink.worker_lost("w")
    memory.sink.worker_lost("w")
    assert memory.counts == Counter(BASE | {"Intercept.RecordPromptUsage", "Passthrough"})
    assert memory.attributes("Intercept")["outcome"] == "interrupted"


def test_a_worker_that_begins_anew_has_nothing_open() -> None:
    memory = Memory().observe(started(), WorkerStarted(at=1, worker_id="w", pid=1), described(), tool(), ended())
    memory.sink.observe("w", PassthroughEnded(at=2, request_id="p", provider="claude", status_code=200))
    assert not memory.spans


def test_a_request_of_many_calls_has_so_many_spans_and_no_more() -> None:
    memory = Memory().observe(started(), described(), *[tool(n) for n in range(MAX_RECORDS + 5)], ended())
    assert memory.counts["Intercept.RecordToolUsage"] == MAX_RECORDS
    assert memory.attributes("Intercept")["records_dropped"] == 5


def test_a_clock_that_steps_back_makes_no_span_end_before_it_begins() -> None:
    memory = Memory().observe(started(at=2000.0), described(at=1500.0), tool(), ended(at=float("-inf")))
    assert len(memory.spans) == 9
    assert all(span.start_time_unix_nano <= span.end_time_unix_nano for span in memory.spans)
