"""Twin of aiproxyd/telemetry/otlp_spans.py: OpenTelemetry's own messages decode what is encoded here, to the same values."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, SpanFlags, Status

from aiproxyd.telemetry.otlp_spans import (
    CLIENT,
    INTERNAL,
    SERVER,
    Envelope,
    Value,
    attributes_of_span,
    error_of_span,
    event_of_span,
    span,
)
from tests.support.otlp import attributes_of

INTEGERS = st.integers(-(2**63) + 1, 2**63 - 1)
VALUES: st.SearchStrategy[Value] = st.one_of(
    st.text(), st.booleans(), INTEGERS, st.floats(allow_nan=False), st.lists(st.text(max_size=5), max_size=3).map(tuple)
)
ATTRIBUTES = st.dictionaries(st.text(), VALUES)
TIMES = st.integers(0, 2**64 - 1)


def decoded(*spans: bytes) -> Any:
    envelope = Envelope({"service.name": "ours", "n": 3}, scope="aiproxyd", version="1.2", schema_url="https://schema")
    request = ExportTraceServiceRequest.FromString(envelope.export_request(spans))
    [resource_spans] = request.resource_spans
    assert attributes_of(resource_spans.resource) == {"service.name": "ours", "n": 3}
    [scope_spans] = resource_spans.scope_spans
    assert (scope_spans.scope.name, scope_spans.scope.version) == ("aiproxyd", "1.2")
    assert scope_spans.schema_url == "https://schema"
    return scope_spans.spans


def unpacked(attributes: dict[str, Value]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in attributes.items()}


@given(
    name=st.text(),
    trace_id=st.binary(min_size=16, max_size=16),
    span_id=st.binary(min_size=8, max_size=8),
    parent_id=st.sampled_from((b"", b"12345678")),
    begin=TIMES,
    end=TIMES,
    first=ATTRIBUTES,
    kind=st.sampled_from((INTERNAL, SERVER, CLIENT)),
)
def test_a_span_is_decoded_as_it_was_told(
    name: str, trace_id: bytes, span_id: bytes, parent_id: bytes, begin: int, end: int, first: dict[str, Value], kind: int
) -> None:
    [found] = decoded(span(name, trace_id, span_id, parent_id, begin, end, attributes_of_span(first), kind))
    assert (found.name, found.trace_id, found.span_id, found.parent_span_id) == (name, trace_id, span_id, parent_id)
    assert (found.start_time_unix_nano, found.end_time_unix_nano, found.kind) == (begin, end, kind)
    assert attributes_of(found) == unpacked(first)
    assert found.status.code == Status.STATUS_CODE_UNSET


@given(at=TIMES, first=ATTRIBUTES, second=ATTRIBUTES, message=st.text())
def test_parts_one_behind_the_other_are_one_span(
    at: int, first: dict[str, Value], second: dict[str, Value], message: str
) -> None:
    parts = attributes_of_span(first) + event_of_span("said", at, second) + error_of_span(message) + attributes_of_span(second)
    [found] = decoded(span("n", b"t" * 16, b"s" * 8, b"", 1, 2, parts))
    assert len(found.attributes) == len(first) + len(second)
    [event] = found.events
    assert (event.name, event.time_unix_nano, attributes_of(event)) == ("said", at, unpacked(second))
    assert (found.status.code, found.status.message) == (Status.STATUS_CODE_ERROR, message)


def test_many_spans_are_that_many() -> None:
    names = [str(number) for number in range(1000)]
    assert [found.name for found in decoded(*[span(name, b"t" * 16, b"s" * 8, b"", 1, 2, b"") for name in names])] == names


def test_the_kinds_and_flags_are_those_of_the_protocol() -> None:
    kinds = (Span.SPAN_KIND_INTERNAL, Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT)
    assert kinds == (INTERNAL, SERVER, CLIENT)
    within = span("n", b"t" * 16, b"s" * 8, b"p" * 8, 1, 2, b"")
    remote = span("n", b"t" * 16, b"s" * 8, b"p" * 8, 1, 2, b"", has_remote_parent=True)
    known = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
    assert [found.flags for found in decoded(within, remote)] == [
        known | 1,
        known | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK | 1,
    ]


def test_a_value_that_protobuf_cannot_hold_becomes_the_nearest_one() -> None:
    attributes: dict[str, Value] = {"much": 2**70, "little": -(2**70), "half": "\ud800"}
    [found] = decoded(span("n", b"t" * 16, b"s" * 8, b"", 1, 2, attributes_of_span(attributes)))
    assert attributes_of(found) == {"much": 2**63 - 1, "little": -(2**63) + 1, "half": "?"}
