"""A worker's memory does not follow the size of what it forwards: a stream of gigabytes, and one event of 100 MB on a single line.

The peak is the kernel's own (`VmHWM`), so nothing between two looks is missed. Through mitmproxy's layers 300 MB stand for 2 GB in the
suite; `make huge` runs the whole size.
"""

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.clients import decrypted, message
from tests.support.daemon import Daemon, eventually
from tests.support.fake_provider import FakeProvider

HOST = "api.anthropic.com"

MAX_GROWTH_BYTES = 32 << 20

EVENT_CHARACTERS = 1000
"""Of text in each event of a long stream; real ones have about 20, which only takes longer."""


def _event(**fields: object) -> bytes:
    return f"event: {fields['type']}\ndata: {json.dumps(fields)}\n\n".encode()


START = _event(
    type="message_start",
    message={
        "id": "msg_huge",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "usage": {"input_tokens": 7},
    },
) + _event(type="content_block_start", index=0, content_block={"type": "text", "text": ""})
END = (
    _event(type="content_block_stop", index=0)
    + _event(type="message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 1234})
    + _event(type="message_stop")
)
_TEXT = _event(type="content_block_delta", index=0, delta={"type": "text_delta", "text": "x" * EVENT_CHARACTERS})


def many_events(size: int) -> Iterator[bytes]:
    """Yield a stream of at least `size` bytes in small events."""
    piece = _TEXT * (256 * 1024 // len(_TEXT))
    yield START
    for _ in range(size // len(piece) + 1):
        yield piece
    yield END


def one_event(size: int) -> Iterator[bytes]:
    """Yield a stream of which one event is a single line of more than `size` bytes."""
    yield START
    yield b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"'
    for _ in range(size // (256 * 1024)):
        yield b"x" * (256 * 1024)
    yield b'"}}\n\n' + END


class Firehose:
    """Answers the next request with `pieces`, as fast as the socket takes them, and counts what it sent."""

    def __init__(self, context: ssl.SSLContext, pieces: Iterator[bytes]) -> None:
        self.sent = 0
        self._context = context
        self._pieces = pieces
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "Firehose":  # noqa: PYI034  (not meant to be subclassed)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        raw, _ = self._listener.accept()
        with self._context.wrap_socket(raw, server_side=True) as connection:
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(65536)
            head, _, body = request.partition(b"\r\n\r\n")
            length = int(
                next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")).split(b":")[1]
            )
            while len(body) < length:
                body += connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
            for piece in self._pieces:
                connection.sendall(piece)
                self.sent += len(piece)


def _reset_peak(pid: int) -> int:
    """Forget the peak of a process's memory; return its memory now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return psutil.Process(pid).memory_info().rss


def _peak(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) << 10


def _growth(own_daemon, provider: FakeProvider, model: str, engine: str, pieces: Iterator[bytes], outcome: str) -> int:  # type: ignore[no-untyped-def]
    daemon: Daemon = own_daemon(config={"decrypt": {"engine": engine}})
    with decrypted(daemon, HOST) as wire:
        # What is imported and allocated with the first requests, a stream's among them, is not the huge one's.
        for _ in range(3):
            assert wire.request("POST", "/v1/messages", HOST, message("before-" + model, stream=True)).status == 200
    with Firehose(provider.certificates.server_context(HOST), pieces) as firehose:
        daemon.write_config(egress={"hosts": {HOST: f"127.0.0.1:{firehose.port}"}})
        daemon.reload()
        daemon.wait_for_log("configuration reloaded")
        (pid,) = daemon.workers
        with decrypted(daemon, HOST, timeout_seconds=60) as wire:
            before = _reset_peak(pid)
            wire.request("POST", "/v1/messages", HOST, message(model, stream=True), read=False)
            wire.read_head()
            buffer, received = memoryview(bytearray(1 << 20)), 0
            received += len(wire.receive())
            while count := wire.socket.recv_into(buffer):
                received += count
            growth = _peak(pid) - before
        assert received >= firehose.sent > 100 << 20
    record = eventually(lambda: [row for row in daemon.stored(model) if row["ended_at"]], "the record")[0]
    assert record["outcome"] == outcome
    return growth


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("engine", "size"),
    [
        pytest.param("relay", 2 << 30, id="relay-2 GB"),
        pytest.param("mitmproxy", 300 << 20, id="mitmproxy-300 MB"),
        pytest.param("mitmproxy", 2 << 30, id="mitmproxy-2 GB", marks=pytest.mark.huge),
    ],
)
def test_a_huge_stream_is_read_to_its_end_in_little_memory(own_daemon, provider, model: str, engine: str, size: int) -> None:
    growth = _growth(own_daemon, provider, model, engine, many_events(size), "completed")
    print(f"\n{engine}: {size >> 20} MB of events: {growth / (1 << 20):.1f} MiB")
    assert growth < MAX_GROWTH_BYTES


@pytest.mark.timeout(200)
def test_an_event_of_100_mb_on_one_line_passes_in_little_memory(own_daemon, provider, model: str, engine: str) -> None:
    growth = _growth(own_daemon, provider, model, engine, one_event(100 << 20), "parse_failed")
    print(f"\n{engine}: an event of 100 MB: {growth / (1 << 20):.1f} MiB")
    assert growth < MAX_GROWTH_BYTES
