"""mitmproxy's HTTP layers with what a daemon needs of them: bounds, trailers, early answers, upgrades as plain bytes.

Used wherever mitmproxy speaks HTTP: in the engine and, through `install`, in mitmdump. Not a change of what mitmproxy decides about
headers, hosts or connections.

Facts about mitmproxy 12.2.3, each answered here and watched by a contract test:
- A trailer section in HTTP/1.1 trips mitmproxy, and the client waits until it times out.
- Heads, chunk sizes and trailers have no limit in size, heads none in time, and pipelined bytes are hoarded.
- Several chunks that came in one read pass every layer one by one: 61 µs of CPU each, 12 when they are joined.
- A 1xx response of an HTTP/1.1 server is taken for the final one.
- A response that ends before its request is withheld its last chunk until the request ends.
- The WebSocket layer keeps every message, and re-frames and re-compresses what passes.
- Error pages carry the reason of the failure, but also up to everything that was received.

What stays, and is why HTTP/2 is behind a switch: a GOAWAY ends the streams that it should let finish, because the HTTP/2 library
holds a connection for closed then; HTTP/1.1 trailers are dropped where the next message has no chunks to hang them on.
"""
# mypy: disallow-untyped-calls=False

import abc
import re
from collections.abc import Sequence
from typing import Any, Protocol

import h11
from h11._receivebuffer import ReceiveBuffer
from mitmproxy import http
from mitmproxy.connection import ConnectionState
from mitmproxy.net.http import http1
from mitmproxy.options import Options
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers import http as http_layers
from mitmproxy.proxy.layers import tcp
from mitmproxy.proxy.layers.http import _http1
from mitmproxy.proxy.layers.http._base import HttpEvent, ReceiveHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestData,
    RequestEndOfMessage,
    RequestProtocolError,
    RequestTrailers,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
)

from aiproxyd.mitm.decrypted import AbortedBy

MAX_HEAD_BYTES_OPTION = "aiproxyd_max_head_bytes"
HEAD_TIMEOUT_OPTION = "aiproxyd_head_timeout_seconds"

# (name, type, default, meaning): registered by whoever calls `install`.
OPTIONS: tuple[tuple[str, Any, Any, str], ...] = (
    (MAX_HEAD_BYTES_OPTION, int, 65536, "Largest head, chunk header or trailer section of an HTTP/1 message."),
    (HEAD_TIMEOUT_OPTION, int, 30, "Seconds from the first byte of an HTTP/1 head to its last."),
)

# A client may send its next requests before an answer, but mitmproxy reads one at a time.
MAX_PIPELINED_BYTES = 1 << 20

# A failure's message stands in the body of a 502; more than a sentence would be the peer's bytes.
MAX_ERROR_MESSAGE_CHARACTERS = 200

ENDED_BY = "aiproxyd.ended_by"
"""Key in a flow's metadata: `client`, `upstream` or `unreachable`, set before the `error` hook."""

UPGRADED = "aiproxyd.upgraded"
"""Key in a flow's metadata: who looks at what follows a 101; absent when nobody does."""

_LATE = "was not complete in time"
_TOO_LARGE = "is larger than this proxy accepts"

_BLANK_LINE = re.compile(rb"\n\r?\n")
_INFORMATIONAL = re.compile(rb"HTTP/1\.[01] 1(?!01)[0-9][0-9][ \r\n]")


