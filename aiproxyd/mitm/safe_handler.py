"""Carries one decrypted connection with mitmproxy's layers, such that nothing can hang it.

It owns the two sockets of the connection and nothing else: the CONNECT was answered, the provider's address was checked and dialled.

What differs from mitmproxy's `ConnectionHandler` (12.2.3), and why:
- An exception in a layer closes the connection. mitmproxy logs it, and the client waits for its timeout.
- An exception in a hook refuses (a request gets 503, anything else is closed), except in hooks that only observe.
- Hooks that are plain functions run where they are asked for; mitmproxy starts a task for each.
- A connection is opened with the socket that was handed over, once; again only through `redial`, and only to the same authority.
- Handshakes have deadlines, and a client has so many bytes for its own.
- What layers would hoard is not read; see `backpressure`.
"""
# mypy: disallow-untyped-calls=False

import asyncio
import collections
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from mitmproxy import connection as mitm
from mitmproxy import http
from mitmproxy.options import Options
from mitmproxy.proxy import commands, events, mode_specs, server, server_hooks
from mitmproxy.proxy.layers import ClientTLSLayer, HttpLayer, ServerTLSLayer
from mitmproxy.proxy.layers import tls as tls_layers
from mitmproxy.proxy.layers.http import HTTPMode
from mitmproxy.proxy.layers.http._hooks import HttpRequestHeadersHook
from mitmproxy.proxy.layers.http._http1 import Http1Connection

from aiproxyd.exceptions import AiproxydError
from aiproxyd.mitm.backpressure import Gates
from aiproxyd.mitm.hooks import HookTable
from aiproxyd.mitm.layer_tls import LayerTls
from aiproxyd.model.authority import Authority

log = logging.getLogger(__name__)

type Ended = Callable[[], None]
type Redial = Callable[[Authority], Awaitable[socket.socket]]

# mitmproxy reads up to so much at once from a stream; asyncio holds up to twice as much before it stops reading the socket.
_STREAM_LIMIT_BYTES = 65536

_OBSERVING_HOOKS = frozenset(
    {
        "client_disconnected",
        "error",
        "http_connect_error",
        "response",
        "responseheaders",
        "server_connect_error",
        "server_disconnected",
        "tls_established_client",
        "tls_established_server",
        "tls_failed_client",
        "tls_failed_server",
    }
)
"""Hooks that decide nothing: what they raise is logged, and the bytes go on."""


class HandlerSettings(msgspec.Struct, frozen=True):
    """How long a decrypted connection may take."""

    client_tls_timeout_seconds: float = 15.0
    """For the client's ClientHello, and again for the rest of its handshake."""
    upstream_tls_timeout_seconds: float = 15.0
    """For the handshake with a provider."""


