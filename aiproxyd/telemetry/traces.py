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
from collections.abc import Iterator, Sequence
from typing import Any, Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

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
from aiproxyd.telemetry.settings import TracingSettings

MAX_RECORDS: Final = 256
"""Tool calls and thoughts of one request that get spans; the rest is counted in `records_dropped`."""

MAX_CONTENT_CHARACTERS: Final = 16_384
"""Of a prompt, of arguments and of reasoning, where content is asked for."""

LOG_MESSAGE: Final = "interception log"
"""Name of the events that `capture_logs` makes; Coder's message."""

_NANOSECONDS: Final = 1_000_000_000
_MAX_64: Final = 2**64 - 1
_ERROR: Final = Status(StatusCode.ERROR)
_UNSET: Final = Status(StatusCode.UNSET)
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_SCOPE: Final = InstrumentationScope("aiproxyd", aiproxyd.__version__, semconv.SCHEMA_URL)


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

    def __init__(self, processor: SpanProcessor, settings: TracingSettings) -> None:
        """Have seen nothing yet.

        Args:
            processor: Gets the spans.
            settings: What is in them.
        """
        self._processor = processor
        self._settings = settings
        self._resource = Resource.create({"service.name": settings.service_name, "service.version": aiproxyd.__version__})
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

    def close(self) -> None:
        """Send what is queued and stop; waits for the collector as long as an export may take."""
        self._processor.shutdown()

    def _intercept(self, interception: _Open, ended: InterceptionEnded) -> None:
        started, described = interception.started, interception.described
        parent = _parent(started.trace_parent)
        intercept = self._begin(parent)
        if intercept is None:
            return
        begin = _time(started.at)
        # Clocks of one process may step back; a span never ends before it begins.
        end = max(begin, _time(ended.at))
        read = min(end, max(begin, _time(described.at))) if described is not None else begin
        common = _common(started, described)
        attributes = _attributes(common, started, described, ended)
        status, of_upstream = _UNSET, _UNSET
        if ended.outcome is not Outcome.COMPLETED:
            status = Status(StatusCode.ERROR, ended.error_message or str(ended.outcome))
            if described is None or not described.streaming:
                of_upstream = status
        process = _inside(intercept)
        emit = self._emit
        emit("Intercept.CreateInterceptor", _inside(intercept), intercept, begin, read, common)
        emit("Intercept.RecordInterception", _inside(intercept), intercept, begin, begin, common)
        upstream = _inside(process)
        emit("Intercept.ProcessRequest.Upstream", upstream, process, read, end, attributes, SpanKind.CLIENT, of_upstream)
        if described is not None and described.has_prompt:
            prompt = common | self._prompt(described)
            emit("Intercept.RecordPromptUsage", _inside(process), process, read, read, prompt)
        for record in interception.records:
            at = min(end, max(read, _time(record.at)))
            name, facts = self._record(record)
            emit(name, _inside(process), process, at, at, common | facts)
        if ended.usage_source is not UsageSource.NONE:
            emit("Intercept.RecordTokenUsage", _inside(process), process, end, end, common | _usage(ended))
        emit("Intercept.ProcessRequest", process, intercept, read, end, common, status=status)
        emit("Intercept.RecordInterceptionEnded", _inside(intercept), intercept, end, end, common)
        events: list[Event] = []
        if self._settings.capture_logs:
            for seen_at, fields in self._log_records(interception, ended):
                events.append(Event(LOG_MESSAGE, fields, _time(seen_at)))
        if interception.dropped:
            attributes = attributes | {"records_dropped": interception.dropped}
        emit("Intercept", intercept, parent, begin, end, attributes, SpanKind.SERVER, status, events)

    def _pass_through(self, started: PassthroughStarted, at: float, status_code: int) -> None:
        context = self._begin(None)
        if context is None:
            return
        begin = _time(started.at)
        attributes = {
            "passthrough_url": started.route,
            "passthrough_upstream_url": started.route,
            "passthrough_method": started.method,
            "provider": started.provider,
            semconv.HTTP_STATUS: status_code,
        }
        status = _UNSET if 100 <= status_code < 400 else _ERROR
        self._emit("Passthrough", context, None, begin, max(begin, _time(at)), attributes, SpanKind.SERVER, status)

    def _begin(self, parent: SpanContext | None) -> SpanContext | None:
        """Return the context of a request's first span, or None when the request is not sampled."""
        if parent is not None:
            return _inside(parent) if parent.trace_flags.sampled else None
        trace_id = random.getrandbits(128) or 1
        if (trace_id & _MAX_64) > self._sampled_up_to:
            return None
        return SpanContext(trace_id, random.getrandbits(64) or 1, is_remote=False, trace_flags=_SAMPLED)

    def _emit(  # noqa: PLR0917  (in the order in which a span is told)
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        begin: int,
        end: int,
        attributes: dict[str, Any],
        kind: SpanKind = SpanKind.INTERNAL,
        status: Status = _UNSET,
        events: Sequence[Event] = (),
    ) -> None:
        # Every time is known already, so that a tracer's bookkeeping of live spans would only cost: four times as much.
        self._processor.on_end(
            ReadableSpan(
                name,
                context,
                parent,
                self._resource,
                attributes,
                events,
                kind=kind,
                status=status,
                start_time=begin,
                end_time=end,
                instrumentation_scope=_SCOPE,
            )
        )

    def _prompt(self, described: InterceptionDescribed) -> dict[str, Any]:
        if not self._settings.content or described.prompt is None:
            return {}
        return {semconv.INPUT_MESSAGES: described.prompt[:MAX_CONTENT_CHARACTERS]}

    def _record(self, record: ToolCalled | ThoughtRecorded) -> tuple[str, dict[str, Any]]:
        if isinstance(record, ToolCalled):
            facts: dict[str, Any] = {
                semconv.TOOL_NAME: record.tool,
                semconv.TOOL_CALL_ID: record.call_id,
                semconv.TOOL_TYPE: str(record.tool_kind),
            }
            if self._settings.content and record.arguments is not None:
                facts[semconv.TOOL_CALL_ARGUMENTS] = record.arguments[:MAX_CONTENT_CHARACTERS]
            return "Intercept.RecordToolUsage", facts
        thought = {"source": str(record.source)}
        if self._settings.content:
            thought["content"] = record.content[:MAX_CONTENT_CHARACTERS]
        return "Intercept.RecordModelThought", thought

    def _log_records(self, interception: _Open, ended: InterceptionEnded) -> Iterator[tuple[float, dict[str, Any]]]:
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