class _SafeHttp1(_http1.Http1Connection):
    """What both ends of an HTTP/1 connection share."""

    ReceiveTrailers: type[RequestTrailers] | type[ResponseTrailers]

    _head_timer: commands.RequestWakeup | None = None
    _trailers: http.Headers | None = None

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        if isinstance(event, events.Wakeup):
            if event.command is self._head_timer:
                yield from self._refuse_head(_LATE)
            return
        yield from super()._handle_event(event)
        if self._head_timer is None and self.buf and self.state == self.read_headers:
            self._head_timer = commands.RequestWakeup(_option(self.context.options, HEAD_TIMEOUT_OPTION))
            yield self._head_timer

    def _head_is_too_large(self) -> bool:
        limit = _option(self.context.options, MAX_HEAD_BYTES_OPTION)
        return len(self.buf) > limit and _BLANK_LINE.search(bytes(self.buf)[:limit]) is None

    def _read_head(self, event: events.ConnectionEvent) -> CommandGenerator[None]:
        if isinstance(event, events.DataReceived) and self._head_is_too_large():
            yield from self._refuse_head(_TOO_LARGE)
            return
        held = len(self.buf)
        yield from super().read_headers(event)
        if len(self.buf) < held:
            self._head_timer = None  # that head is complete; what is left belongs to another

    @abc.abstractmethod
    def _refuse_head(self, why: str) -> CommandGenerator[None]:
        """End the connection because of a head, with a message if there is somebody to tell."""

    def read_body(self, event: events.Event) -> CommandGenerator[None]:
        """Read a body, joining all chunks of one read, and its trailers."""
        if not isinstance(event, events.DataReceived):
            yield from super().read_body(event)
            return
        assert self.stream_id is not None
        assert self.request is not None
        parts: list[bytes | bytearray] = []
        end: h11.EndOfMessage | None = None
        failure = ""
        while end is None:
            try:
                piece = self.body_reader(self.buf)
            except h11.ProtocolError as exc:
                failure = f"HTTP/1 protocol error: {exc}"
                break
            if piece is None:
                if len(self.buf) > _option(self.context.options, MAX_HEAD_BYTES_OPTION):
                    failure = "HTTP/1 protocol error: a chunk header or trailer section is larger than this proxy accepts"
                break
            if isinstance(piece, h11.Data):
                parts.append(piece.data)
            else:
                end = piece
        if parts:
            yield ReceiveHttp(self.ReceiveData(self.stream_id, bytes(parts[0]) if len(parts) == 1 else b"".join(parts)))
        if failure:
            yield commands.CloseConnection(self.conn)
            yield ReceiveHttp(self.ReceiveProtocolError(self.stream_id, failure, code=self.ReceiveProtocolError.code))
            self.state = self.done
            return
        if end is None:
            return
        if end.headers:
            trailers = http.Headers([(bytes(name), bytes(value)) for name, value in _raw_items(end.headers)])
            yield ReceiveHttp(self.ReceiveTrailers(self.stream_id, trailers))
        if self.request.data.method.upper() != b"CONNECT":
            yield ReceiveHttp(self.ReceiveEndOfMessage(self.stream_id))
        is_request = isinstance(self, _http1.Http1Server)
        yield from self.mark_done(request=is_request, response=not is_request)

    def _last_chunk(self) -> commands.SendData:
        trailers, self._trailers = self._trailers, None
        return commands.SendData(self.conn, b"0\r\n%s\r\n" % (bytes(trailers) if trailers is not None else b""))


class SafeHttp1Server(_SafeHttp1, _http1.Http1Server):
    """The client's side."""

    ReceiveTrailers = RequestTrailers

    def read_headers(self, event: events.ConnectionEvent) -> CommandGenerator[None]:
        """Read a request head within its limits."""
        yield from self._read_head(event)

    def _refuse_head(self, why: str) -> CommandGenerator[None]:
        self.buf = ReceiveBuffer()
        self.state = self.done
        yield commands.SendData(self.conn, error_response(408 if why == _LATE else 431, f"the head of the request {why}"))
        yield commands.CloseConnection(self.conn)

    def wait(self, event: events.Event) -> CommandGenerator[None]:
        """Hold what a client sends before it has its answer, within bounds."""
        yield from super().wait(event)
        if len(self.buf) > MAX_PIPELINED_BYTES:
            self.buf = ReceiveBuffer()
            self.state = self.done
            yield commands.CloseConnection(self.conn)
            yield ReceiveHttp(
                RequestProtocolError(self.stream_id, "too much was sent before an answer came", ErrorCode.GENERIC_CLIENT_ERROR)
            )

    def send(self, event: HttpEvent) -> CommandGenerator[None]:
        """Send a response, its trailers included."""
        match event:
            case ResponseHeaders() if 100 <= event.response.status_code < 200 and event.response.status_code != 101:
                # Not the response: mitmproxy would take it for one and send no error page after it.
                yield commands.SendData(self.conn, http1.assemble_response_head(event.response))
            case ResponseTrailers():
                self._trailers = event.trailers
            case ResponseEndOfMessage() if self._trailers is not None:
                assert self.request is not None
                assert self.response is not None
                if _is_chunked(self.response) and self.request.method.upper() != "HEAD":
                    yield self._last_chunk()
                self._trailers = None
                yield from self.mark_done(response=True)
            case ResponseProtocolError():
                if not self.conn.state & ConnectionState.CAN_WRITE:
                    return
                status = event.code.http_status_code()
                if self.response is None and status is not None:
                    yield commands.SendData(self.conn, error_response(status, event.message))
                yield commands.CloseConnection(self.conn)
            case _:
                yield from super().send(event)