class SafeHandler(server.LiveConnectionHandler):
    """One decrypted connection, from the client's ClientHello to its end."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream: socket.socket,
        authority: Authority,
        *,
        connection_id: str,
        options: Options,
        hooks: HookTable,
        tls: LayerTls,
        redial: Redial | None,
        ended: Ended,
        settings: HandlerSettings,
    ) -> None:
        """Take over both connections.

        Args:
            reader: Of the client's connection.
            writer: Of the client's connection.
            upstream: Connected to `authority`; closed here.
            authority: What the CONNECT named; SNI, certificate and leaf are its host's.
            connection_id: Becomes the id of mitmproxy's client connection.
            options: mitmproxy's.
            hooks: What the layers' hooks call.
            tls: Told of handshakes that took too long.
            redial: Dials the authority again, checked, when the provider closed; None to give up then.
            ended: Called before we end the connection ourselves, with whatever is open in it.
            settings: The time a connection may take.
        """
        super().__init__(reader, writer, options, mode_specs.ProxyMode.parse("regular"))
        self.failure: Exception | None = None
        """What broke the connection, when it was our doing."""
        self.is_draining = False
        self._hooks = hooks
        self._tls = tls
        self._redial = redial
        self._ended = ended
        self._settings = settings
        self._authority = authority
        self._upstream: socket.socket | None = upstream
        self._loop = asyncio.get_running_loop()
        self._events: collections.deque[events.Event] = collections.deque()
        self._is_pumping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._deadlines: dict[mitm.Connection, asyncio.TimerHandle] = {}
        self._gates = Gates(self.client)

        self.client.id = connection_id
        self.transports = {self.client: server.ConnectionIO(reader=self._reader_of(self.client, reader), writer=writer)}
        context = self.layer.context
        context.server.address = (authority.host, authority.port)
        context.server.sni = authority.host
        self.layer = ServerTLSLayer(context)
        client_tls = self.layer.child_layer = ClientTLSLayer(context)
        self._http = client_tls.child_layer = HttpLayer(context, HTTPMode.transparent)

    @property
    def authority(self) -> Authority:
        """What the CONNECT named."""
        return self._authority

    @property
    def is_idle(self) -> bool:
        """Whether no request is open and none has begun to arrive."""
        connection = self._http.connections.get(self.client)
        return not self._http.streams and not (isinstance(connection, Http1Connection) and connection.buf)

    async def run(self) -> None:
        """Carry the connection until it ends. When cancelled, both sides are closed at once."""
        serving = asyncio.ensure_future(self.handle_client())
        self._expect_handshake(self.client, self._settings.client_tls_timeout_seconds)
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            self.abort()
            await asyncio.wait([serving])
            raise
        except Exception as exc:
            # The hook boundary once more: `client_connected` may refuse by raising.
            self._fail(exc)
        finally:
            for deadline in self._deadlines.values():
                deadline.cancel()
            for task in self._tasks:
                task.cancel()
            for transport in self.transports.values():
                if transport.writer is not None:
                    transport.writer.close()
            if self._upstream is not None:
                self._upstream.close()

    def drain(self) -> None:
        """Close when no request is open, now or later."""
        self.is_draining = True
        if self.is_idle:
            self.abort()

    def abort(self) -> None:
        """Close both sides. What was written is still sent."""
        self._ended()
        for connection, transport in list(self.transports.items()):
            connection.state = mitm.ConnectionState.CLOSED
            if transport.handler is not None:
                transport.handler.cancel("aborted")

    async def on_timeout(self) -> None:
        """End a connection in which nothing happened for too long."""
        self.abort()

    async def server_event(self, event: events.Event) -> None:
        """Pass `event` through the layers and do what they ask for. Raises nothing."""
        if self.failure is not None:
            return
        self._events.append(event)
        if self._is_pumping:
            return  # asked for by what is being done; its turn comes below
        self._is_pumping = True
        self.timeout_watchdog.register_activity()
        try:
            while self._events and self.failure is None:
                for command in self.layer.handle_event(self._events.popleft()):
                    self._do(command)
        except Exception as exc:
            # The layer boundary: mitmproxy only logs here, and the client would wait for its timeout.
            self._fail(exc)
        finally:
            self._is_pumping = False
        self._settle_gates()
        if self.is_draining and self.is_idle:
            self.abort()

    def _do(self, command: commands.Command) -> None:
        match command:
            case commands.SendData():
                transport = self.transports.get(command.connection)
                if transport is not None and transport.writer is not None and not transport.writer.is_closing():
                    transport.writer.write(command.data)
            case commands.StartHook():
                self._start_hook(command)
            case commands.OpenConnection():
                task = self._start_task(self.open_connection(command))
                self.transports[command.connection] = server.ConnectionIO(handler=task)
            case commands.CloseTcpConnection():
                if command.connection in self.transports:
                    self.close_connection(command.connection, command.half_close)
            case commands.CloseConnection():
                if command.connection in self.transports:
                    self.close_connection(command.connection)
            case commands.RequestWakeup():
                self.wakeup_timer.add(self._start_task(self.wakeup(command)))
            case commands.Log():
                self.log(command.message, command.level)
            case _:
                raise RuntimeError(f"unknown command {type(command).__name__}")

    # Hooks

    def _start_hook(self, hook: commands.StartHook) -> None:
        match hook:
            case tls_layers.TlsClienthelloHook():
                self._end_deadline(self.client)  # it waits for the provider's handshake, which has its own
            case tls_layers.TlsStartClientHook():
                self._expect_handshake(self.client, self._settings.client_tls_timeout_seconds)
            case tls_layers.TlsStartServerHook():
                self._gates.wait_for(hook.data.conn)
            case tls_layers.TlsEstablishedClientHook() | tls_layers.TlsFailedClientHook():
                self._end_deadline(self.client)
            case tls_layers.TlsEstablishedServerHook() | tls_layers.TlsFailedServerHook():
                self._end_deadline(hook.data.conn)
                self._gates.done_with(hook.data.conn)
        try:
            pending = self._hooks.run(hook.name, *hook.args())
        except Exception as exc:  # the hook boundary
            self._hook_failed(hook, exc)
            pending = None
        if pending is not None:
            self._gates.wait_for(hook)
            self._start_task(self._finish_hook(hook, pending))
        elif hook.blocking:
            self._events.append(events.HookCompleted(hook))

    async def _finish_hook(self, hook: commands.StartHook, pending: Awaitable[None]) -> None:
        try:
            await pending
        except Exception as exc:  # the hook boundary
            self._hook_failed(hook, exc)
        self._gates.done_with(hook)
        if hook.blocking:
            await self.server_event(events.HookCompleted(hook))
        else:
            self._settle_gates()

    def _hook_failed(self, hook: commands.StartHook, exc: Exception) -> None:
        if hook.name in _OBSERVING_HOOKS:
            log.error("the hook %s failed; the bytes go on", hook.name, exc_info=exc)
        elif isinstance(hook, HttpRequestHeadersHook):
            log.error("a request is refused because the hook %s failed", hook.name, exc_info=exc)
            message = b"aiproxyd: this proxy met an error of its own and refuses what it cannot decide\n"
            hook.flow.response = http.Response.make(503, message, {"Content-Type": "text/plain; charset=utf-8"})
            hook.flow.request.stream = False
        else:
            self._fail(exc)

    async def handle_hook(self, hook: commands.StartHook) -> None:
        """Run the hooks of what is not asked for by a layer.

        Raises:
            Exception: A hook that may refuse raised.
        """
        try:
            pending = self._hooks.run(hook.name, *hook.args())
            if pending is not None:
                await pending
        except Exception as exc:  # the hook boundary
            if hook.name not in _OBSERVING_HOOKS:
                raise
            log.error("the hook %s failed; the bytes go on", hook.name, exc_info=exc)

    # Connections

    async def open_connection(self, command: commands.OpenConnection) -> None:
        """Connect to the provider: with the socket that was handed over, or by asking for another one."""
        connection = command.connection
        self._gates.wait_for(command)
        try:
            assert isinstance(connection, mitm.Server)
            await self._open(command, connection)
        except Exception as exc:
            # The task supervisor: a connection that nobody opens would leave its request waiting.
            self._fail(exc)
        finally:
            self._gates.done_with(command)
            self._end_deadline(connection)
            self._gates.forget(connection)
            self._settle_gates()

    async def _open(self, command: commands.OpenConnection, connection: mitm.Server) -> None:
        data = server_hooks.ServerConnectionHookData(client=self.client, server=connection)
        connection.timestamp_start = time.time()
        try:
            reader, writer = await self._connect(connection, data)
        except (OSError, AiproxydError) as exc:
            connection.error = str(exc) if isinstance(exc, AiproxydError) else "the provider cannot be reached"
            self.transports.pop(connection, None)
            await self.handle_hook(server_hooks.ServerConnectErrorHook(data))
            await self.server_event(events.OpenConnectionCompleted(command, connection.error))
            return
        connection.timestamp_tcp_setup = time.time()
        connection.state = mitm.ConnectionState.OPEN
        connection.peername = writer.get_extra_info("peername")
        connection.sockname = writer.get_extra_info("sockname")
        self.transports[connection] = server.ConnectionIO(asyncio.current_task(), self._reader_of(connection, reader), writer)
        await self.handle_hook(server_hooks.ServerConnectedHook(data))
        if connection.tls:
            self._expect_handshake(connection, self._settings.upstream_tls_timeout_seconds)
        self._gates.done_with(command)
        await self.server_event(events.OpenConnectionCompleted(command, None))
        try:
            await self.handle_connection(connection)
        finally:
            connection.timestamp_end = time.time()
            await self.handle_hook(server_hooks.ServerDisconnectedHook(data))

    async def _connect(
        self, connection: mitm.Server, data: server_hooks.ServerConnectionHookData
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        await self.handle_hook(server_hooks.ServerConnectHook(data))
        if connection.error:
            raise AiproxydError(connection.error)
        if connection.address != self._authority or connection.via is not None or connection.transport_protocol != "tcp":
            raise AiproxydError("requests of this connection go to the host of its CONNECT alone")
        if self._upstream is not None:
            upstream, self._upstream = self._upstream, None
        elif self._redial is not None:
            upstream = await self._redial(self._authority)
        else:
            raise AiproxydError("the provider closed the connection")
        try:
            return await asyncio.open_connection(sock=upstream, limit=_STREAM_LIMIT_BYTES)
        except BaseException:
            upstream.close()
            raise

    def _fail(self, exc: Exception) -> None:
        if self.failure is not None:
            return
        self.failure = exc
        log.error("a decrypted connection is closed because carrying it failed", exc_info=exc)
        self.abort()

    # Deadlines

    def _expect_handshake(self, connection: mitm.Connection, seconds: float) -> None:
        self._end_deadline(connection)
        self._deadlines[connection] = self._loop.call_later(seconds, self._handshake_is_late, connection)

    def _end_deadline(self, connection: mitm.Connection) -> None:
        deadline = self._deadlines.pop(connection, None)
        if deadline is not None:
            deadline.cancel()

    def _handshake_is_late(self, connection: mitm.Connection) -> None:
        transport = self.transports.get(connection)
        if transport is not None and transport.handler is not None:
            self._tls.late.add(connection.id)
            transport.handler.cancel("handshake timeout")

    # Odds and ends

    def _reader_of(self, connection: mitm.Connection, reader: asyncio.StreamReader) -> Any:
        return self._gates.reader(connection, reader)  # has the one method that mitmproxy calls

    def _settle_gates(self) -> None:
        if self.failure is not None:
            return
        try:
            self._gates.settle(self._http)
        except AiproxydError as exc:
            self._fail(exc)

    def _start_task(self, work: Any) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def log(self, message: str, level: int = logging.INFO, exc_info: Any = None) -> None:
        """Log what mitmproxy warns of. Its information messages are a line per connection and hold received bytes."""
        if level >= logging.WARNING:
            log.log(level if exc_info else logging.DEBUG, "mitmproxy: %s", message[:200], exc_info=exc_info)
