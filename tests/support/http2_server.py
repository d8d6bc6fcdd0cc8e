"""HTTP/2, the provider's side, for clients and proxies that negotiate it. Streams are answered side by side."""

import asyncio
import contextlib

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError

from tests.support.application import Application, Broken, Incoming


class Http2Connection:
    """One connection of a client that chose `h2`."""

    def __init__(self, application: Application, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sni: str) -> None:
        self._application = application
        self._reader = reader
        self._writer = writer
        self._sni = sni
        self._number = application.connected()
        self._http2 = H2Connection(H2Configuration(client_side=False, header_encoding="latin-1"))
        self._requests: dict[int, Incoming] = {}
        self._answers: dict[int, asyncio.Task[None]] = {}
        self._window_opened = asyncio.Event()

    async def serve(self) -> None:
        """Answer every request until the client leaves."""
        self._http2.initiate_connection()
        self._flush()
        try:
            while data := await self._reader.read(65536):
                for event in self._http2.receive_data(data):
                    self._handle(event)
                self._flush()
        except (ConnectionError, ProtocolError, OSError):
            pass
        finally:
            for task in self._answers.values():
                task.cancel()
            self._writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._writer.wait_closed()

    def _flush(self) -> None:
        self._writer.write(self._http2.data_to_send())

    def _handle(self, event: object) -> None:
        match event:
            case RequestReceived():
                headers = [(str(name), str(value)) for name, value in event.headers or []]
                pseudo = dict(headers)
                self._requests[event.stream_id] = self._application.incoming(
                    connection=self._number,
                    protocol="h2",
                    sni=self._sni,
                    method=pseudo[":method"],
                    target=pseudo[":path"],
                    head=b"",
                    headers=[*headers, ("host", pseudo.get(":authority", ""))],
                )
            case DataReceived():
                self._requests[event.stream_id].data(event.data)
                self._http2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
            case StreamEnded():
                self._answers[event.stream_id] = asyncio.ensure_future(self._answer(event.stream_id))
            case StreamReset():
                if task := self._answers.pop(event.stream_id, None):
                    task.cancel()
                    self._requests[event.stream_id].entry.end = "client_left"
                    self._application.ledger.changed()
            case WindowUpdated():
                self._window_opened.set()
                self._window_opened = asyncio.Event()
            case ConnectionTerminated():
                self._writer.close()

    async def _answer(self, stream: int) -> None:
        incoming = self._requests[stream]
        entry = incoming.entry
        reply, pace = self._application.answer(incoming)
        headers = [
            (":status", str(reply.status)),
            ("content-type", reply.content_type),
            ("request-id", f"req_{entry.serial:08d}"),
        ]
        if entry.coding != "identity":
            headers.append(("content-encoding", entry.coding))
        try:
            self._http2.send_headers(stream, headers)
            self._flush()
            async for piece in self._application.pieces(reply, pace, entry):
                await self._send(stream, piece)
            self._http2.end_stream(stream)
            entry.end = "complete"
        except Broken as broken:
            entry.end = broken.args[0]
            self._http2.reset_stream(stream, error_code=2)
        except (ProtocolError, ConnectionError):
            entry.end = "client_left"
        finally:
            self._application.ledger.changed()
        self._flush()
        await self._writer.drain()

    async def _send(self, stream: int, data: bytes) -> None:
        while data:
            size = min(self._http2.local_flow_control_window(stream), self._http2.max_outbound_frame_size, len(data))
            if size <= 0:
                await self._window_opened.wait()
                continue
            self._http2.send_data(stream, data[:size])
            data = data[size:]
            self._flush()
            await self._writer.drain()