def _parent(trace_parent: str) -> SpanContext | None:
    """Return a client's span, or None."""
    fields = trace_parent.split("-")
    if len(fields) < 4:
        return None
    try:
        context = SpanContext(
            int(fields[1], 16), int(fields[2], 16), is_remote=True, trace_flags=TraceFlags(int(fields[3], 16))
        )
    except ValueError:
        return None
    return context if context.is_valid else None


def _inside(parent: SpanContext) -> SpanContext:
    """Return the context of a new span within `parent`."""
    return SpanContext(parent.trace_id, random.getrandbits(64) or 1, is_remote=False, trace_flags=_SAMPLED)


def _common(started: InterceptionStarted, described: InterceptionDescribed | None) -> dict[str, Any]:
    """Return Coder's attributes of every span of an interception."""
    return {
        "request_path": started.route,
        "interception_id": started.interception_id,
        "user_id": started.principal_id,
        "provider": started.provider,
        "model": described.request_model if described is not None else "",
        "streaming": described.streaming if described is not None else False,
    }


def _attributes(
    common: dict[str, Any], started: InterceptionStarted, described: InterceptionDescribed | None, ended: InterceptionEnded
) -> dict[str, Any]:
    """Return what Intercept and Upstream say: Coder's attributes and those of the conventions."""
    attributes = common | {
        semconv.OPERATION_NAME: semconv.operation_name(started.api),
        semconv.PROVIDER_NAME: semconv.provider_name(started.provider_type),
        semconv.REQUEST_MODEL: described.request_model if described is not None else "",
        semconv.REQUEST_STREAM: described.streaming if described is not None else False,
        semconv.SERVER_ADDRESS: started.host,
        semconv.HTTP_METHOD: started.method,
        semconv.URL_PATH: started.route,
        semconv.USER_ID: started.principal_id,
        semconv.USER_AGENT: started.user_agent,
        "client": started.client,
        "outcome": str(ended.outcome),
    }
    if ended.status_code:
        attributes[semconv.HTTP_STATUS] = ended.status_code
    for name, value in (
        (semconv.RESPONSE_ID, ended.response_id),
        (semconv.RESPONSE_MODEL, ended.response_model),
        (semconv.CONVERSATION_ID, described.client_session_id if described is not None else ""),
        (semconv.ERROR_TYPE, str(ended.error_type or "")),
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


def _usage(ended: InterceptionEnded) -> dict[str, Any]:
    usage = ended.usage
    return {
        semconv.INPUT_TOKENS: usage.total_input_tokens,
        semconv.OUTPUT_TOKENS: usage.output_tokens,
        semconv.CACHE_READ_TOKENS: usage.cache_read_input_tokens,
        semconv.CACHE_WRITE_TOKENS: usage.cache_write_input_tokens,
        semconv.REASONING_TOKENS: usage.reasoning_output_tokens,
        "usage_source": str(ended.usage_source),
    }