class SafeHttp1Client(_SafeHttp1, _http1.Http1Client):
    """The provider's side."""

    ReceiveTrailers = ResponseTrailers

    def read_headers(self, event: events.ConnectionEvent) -> CommandGenerator[None]:
        """Read a response head within its limits, after any informational ones."""
        while isinstance(event, events.DataReceived) and self.stream_id is not None and _INFORMATIONAL.match(bytes(self.buf)):
            lines = self.buf.maybe_extract_lines()
            if lines is None:
                if self._head_is_too_large():
                    yield from self._refuse_head(_TOO_LARGE)
                return
            self._head_timer = None
            try:
                interim = http1.read_response_head([bytes(line) for line in lines])
            except ValueError as exc:
                yield from self._refuse_head(f"cannot be read: {exc}")
                return
            yield ReceiveHttp(ResponseHeaders(self.stream_id, interim, end_stream=False))
        yield from self._read_head(event)

    def _refuse_head(self, why: str) -> CommandGenerator[None]:
        self.buf = ReceiveBuffer()
        self.state = self.done
        yield commands.CloseConnection(self.conn)
        if self.stream_id is not None:
            code = ErrorCode.GENERIC_SERVER_ERROR
            yield ReceiveHttp(ResponseProtocolError(self.stream_id, f"the head of the response {why}", code))

    def send(self, event: HttpEvent) -> CommandGenerator[None]:
        """Send a request, its trailers included."""
        match event:
            case RequestTrailers():
                self._trailers = event.trailers
            case RequestEndOfMessage() if self._trailers is not None:
                assert self.request is not None
                if _is_chunked(self.request):
                    yield self._last_chunk()
                self._trailers = None
                yield from self.mark_done(request=True)
            case _:
                yield from super().send(event)

    def mark_done(self, *, request: bool = False, response: bool = False) -> CommandGenerator[None]:
        """Note the end of a message; an answer that came early waits here for its request to end."""
        yield from super().mark_done(request=request, response=response)
        if self.response_done and not self.request_done:
            self.state = self.answered

    def answered(self, event: events.Event) -> CommandGenerator[None]:
        """Take what a server does after its answer while the request still flows: mostly, it closes."""
        if isinstance(event, events.DataReceived):
            self.buf = ReceiveBuffer()  # nobody asked for it
        elif isinstance(event, events.ConnectionClosed) and event.connection.state is not ConnectionState.CLOSED:
            yield commands.CloseConnection(event.connection)


