"""HTTP/2 through mitmproxy's layers: what the switch `decrypt.http2` turns on."""

import asyncio
import logging
from collections.abc import Callable

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest

from aiproxyd.mitm.backpressure import MAX_HELD_HTTP2_BYTES, held_bytes
from aiproxyd.model.observation import InterceptionEnded
from tests.unit.mitm.conversation import BODY, REPLY
from tests.unit.mitm.rig import HOST, PATIENCE_SECONDS, Rig, rig

REQUEST = [(":method", "POST"), (":scheme", "https"), (":authority", HOST), (":path", "/v1/chat/completions")]


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="aiproxyd.mitm")


class Peer:
    """One end of an HTTP/2 connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_client: bool) -> None:
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=is_client, header_encoding="utf-8"))
        self.events: list[h2.events.Event] = []
        self._reader = reader
        self._writer = writer
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self._writer.write(self.h2.data_to_send())

    async def receive(self) -> bool:
        """Take in what comes next; False at the end."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            data = await self._reader.read(65536)
        self.events += self.h2.receive_data(data)
        self.flush()
        return bool(data)

    async def event[T](self, kind: type[T], stream_id: int | None = None) -> T:
        while True:
            for event in self.events:
                if isinstance(event, kind) and stream_id in {None, getattr(event, "stream_id", None)}:
                    self.events.remove(event)
                    return event
            assert await self.receive(), f"the connection ended before a {kind.__name__}"

    async def body(self, stream_id: int) -> bytes:
        """Return the rest of a stream, giving its window back."""
        parts = []
        while True:
            data = [
                event for event in self.events if isinstance(event, h2.events.DataReceived) and event.stream_id == stream_id
            ]
            for event in data:
                self.events.remove(event)
                parts.append(event.data)
                self.h2.acknowledge_received_data(event.flow_controlled_length, stream_id)
            self.flush()
            if any(isinstance(event, h2.events.StreamEnded) and event.stream_id == stream_id for event in self.events):
                return b"".join(parts)
            assert await self.receive()

    def request(self, body: bytes = BODY) -> int:
        stream_id = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream_id, REQUEST)
        self.h2.send_data(stream_id, body, end_stream=True)
        self.flush()
        return stream_id


def serving(respond: Callable[[Peer, int], None]):
    """A provider that calls `respond` for each request that is complete."""

    async def script(reader, writer):
        peer = Peer(reader, writer, is_client=False)
        while True:
            ended = await peer.event(h2.events.StreamEnded)
            respond(peer, ended.stream_id)
            peer.flush()

    return script


def reply(peer: Peer, stream_id: int) -> None:
    peer.h2.send_headers(stream_id, [(":status", "200"), ("content-type", "application/json")])
    peer.h2.send_data(stream_id, REPLY, end_stream=True)


async def connect(running: Rig) -> Peer:
    client = await running.client("h2")
    assert client.tls.selected_alpn_protocol() == "h2"
    return Peer(client.reader, client.writer, is_client=True)


async def test_interleaved_streams_each_get_their_answer_and_their_record():
    pending: list[int] = []

    def respond_in_reverse(peer: Peer, stream_id: int) -> None:
        pending.append(stream_id)
        if len(pending) == 3:
            for waiting in reversed(pending):
                reply(peer, waiting)

    async with rig(serving(respond_in_reverse), alpn=("h2",), http2=True) as running:
        client = await connect(running)
        streams = [client.request() for _ in range(3)]
        for stream_id in streams:
            assert await client.body(stream_id) == REPLY
        ended = running.journal.all(InterceptionEnded)
        assert [(each.outcome, each.usage.output_tokens) for each in ended] == [("completed", 5)] * 3


async def test_trailers_arrive():
    def respond(peer: Peer, stream_id: int) -> None:
        peer.h2.send_headers(stream_id, [(":status", "200")])
        peer.h2.send_data(stream_id, REPLY)
        peer.h2.send_headers(stream_id, [("x-checksum", "abc")], end_stream=True)

    async with rig(serving(respond), alpn=("h2",), http2=True) as running:
        client = await connect(running)
        client.request()
        trailers = await client.event(h2.events.TrailersReceived)
        assert list(trailers.headers) == [("x-checksum", "abc")]


