"""One request to an intercepted endpoint and its response: bytes in, observations out. Knows no mitmproxy and no socket.

It is not total: what it raises beside `WireError` is a fault of ours, and `tap` stands between it and the bytes.
It reads what it can and leaves the judgement to `ending`.
"""

from typing import Final

from aiproxyd import clients
from aiproxyd.assemble import Assembly, Finished
from aiproxyd.drift import missing_fields
from aiproxyd.exceptions import MalformedBody, WireError
from aiproxyd.mitm.decrypted import STATUS_OF_ABORT, AbortedBy, DecryptedConnection, TapSettings
from aiproxyd.mitm.ending import error_of, has_answer, outcome_of, usage_of
from aiproxyd.mitm.reading import RequestReading, decoder_for
from aiproxyd.mitm.report import Reporter
from aiproxyd.mitm.telling import told
from aiproxyd.model.endpoint import Endpoint
from aiproxyd.model.events import ProviderErrorReported
from aiproxyd.model.head import Headers, RequestHead, ResponseHead
from aiproxyd.model.observation import (
    InterceptionDescribed,
    InterceptionEnded,
    InterceptionStarted,
    ResponseProgressed,
    UnknownEventsSeen,
)
from aiproxyd.model.outcome import ErrorType, Outcome, UsageSource
from aiproxyd.pricing import billing_of
from aiproxyd.providers.api import Api, ResponseParser
from aiproxyd.providers.samples import Samples
from aiproxyd.redaction import credential_hint, sensitive_values, without_credentials
from aiproxyd.telemetry.logs import secrets
from aiproxyd.wire.content_coding import ContentDecoder

UNKNOWN_MODEL: Final = "coder-aibridge-unknown"
"""The request model of a body that names none; Coder's word, so that records compare."""

MAX_ERROR_BODY_BYTES: Final = 64 << 10
"""So much of an error's body is read. Providers' errors are below 4 KiB; pages of gateways before them may be longer."""

MAX_USER_AGENT_CHARACTERS: Final = 512
MAX_ANOMALY_CHARACTERS: Final = 300
MAX_LABEL_CHARACTERS: Final = 100


