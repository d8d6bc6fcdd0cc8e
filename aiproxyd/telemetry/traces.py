"""Spans of intercepted requests, made in control from observations: the data plane pays nothing. Not the collector, and no clock.

Names, parents and attributes are those of Coder's AI Gateway; attributes of OpenTelemetry's conventions stand beside them.

    Intercept
    ├─ Intercept.CreateInterceptor            from the request's head to the end of its body
    ├─ Intercept.RecordInterception
    ├─ Intercept.ProcessRequest
    │  ├─ Intercept.ProcessRequest.Upstream   the provider's part
    │  └─ Intercept.RecordPromptUsage, RecordTokenUsage, RecordToolUsage, RecordModelThought: one a record
    └─ Intercept.RecordInterceptionEnded
    Passthrough                               a request to any other endpoint

All spans of a request are made when it has ended, with the times of its observations. What ended while no collector listened is
lost once the queue is full, and only for traces: nothing waits for a collector.

Errors are set as Coder sets them: on Intercept and ProcessRequest, and on Upstream where the response was no stream.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import aiproxyd
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
from aiproxyd.model.outcome import Outcome, UsageSource
from aiproxyd.telemetry import semconv
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
from aiproxyd.telemetry.settings import TracingSettings

MAX_RECORDS: Final = 256
"""Tool calls and thoughts of one request that get spans; the rest is counted in `records_dropped`."""

MAX_CONTENT_CHARACTERS: Final = 16_384
"""Of a prompt, of arguments and of reasoning, where content is asked for."""

LOG_MESSAGE: Final = "interception log"
"""Name of the events that `capture_logs` makes; Coder's message."""

_NANOSECONDS: Final = 1_000_000_000
_MAX_64: Final = 2**64 - 1
_TRACE_PARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")

type _Attributes = dict[str, Value]


class _Parent(NamedTuple):
    """A client's span."""

    trace_id: bytes
    span_id: bytes
    is_sampled: bool


def envelope(settings: TracingSettings) -> Envelope:
    """Return who says the spans: ourselves, and what `OTEL_RESOURCE_ATTRIBUTES` says of where we run."""
    # Imported when traces are wanted: most daemons do not need it.
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    own = Resource({"service.name": settings.service_name, "service.version": aiproxyd.__version__})
    resource = {name: str(value) for name, value in OTELResourceDetector().detect().merge(own).attributes.items()}
    return Envelope(resource, scope="aiproxyd", version=aiproxyd.__version__, schema_url=semconv.SCHEMA_URL)


class _Open:
    """An interception that has not ended."""

    __slots__ = ("described", "dropped", "records", "started")

    def __init__(self, started: InterceptionStarted) -> None:
        self.started = started
        self.described: InterceptionDescribed | None = None
        self.records: list[ToolCalled | ThoughtRecorded] = []
        self.dropped = 0


class _Worker:
    __slots__ = ("at", "interceptions", "passthroughs")

    def __init__(self) -> None:
        self.at = 0.0
        self.interceptions: dict[str, _Open] = {}
        self.passthroughs: dict[str, PassthroughStarted] = {}