async def test_a_stream_that_its_client_resets_is_recorded_and_others_live():
    open_streams: list[int] = []

    def respond(peer: Peer, stream_id: int) -> None:
        open_streams.append(stream_id)
        if len(open_streams) == 1:
            peer.h2.send_headers(stream_id, [(":status", "200")])
        else:
            reply(peer, stream_id)

    async with rig(serving(respond), alpn=("h2",), http2=True) as running:
        client = await connect(running)
        first = client.request()
        await client.event(h2.events.ResponseReceived, first)
        client.h2.reset_stream(first)
        second = client.request()
        assert await client.body(second) == REPLY
        outcomes = {ended.outcome for ended in running.journal.all(InterceptionEnded)}
        assert outcomes == {"client_aborted", "completed"}


async def test_a_client_that_does_not_open_its_window_costs_a_bounded_amount():
    total = 64 << 20
    written = 0
    stalled = asyncio.Event()

    async def script(reader, writer):
        nonlocal written
        peer = Peer(reader, writer, is_client=False)
        ended = await peer.event(h2.events.StreamEnded)
        peer.h2.send_headers(ended.stream_id, [(":status", "200"), ("content-length", str(total))])
        await peer.event(h2.events.RemoteSettingsChanged)
        while written < total:
            room = min(peer.h2.local_flow_control_window(ended.stream_id), peer.h2.max_outbound_frame_size, total - written)
            if room <= 0:
                await peer.receive()
                continue
            peer.h2.send_data(ended.stream_id, b"x" * room, end_stream=written + room == total)
            written += room
            peer.flush()
            drained = asyncio.ensure_future(writer.drain())
            done, _ = await asyncio.wait([drained], timeout=1)
            if not done:
                stalled.set()
            await drained
        await peer.receive()

    async with rig(script, alpn=("h2",), http2=True) as running:
        client = await connect(running)
        stream_id = client.request()
        await asyncio.wait_for(stalled.wait(), PATIENCE_SECONDS)
        handler = running.engine._handlers["connection-0"]
        held = dict(held_bytes(handler._http))
        assert sum(held.values()) < 2 * MAX_HELD_HTTP2_BYTES
        assert written < total
        # And it was only waiting: once the window opens, all of it arrives.
        assert len(await client.body(stream_id)) == total


async def test_a_goaway_of_the_provider_ends_open_streams_visibly():
    """A fault of mitmproxy that stays: those streams should finish. They end in a reset and a record, not in a hang."""

    def respond(peer: Peer, stream_id: int) -> None:
        peer.h2.send_headers(stream_id, [(":status", "200")])
        peer.h2.close_connection(last_stream_id=stream_id)

    async with rig(serving(respond), alpn=("h2",), http2=True) as running:
        client = await connect(running)
        client.request()
        await client.event(h2.events.StreamReset)
        assert (await running.journal.wait_for(InterceptionEnded)).outcome in ("upstream_aborted", "upstream_error")


async def test_a_drain_ends_an_idle_connection():
    async with rig(serving(reply), alpn=("h2",), http2=True) as running:
        client = await connect(running)
        assert await client.body(client.request()) == REPLY
        running.engine.drain()
        await running.all_served()


async def test_what_belongs_to_http1_connections_is_no_obstacle():
    got = asyncio.get_running_loop().create_future()

    async def script(reader, writer):
        peer = Peer(reader, writer, is_client=False)
        received = await peer.event(h2.events.RequestReceived)
        got.set_result(dict(received.headers))
        reply(peer, received.stream_id)
        peer.flush()
        await peer.event(h2.events.ConnectionTerminated)

    async with rig(script, alpn=("h2",), http2=True) as running:
        client = await connect(running)
        stream_id = client.h2.get_next_available_stream_id()
        client.h2.send_headers(
            stream_id, [*REQUEST, ("proxy-authorization", "Basic c2VjcmV0"), ("te", "trailers")], end_stream=True
        )
        client.flush()
        assert await client.body(stream_id) == REPLY
        assert "proxy-authorization" not in await got
        assert (await got)[":authority"] == HOST