class SafeHttpStream(http_layers.HttpStream):
    """One request and its response."""

    _end_is_sent = False

    def handle_protocol_error(self, event: RequestProtocolError | ResponseProtocolError) -> CommandGenerator[None]:
        """Note whose error it is, for the `error` hook."""
        if isinstance(event, RequestProtocolError):
            ended_by = "client"
        else:
            ended_by = "unreachable" if event.code is ErrorCode.CONNECT_FAILED else "upstream"
        self.flow.metadata.setdefault(ENDED_BY, ended_by)
        yield from super().handle_protocol_error(event)

    def check_killed(self, emit_error_hook: bool) -> CommandGenerator[bool]:  # noqa: FBT001  (theirs)
        """Note a client that left while a hook ran."""
        if any(isinstance(event, RequestProtocolError) for event in self._paused_event_queue):
            self.flow.metadata.setdefault(ENDED_BY, "client")
        return (yield from super().check_killed(emit_error_hook))

    def start_request_stream(self) -> CommandGenerator[None]:
        """Stream the request, unless a hook answered it already; mitmproxy would raise then."""
        if self.flow.response is not None:
            self.client_state = self.state_consume_request_body
            return
        yield from super().start_request_stream()

    def state_consume_request_body(self, event: events.Event) -> CommandGenerator[None]:
        """Read a body whole; one whose request is answered already is not kept."""
        if self.flow.response is not None and isinstance(event, RequestData):
            return
        yield from super().state_consume_request_body(event)

    def state_wait_for_response_headers(self, event: ResponseHeaders) -> CommandGenerator[None]:
        """Pass informational responses on; the final one follows."""
        if 100 <= event.response.status_code < 200 and event.response.status_code != 101:
            if self.flow.request.http_version != "HTTP/1.0":
                yield http_layers.SendHttp(event, self.context.client)
            return
        yield from super().state_wait_for_response_headers(event)

    def send_response(self, already_streamed: bool = False) -> CommandGenerator[None]:  # noqa: FBT001, FBT002  (theirs)
        """End the response when it ends, whether or not its request has."""
        yield from super().send_response(already_streamed)
        assert self.flow.response is not None
        if (
            self.client_state == self.state_stream_request_body
            and self.server_state == self.state_done
            and self.flow.response.status_code != 101
        ):
            self._end_is_sent = True
            yield http_layers.SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)

    def flow_done(self) -> CommandGenerator[None]:
        """Finish; an upgraded connection goes on as plain bytes."""
        assert self.flow.response is not None
        if self.flow.response.status_code == 101:
            self.flow.live = False
            self.flow.websocket = None
            self.child_layer = UpgradedLayer(self.context, self.flow.metadata.get(UPGRADED))
            self._handle_event = self.passthrough
            yield from self.child_layer.handle_event(events.Start())
            yield http_layers.SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)
            return
        for command in super().flow_done():
            is_end = isinstance(command, http_layers.SendHttp) and isinstance(command.event, ResponseEndOfMessage)
            if not (is_end and self._end_is_sent):
                yield command


class Watcher(Protocol):
    """Who looks at what follows a 101: `tap.RequestTap` does. Never raises."""

    def upgraded_request_data(self, data: bytes) -> None: ...
    def upgraded_response_data(self, data: bytes) -> None: ...
    def upgraded_end(self, by: AbortedBy, detail: str = "") -> None: ...


class UpgradedLayer(tcp.TCPLayer):
    """Plain bytes in both directions, and a copy of them for who looks at them. Nothing is kept."""

    def __init__(self, context: Context, watcher: Watcher | None) -> None:
        super().__init__(context, ignore=True)
        self._watcher = watcher

    def relay_messages(self, event: events.Event) -> CommandGenerator[None]:
        """Forward; what the client sends is looked at before, what the provider sends after."""
        watcher = self._watcher
        if watcher is None or not isinstance(event, events.ConnectionEvent):
            yield from super().relay_messages(event)
            return
        is_client = event.connection is self.context.client
        if is_client and isinstance(event, events.DataReceived):
            watcher.upgraded_request_data(event.data)
        yield from super().relay_messages(event)
        if isinstance(event, events.ConnectionClosed):
            watcher.upgraded_end(AbortedBy.CLIENT if is_client else AbortedBy.UPSTREAM, "the connection was closed")
        elif not is_client and isinstance(event, events.DataReceived):
            watcher.upgraded_response_data(event.data)


def install() -> None:
    """Make mitmproxy use these layers for every connection of this process. Idempotent.

    Whoever calls it registers `OPTIONS` as well.
    """
    # The names that `HttpLayer` and `HttpClient` look up when they make a layer.
    http_layers.Http1Server = SafeHttp1Server  # type: ignore[attr-defined]
    http_layers.Http1Client = SafeHttp1Client  # type: ignore[attr-defined]
    http_layers.HttpStream = SafeHttpStream  # type: ignore[misc]


def error_response(status: int, message: str) -> bytes:
    """Return a whole response that says what failed, and that the connection ends."""
    if len(message) > MAX_ERROR_MESSAGE_CHARACTERS:
        message = message[:MAX_ERROR_MESSAGE_CHARACTERS] + "…"
    headers = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store", "Connection": "close"}
    response = http.Response.make(status, f"aiproxyd: {message}\n".encode("utf-8", "replace"), headers)
    return bytes(http1.assemble_response(response))


def _option(options: Options, name: str) -> int:
    return int(getattr(options, name))


def _is_chunked(message: http.Request | http.Response) -> bool:
    return "chunked" in message.headers.get("transfer-encoding", "").lower()


def _raw_items(headers: Any) -> Sequence[tuple[bytes, bytes]]:
    # With the names as they came; h11's plain iteration gives them in lower case.
    items: Sequence[tuple[bytes, bytes]] = headers.raw_items()
    return items