class TraceSink:
    """Makes spans of what the workers observed. Total: no observation raises."""

    def __init__(self, put: Callable[[Sequence[bytes]], None], settings: TracingSettings) -> None:
        """Have seen nothing yet.

        Args:
            put: Gets the spans of a request, encoded, once it has ended.
            settings: What is in them.
        """
        self._put = put
        self._settings = settings
        self._sampled_up_to = round(settings.sample_ratio * (_MAX_64 + 1)) - 1
        self._workers: dict[str, _Worker] = {}

    def observe(self, worker_id: str, observation: Observation) -> None:
        """Take one observation of a worker, in the order of its journal."""
        worker = self._workers.get(worker_id)
        if worker is None:
            worker = self._workers[worker_id] = _Worker()
        worker.at = observation.at
        match observation:
            case InterceptionStarted():
                worker.interceptions[observation.interception_id] = _Open(observation)
            case InterceptionDescribed():
                if (interception := worker.interceptions.get(observation.interception_id)) is not None:
                    interception.described = observation
            case ToolCalled() | ThoughtRecorded():
                if (interception := worker.interceptions.get(observation.interception_id)) is not None:
                    if len(interception.records) < MAX_RECORDS:
                        interception.records.append(observation)
                    else:
                        interception.dropped += 1
            case InterceptionEnded():
                if (interception := worker.interceptions.pop(observation.interception_id, None)) is not None:
                    self._intercept(interception, observation)
            case PassthroughStarted():
                worker.passthroughs[observation.request_id] = observation
            case PassthroughEnded():
                if (started := worker.passthroughs.pop(observation.request_id, None)) is not None:
                    self._pass_through(started, observation.at, observation.status_code)
            case WorkerStarted():
                self._workers[worker_id] = _Worker()
            case _:
                pass

    def worker_lost(self, worker_id: str) -> None:
        """End what a dead worker had open."""
        worker = self._workers.pop(worker_id, None)
        if worker is None:
            return
        for started in worker.passthroughs.values():
            self._pass_through(started, worker.at, 0)
        for id_, interception in worker.interceptions.items():
            self._intercept(
                interception,
                InterceptionEnded(
                    at=worker.at, interception_id=id_, outcome=Outcome.INTERRUPTED, usage_source=UsageSource.NONE
                ),
            )

    def _intercept(self, interception: _Open, ended: InterceptionEnded) -> None:
        started, described = interception.started, interception.described
        parent = _parent(started.trace_parent)
        trace_id = self._trace_id(parent)
        if trace_id is None:
            return
        begin = _time(started.at)
        # Clocks of one process may step back; a span never ends before it begins.
        end = max(begin, _time(ended.at))
        read = min(end, max(begin, _time(described.at))) if described is not None else begin
        common = attributes_of_span(_common(started, described))
        facts = common + attributes_of_span(_facts(started, described, ended))
        failure = of_upstream = b""
        if ended.outcome is not Outcome.COMPLETED:
            failure = error_of_span(ended.error_message or ended.outcome)
            if described is None or not described.streaming:
                of_upstream = failure
        intercept, process = _span_id(), _span_id()

        def within(name: str, parent_id: bytes, begin: int, end: int, parts: bytes, *, kind: int = INTERNAL) -> bytes:
            return span(name, trace_id, _span_id(), parent_id, begin, end, parts, kind)

        spans = [
            within("Intercept.CreateInterceptor", intercept, begin, read, common),
            within("Intercept.RecordInterception", intercept, begin, begin, common),
            within("Intercept.ProcessRequest.Upstream", process, read, end, facts + of_upstream, kind=CLIENT),
            span("Intercept.ProcessRequest", trace_id, process, intercept, read, end, common + failure),
            within("Intercept.RecordInterceptionEnded", intercept, end, end, common),
        ]
        if described is not None and described.has_prompt:
            spans.append(within("Intercept.RecordPromptUsage", process, read, read, common + self._prompt(described)))
        for record in interception.records:
            at = min(end, max(read, _time(record.at)))
            name, more = self._record(record)
            spans.append(within(name, process, at, at, common + attributes_of_span(more)))
        if ended.usage_source is not UsageSource.NONE:
            usage = common + attributes_of_span(_usage(ended))
            spans.append(within("Intercept.RecordTokenUsage", process, end, end, usage))
        whole = facts + failure
        if interception.dropped:
            whole += attributes_of_span({"records_dropped": interception.dropped})
        if self._settings.capture_logs:
            for seen_at, fields in self._log_records(interception, ended):
                whole += event_of_span(LOG_MESSAGE, _time(seen_at), fields)
        is_within = parent is not None
        parent_id = parent.span_id if parent is not None else b""
        spans.append(span("Intercept", trace_id, intercept, parent_id, begin, end, whole, SERVER, has_remote_parent=is_within))
        self._put(spans)

    def _pass_through(self, started: PassthroughStarted, at: float, status_code: int) -> None:
        parent = _parent(started.trace_parent)
        trace_id = self._trace_id(parent)
        if trace_id is None:
            return
        begin = _time(started.at)
        attributes: _Attributes = {
            "passthrough_url": started.route,
            "passthrough_upstream_url": f"https://{started.host}{started.route}",
            semconv.SERVER_ADDRESS: started.host,
            "passthrough_method": started.method,
            "provider": started.provider,
            semconv.HTTP_STATUS: status_code,
        }
        failure = b"" if 100 <= status_code < 400 else error_of_span("")
        parts = attributes_of_span(attributes) + failure
        parent_id = parent.span_id if parent is not None else b""
        end = max(begin, _time(at))
        is_within = parent is not None
        whole = span("Passthrough", trace_id, _span_id(), parent_id, begin, end, parts, SERVER, has_remote_parent=is_within)
        self._put([whole])

    def _trace_id(self, parent: _Parent | None) -> bytes | None:
        """Return the trace of a request, or None when the request is not sampled."""
        if parent is not None:
            return parent.trace_id if parent.is_sampled else None
        trace_id = random.getrandbits(128) or 1
        return trace_id.to_bytes(16) if (trace_id & _MAX_64) <= self._sampled_up_to else None

    def _prompt(self, described: InterceptionDescribed) -> bytes:
        if not self._settings.content or described.prompt is None:
            return b""
        return attributes_of_span({semconv.INPUT_MESSAGES: semconv.input_messages(described.prompt[:MAX_CONTENT_CHARACTERS])})

    def _record(self, record: ToolCalled | ThoughtRecorded) -> tuple[str, _Attributes]:
        if isinstance(record, ToolCalled):
            facts: _Attributes = {
                semconv.TOOL_NAME: record.tool,
                semconv.TOOL_CALL_ID: record.call_id,
                semconv.TOOL_TYPE: record.tool_kind,
            }
            if self._settings.content and record.arguments is not None:
                facts[semconv.TOOL_CALL_ARGUMENTS] = record.arguments[:MAX_CONTENT_CHARACTERS]
            return "Intercept.RecordToolUsage", facts
        thought: _Attributes = {"source": record.source}
        if self._settings.content:
            thought["content"] = record.content[:MAX_CONTENT_CHARACTERS]
        return "Intercept.RecordModelThought", thought

    def _log_records(self, interception: _Open, ended: InterceptionEnded) -> Iterator[tuple[float, _Attributes]]:
        """Yield the structured log's records with their times; content stays out unless it is asked for."""
        started, described = interception.started, interception.described
        id_ = {"interception_id": started.interception_id}
        yield (
            started.at,
            {
                "record_type": "interception_start",
                **id_,
                "initiator_id": started.principal_id,
                "provider": started.provider,
                "model": described.request_model if described is not None else "",
                "client": started.client,
                "client_session_id": described.client_session_id if described is not None else "",
                "correlating_tool_call_id": described.correlating_tool_call_id if described is not None else "",
            },
        )
        if described is not None and described.has_prompt:
            prompt = {"prompt": (described.prompt or "")[:MAX_CONTENT_CHARACTERS]} if self._settings.content else {}
            yield described.at, {"record_type": "prompt_usage", **id_, "msg_id": ended.response_id, **prompt}
        for record in interception.records:
            if isinstance(record, ToolCalled):
                input_ = {"input": (record.arguments or "")[:MAX_CONTENT_CHARACTERS]} if self._settings.content else {}
                yield (
                    record.at,
                    {
                        "record_type": "tool_usage",
                        **id_,
                        "msg_id": record.response_id,
                        "tool_call_id": record.call_id,
                        "item_id": record.item_id,
                        "tool": record.tool,
                        "server_url": record.server_url,
                        "injected": False,
                        **input_,
                    },
                )
            else:
                content = {"content": record.content[:MAX_CONTENT_CHARACTERS]} if self._settings.content else {}
                yield record.at, {"record_type": "model_thought", **id_, **content}
        if ended.usage_source is not UsageSource.NONE:
            usage = ended.usage
            yield (
                ended.at,
                {
                    "record_type": "token_usage",
                    **id_,
                    "msg_id": ended.response_id,
                    "input_tokens": usage.input_tokens,
                    "output_tokens": usage.output_tokens,
                    "cache_read_input_tokens": usage.cache_read_input_tokens,
                    "cache_write_input_tokens": usage.cache_write_input_tokens,
                },
            )
        yield ended.at, {"record_type": "interception_end", **id_}