class Interception:
    """The observer of one request. The constructor tells InterceptionStarted and makes it durable."""

    __slots__ = (
        "_api",
        "_assembly",
        "_attempts",
        "_connection",
        "_decoder",
        "_error_body",
        "_failure",
        "_first_byte_at",
        "_first_output_at",
        "_has_progressed",
        "_head",
        "_held_seconds",
        "_is_described",
        "_is_ended",
        "_is_streamed",
        "_key_hint",
        "_parser",
        "_remark",
        "_reporter",
        "_request",
        "_response_bytes",
        "_samples",
        "_sensitive",
        "_settings",
        "_started_at",
        "_status_code",
        "_tap_seconds",
        "client",
        "id",
    )

    def __init__(
        self,
        reporter: Reporter,
        settings: TapSettings,
        *,
        api: Api,
        connection: DecryptedConnection,
        head: RequestHead,
        endpoint: Endpoint,
        started_at: float,
    ) -> None:
        self.id = reporter.new_id()
        self._reporter = reporter
        self._settings = settings
        self._api = api
        self._connection = connection
        self._head: RequestHead | None = head
        """None once the request is described: nothing else needs it."""
        self._started_at = started_at
        self._request = RequestReading(head.headers, settings.max_request_body_bytes)
        self._is_described = False
        self._is_ended = False
        self._response_bytes = 0
        self._status_code = 0
        self._is_streamed = False
        self._decoder: ContentDecoder | None = None
        self._parser: ResponseParser | None = None
        """None before the head, and once there is nothing more to read."""
        self._samples: Samples | None = None
        """The parser's own: of what it meets and does not know, or misses."""
        self._error_body: bytearray | None = None
        """Of a response with an error status; None for any other."""
        self._failure = ""
        """Why the response could not be read."""
        self._assembly = Assembly(keeps_content=settings.record_content)
        self._first_byte_at: float | None = None
        self._first_output_at: float | None = None
        self._has_progressed = False
        self._attempts = 1
        self._key_hint = ""
        """Of the key of ours that was used last, where it is another one than at first."""
        self._remark = ""
        self._held_seconds: float | None = None
        self._tap_seconds = 0.0
        headers = head.headers
        self._sensitive = sensitive_values(head)
        """What a provider's error must not be recorded with, should it repeat it."""
        client = settings.clients.detect(headers)
        self.client = client.name
        principal, provider = connection.principal, connection.provider
        reporter.tell(
            InterceptionStarted(
                at=reporter.now(),
                interception_id=self.id,
                provider=provider.name,
                provider_type=provider.type,
                api=endpoint.api,
                method=head.method,
                route=endpoint.route,
                host=connection.authority.host,
                port=connection.authority.port,
                principal_id=principal.id,
                principal_name=principal.name,
                principal_groups=principal.groups,
                client=client.name,
                client_version=client.version,
                user_agent=(headers.first("user-agent") or "")[:MAX_USER_AGENT_CHARACTERS],
                credential_kind="byok" if connection.key_hint is None else "centralized",
                credential_hint=(
                    credential_hint(head, connection.token) if connection.key_hint is None else connection.key_hint
                ),
                billing=billing_of(provider.type, connection.authority.host, head),
                labels=_labels(settings.header_labels, headers),
                trace_parent=clients.trace_parent(headers),
                client_request_id=clients.request_id(headers),
                connection_id=connection.id,
            )
        )
        reporter.flush()

    def request_data(self, data: bytes) -> None:
        """Take in the next bytes of the request's body, content-coded."""
        self._request.feed(data)

    def held(self, seconds: float) -> None:
        """Take note of how long first bytes were held before they were forwarded."""
        self._held_seconds = (self._held_seconds or 0.0) + seconds

    @property
    def request_model(self) -> str:
        """The model that the request names; empty until it is described."""
        return self._request.facts.request_model

    def carried(self, attempts: int, credential_hint: str, remark: str) -> None:
        """Take note of how often it was sent, of the key of ours that was used last, and of why it was not sent again."""
        self._attempts = attempts
        self._key_hint = credential_hint if credential_hint != self._connection.key_hint else ""
        self._remark = remark

    @property
    def is_answered(self) -> bool:
        """Whether the provider said that its response is over."""
        return self._assembly.is_ended

    @property
    def response_id(self) -> str:
        """The provider's id of its response; empty until it is known."""
        return self._assembly.response_id

    @property
    def is_midstream(self) -> bool:
        """Whether a stream's first output was seen: after it nothing depends on when bytes are taken in, but for the end."""
        return self._first_output_at is not None

    def request_unread(self, anomaly: str) -> None:
        """Take note that the request's body will not be read, and why."""
        self._request.give_up(anomaly)

    def response_unread(self, anomaly: str) -> None:
        """Take note that the rest of the response's body will not be read, and why."""
        self._give_up_response(MalformedBody(anomaly))

    def request_end(self) -> None:
        """Take note that the request's body is whole, and describe it."""
        assert self._head is not None
        began = self._reporter.monotonic()
        self._request.close(self._api, self._head, self.client, self._settings)
        self._describe()
        self._tap_seconds += self._reporter.monotonic() - began

    def response_head(self, head: ResponseHead, at: float | None = None) -> None:
        """Take note of the response's status, and choose how its body is read.

        Args:
            head: The response's.
            at: When it came; None is now.
        """
        self._first_byte_at = self._reporter.monotonic() if at is None else at
        self._status_code = status = head.status_code
        if status == 101:
            return
        content_type = (head.headers.first("content-type") or "").partition(";")[0].strip().lower()
        try:
            self._decoder = decoder_for(head.headers)
        except WireError as exc:
            self._failure = str(exc)
        if status >= 400:
            self._error_body = bytearray()
        elif has_answer(status) and not self._failure:
            # A wrong or missing type is not rare among servers that imitate an API: then the request decides.
            is_document = "json" in content_type and not self._api.streams_json
            self._is_streamed = content_type in self._api.stream_types or (not is_document and self._request.facts.streaming)
            make_parser = self._api.stream_parser if self._is_streamed else self._api.document_parser
            self._parser = parser = make_parser(self._settings.max_response_body_bytes)
            self._samples = parser.samples
            if self._api.read_head is not None:
                self._assembly.feed(self._api.read_head(head))

    def response_data(self, data: bytes, at: float | None = None) -> None:
        """Take in the next bytes of the response's body, content-coded, which came `at`; None is now."""
        self._response_bytes += len(data)
        if self._parser is None and not self._wants_response():
            return
        began = self._reporter.monotonic()
        try:
            if self._decoder is None:
                self._read(data, at)
            else:
                for piece in self._decoder.feed(data):
                    self._read(piece, at)
                    if not self._wants_response():
                        break
        except WireError as exc:
            self._give_up_response(exc)
        self._tap_seconds += self._reporter.monotonic() - began

    def end(self, aborted_by: AbortedBy | None, detail: str, status_code: int, at: float | None = None) -> None:
        """Tell the end: of a whole response, or of one that was aborted.

        Args:
            aborted_by: None when the response is whole.
            detail: A sentence for the record about an abort.
            status_code: What the client got from us instead of an answer; 0 for the usual one.
            at: When it came; None is now.
        """
        if not self._is_described:
            what = "the request was aborted" if aborted_by is not None else "the response ended"
            self._request.give_up(self._request.anomaly or f"{what} before the request's body was whole")
            self._describe()
        began = self._reporter.monotonic()
        self._take_postponed_failure()
        is_cut = False
        if aborted_by is None and not self._failure:
            self._close_response()
            is_cut = bool(self._failure)
        assembly = self._assembly
        self._tell_finished(assembly.finish())
        self._tap_seconds += self._reporter.monotonic() - began
        error = self._provider_error()
        outcome = outcome_of(
            assembly,
            aborted_by,
            has_error=error is not None,
            is_streamed=self._is_streamed,
            # What only the end makes unreadable is the tail of a stream that was cut.
            is_unreadable=bool(self._failure) and not (is_cut and self._is_streamed),
        )
        status_code = self._recorded_status(aborted_by, status_code)
        provider_type = self._connection.provider.type
        error_type, error_message = error_of(
            outcome,
            error,
            status_code=status_code,
            provider_type=provider_type,
            detail=detail,
            is_about_keys=aborted_by is AbortedBy.NO_KEY,
        )
        self._tell_end(outcome, status_code, error_type, error_message, at)

    def end_unread(self, anomaly: str, aborted_by: AbortedBy | None, status_code: int) -> None:
        """Tell the end of a request that could not be observed because of a fault of ours."""
        if not self._is_described:
            self._is_described = True
            self._tell_described(anomaly)
        if self._is_ended:
            return
        self._failure = self._failure or anomaly
        self._tell_end(Outcome.PARSE_FAILED, self._recorded_status(aborted_by, status_code), None, "")

    def _give_up_response(self, exc: WireError) -> None:
        self._failure = str(exc) or type(exc).__name__
        self._parser = None
        self._decoder = None

    def _describe(self) -> None:
        self._is_described = True
        self._tell_described(self._request.anomaly or self._request.facts.anomaly)
        self._head = None
        self._request.forget()

    def _tell_described(self, anomaly: str) -> None:
        facts = self._request.facts
        assert self._head is not None
        self._reporter.tell(
            InterceptionDescribed(
                at=self._reporter.now(),
                interception_id=self.id,
                request_model=facts.request_model or UNKNOWN_MODEL,
                streaming=facts.streaming,
                client_session_id=self._settings.clients.session_id(self.client, self._head.headers, facts),
                correlating_tool_call_id=facts.correlating_tool_call_id,
                prompt=facts.prompt if self._settings.record_content else None,
                has_prompt=bool(facts.prompt),
                anomaly=anomaly[:MAX_ANOMALY_CHARACTERS],
                metadata=facts.metadata | self._request.origin,
            )
        )

    def _wants_response(self) -> bool:
        return self._parser is not None or (self._error_body is not None and len(self._error_body) < MAX_ERROR_BODY_BYTES)

    def _read(self, piece: bytes, at: float | None) -> None:
        """Read decoded bytes of the response."""
        if self._parser is not None:
            events = self._parser.feed(piece)
            if events:
                finished = self._assembly.feed(events)
                if finished:
                    self._tell_finished(finished)
                if self._first_output_at is None or not self._has_progressed:
                    self._note_progress(at)
        else:
            assert self._error_body is not None
            self._error_body += piece[: MAX_ERROR_BODY_BYTES - len(self._error_body)]

    def _note_progress(self, at: float | None) -> None:
        assembly = self._assembly
        if self._first_output_at is None and assembly.has_output and self._is_streamed:
            self._first_output_at = self._reporter.monotonic() if at is None else at
        if not self._has_progressed and assembly.usage is not None:
            self._has_progressed = True
            if not assembly.usage_is_final:
                self._reporter.tell(
                    ResponseProgressed(
                        at=self._reporter.now(),
                        interception_id=self.id,
                        response_id=assembly.response_id,
                        response_model=assembly.response_model,
                        usage=assembly.usage,
                    )
                )

    def _take_postponed_failure(self) -> None:
        """Let the parser tell a fault that it met after events it returned: it does so at the next call."""
        if self._parser is not None:
            try:
                self._read(b"", None)
            except WireError as exc:
                self._give_up_response(exc)

    def _close_response(self) -> None:
        """Read what only the end of the body tells. A failure is noted, and what could be read before it stays."""
        if self._parser is None:
            return
        try:
            cut: MalformedBody | None = None
            if self._decoder is not None:
                try:
                    self._decoder.close()
                except MalformedBody as exc:
                    # What came may be enough: servers exist that leave the trailer of gzip away.
                    cut = exc
            self._tell_finished(self._assembly.feed(self._parser.close()))
            if cut is not None and not self._assembly.is_ended:
                raise cut
        except WireError as exc:
            self._give_up_response(exc)

    def _tell_finished(self, finished: list[Finished]) -> None:
        reporter = self._reporter
        for item in finished:
            reporter.tell(told(item, at=reporter.now(), interception_id=self.id, response_id=self._assembly.response_id))

    def _provider_error(self) -> ProviderErrorReported | None:
        if self._error_body is None:
            return self._assembly.error
        return self._api.read_error(self._status_code, bytes(self._error_body))

    def _recorded_status(self, aborted_by: AbortedBy | None, status_code: int) -> int:
        """Return the provider's status; before it came, that of the abort."""
        if self._status_code or aborted_by is None:
            return self._status_code
        return status_code or STATUS_OF_ABORT[aborted_by]

    def _tell_end(
        self, outcome: Outcome, status_code: int, error_type: ErrorType | None, error_message: str, over_at: float | None = None
    ) -> None:
        assembly = self._assembly
        reporter = self._reporter
        source, usage = usage_of(
            assembly, outcome, status_code=self._status_code, input_characters=self._request.facts.input_characters
        )
        metadata = assembly.metadata | ({"transport": "websocket"} if self._status_code == 101 else {})
        if source is UsageSource.REPORTED and not assembly.usage_is_final:
            metadata = metadata | {"usage": "partial"}
        if self._attempts != 1:
            metadata = metadata | {"attempts": str(self._attempts)}
        if self._remark:
            metadata = metadata | {"retry": self._remark}
        at = reporter.now()
        self._is_ended = True
        by_kind = self._count_missing(outcome)
        if assembly.unknown:
            reporter.tell(
                UnknownEventsSeen(
                    at=at,
                    provider=self._connection.provider.name,
                    api=self._api.name,
                    counts=assembly.unknown,
                    samples={kind: sample for kind, sample in by_kind.items() if kind in assembly.unknown},
                )
            )
        reporter.tell(
            InterceptionEnded(
                at=at,
                interception_id=self.id,
                outcome=outcome,
                usage_source=source,
                usage=usage,
                status_code=status_code,
                response_id=assembly.response_id,
                response_model=assembly.response_model,
                finish_reason=assembly.finish_reason,
                error_type=error_type,
                # Its own credential, and any key of ours that it was sent with.
                error_message=secrets.hide(without_credentials(error_message, self._sensitive)) if error_message else "",
                anomaly=self._failure[:MAX_ANOMALY_CHARACTERS],
                request_bytes=self._request.received_bytes,
                response_bytes=self._response_bytes,
                first_byte_seconds=self._since_start(self._first_byte_at),
                first_output_seconds=self._since_start(self._first_output_at),
                duration_seconds=round((reporter.monotonic() if over_at is None else over_at) - self._started_at, 6),
                held_seconds=None if self._held_seconds is None else round(self._held_seconds, 6),
                tap_seconds=round(self._tap_seconds, 6),
                output_characters=assembly.output_characters,
                metadata=metadata,
                credential_hint=self._key_hint,
            )
        )
        # A client that saw its response's end finds its record, unless we die before the loop waits again.
        reporter.flush_soon()

    def _count_missing(self, outcome: Outcome) -> dict[str, str]:
        """Count the documented fields that a completed answer lacks; return the samples of all that is not as documented."""
        samples = self._samples
        by_kind = dict(samples.by_kind) if samples is not None else {}
        if outcome is Outcome.COMPLETED:
            for kind in missing_fields(
                self._api.name,
                self._assembly,
                is_streamed=self._is_streamed,
                asks_for_usage=self._request.facts.asks_for_usage,
            ):
                self._assembly.count_unknown(kind)
                if samples is not None:
                    by_kind[kind] = samples.of_missing()
        return by_kind

    def _since_start(self, at: float | None) -> float | None:
        return None if at is None else round(at - self._started_at, 6)


def _labels(wanted: tuple[tuple[str, str], ...], headers: Headers) -> dict[str, str]:
    """Return the values of the headers that an operator wants as labels, by label."""
    return {label: value[:MAX_LABEL_CHARACTERS] for label, header in wanted if (value := headers.first(header))}