def _time(at: float) -> int:
    """Return a Unix time in nanoseconds; what is none becomes the beginning of time."""
    return int(at * _NANOSECONDS) if 0 <= at < 1e10 else 0


def _parent(trace_parent: str) -> _Parent | None:
    """Return a client's span, or None."""
    found = _TRACE_PARENT.fullmatch(trace_parent) if trace_parent else None
    if found is None:
        return None
    trace_id, span_id, flags = found.groups()
    if not (trace_id.strip("0") and span_id.strip("0")):
        return None
    return _Parent(bytes.fromhex(trace_id), bytes.fromhex(span_id), is_sampled=bool(int(flags, 16) & 1))


def _span_id() -> bytes:
    return (random.getrandbits(64) or 1).to_bytes(8)


def _common(started: InterceptionStarted, described: InterceptionDescribed | None) -> _Attributes:
    """Return Coder's attributes of every span of an interception."""
    return {
        "request_path": started.route,
        "interception_id": started.interception_id,
        "user_id": started.principal_id,
        "provider": started.provider,
        "model": described.request_model if described is not None else "",
        "streaming": described.streaming if described is not None else False,
    }


def _facts(started: InterceptionStarted, described: InterceptionDescribed | None, ended: InterceptionEnded) -> _Attributes:
    """Return what Intercept and Upstream say besides: the attributes of the conventions."""
    attributes: _Attributes = {
        semconv.OPERATION_NAME: semconv.operation_name(started.api),
        semconv.PROVIDER_NAME: semconv.provider_name(started.provider_type, started.host),
        semconv.REQUEST_MODEL: described.request_model if described is not None else "",
        semconv.REQUEST_STREAM: described.streaming if described is not None else False,
        semconv.SERVER_ADDRESS: started.host,
        semconv.SERVER_PORT: started.port,
        semconv.HTTP_METHOD: started.method,
        semconv.URL_PATH: started.route,
        semconv.USER_ID: started.principal_id,
        semconv.USER_AGENT: started.user_agent,
        "client": started.client,
        "outcome": ended.outcome,
    }
    if ended.status_code:
        attributes[semconv.HTTP_STATUS] = ended.status_code
    for name, value in (
        (semconv.RESPONSE_ID, ended.response_id),
        (semconv.RESPONSE_MODEL, ended.response_model),
        (semconv.CONVERSATION_ID, described.client_session_id if described is not None else ""),
        (semconv.ERROR_TYPE, ended.error_type or ""),
    ):
        if value:
            attributes[name] = value
    if ended.finish_reason:
        attributes[semconv.FINISH_REASONS] = (ended.finish_reason,)
    if ended.first_output_seconds is not None:
        attributes[semconv.TIME_TO_FIRST_CHUNK] = ended.first_output_seconds
    if ended.usage_source is not UsageSource.NONE:
        attributes |= _usage(ended)
    return attributes


def _usage(ended: InterceptionEnded) -> _Attributes:
    usage = ended.usage
    return {
        semconv.INPUT_TOKENS: usage.total_input_tokens,
        semconv.OUTPUT_TOKENS: usage.output_tokens,
        semconv.CACHE_READ_TOKENS: usage.cache_read_input_tokens,
        semconv.CACHE_WRITE_TOKENS: usage.cache_write_input_tokens,
        semconv.REASONING_TOKENS: usage.reasoning_output_tokens,
        "usage_source": ended.usage_source,
    }
