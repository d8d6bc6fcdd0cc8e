"""The origin of the benchmark: canned answers over TLS, paced streams, and a source of bytes. As little Python as possible.

Run as a process of its own: prints one JSON line with its ports and serves until its standard input closes.
"""

import asyncio
import json
import ssl
import sys
import time

import uvloop

EVENTS = 100
EVENT_INTERVAL_SECONDS = 0.02

ANSWER = json.dumps(
    {
        "id": "msg_bench",
        "type": "message",
        "role": "assistant",
        "model": "claude-bench",
        "content": [{"type": "text", "text": "A short answer, as most answers of a tool loop are. " * 6}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 812,
            "output_tokens": 61,
            "cache_read_input_tokens": 13993,
            "cache_creation_input_tokens": 22,
        },
    }
).encode()

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nrequest-id: req_bench\r\nContent-Length: %d\r\n\r\n" % len(
    ANSWER
)
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _chunk(kind: str, **data: object) -> bytes:
    event = f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(event), event)


_USAGE = {"input_tokens": 812, "output_tokens": 1}
_FIRST = _chunk(
    "message_start",
    message={
        "id": "msg_bench",
        "type": "message",
        "role": "assistant",
        "model": "claude-bench",
        "content": [],
        "usage": _USAGE,
    },
) + _chunk("content_block_start", index=0, content_block={"type": "text", "text": ""})
# Each event says when it was sent, so that the load, on the same clock, knows how long it was under way.
_NO_TIME = "sent=0000000000000000000 "
_DELTA = _chunk("content_block_delta", index=0, delta={"type": "text_delta", "text": "some words of an answer " + _NO_TIME})
_BEFORE_TIME, _, _AFTER_TIME = _DELTA.partition(_NO_TIME.encode())
_LAST = (
    _chunk("content_block_stop", index=0)
    + _chunk("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 105})
    + _chunk("message_stop")
    + b"0\r\n\r\n"
)

_BLOCK = bytes(range(256)) * 1024


class Http(asyncio.Protocol):
    """Answers every request with the same document, or with the paced stream when its body asks for one."""

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._streams: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        for stream in self._streams:
            stream.cancel()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data
        while (end := buffer.find(b"\r\n\r\n")) >= 0:
            at = buffer.lower().find(b"content-length:", 0, end)
            length = int(buffer[at + 15 : buffer.find(b"\r\n", at)]) if at >= 0 else 0
            if len(buffer) < end + 4 + length:
                break
            body = buffer[end + 4 : end + 4 + length]
            buffer = buffer[end + 4 + length :]
            assert self._transport is not None
            if b'"stream": true' in body:
                task = asyncio.get_running_loop().create_task(self._stream())
                self._streams.add(task)
                task.add_done_callback(self._streams.discard)
            else:
                self._transport.write(_HEAD + ANSWER)
        self._buffer = buffer

    async def _stream(self) -> None:
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        self._transport.write(_STREAM_HEAD + _FIRST)
        started = loop.time()
        for number in range(EVENTS):
            # Against a plan, not after each other: a late event does not shift those behind it.
            await asyncio.sleep(started + (number + 1) * EVENT_INTERVAL_SECONDS - loop.time())
            self._transport.write(b"%bsent=%019d %b" % (_BEFORE_TIME, time.perf_counter_ns(), _AFTER_TIME))
        self._transport.write(_LAST)


class Source(asyncio.Protocol):
    """Sends as many bytes as the first line asks for, then ends."""

    def __init__(self) -> None:
        self._left = -1
        self._is_paused = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self._left < 0:
            self._left = int(data)
            self.resume_writing()

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        assert self._transport is not None
        while self._left > 0 and not self._is_paused:
            piece = _BLOCK[: self._left]
            self._left -= len(piece)
            self._transport.write(piece)
        if self._left == 0:
            self._transport.close()


async def serve(certificate: str) -> None:
    """Listen and serve until standard input closes."""
    loop = asyncio.get_running_loop()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.set_alpn_protocols(["http/1.1"])
    https = await loop.create_server(Http, "127.0.0.1", 0, ssl=context, backlog=4096)
    source = await loop.create_server(Source, "127.0.0.1", 0, backlog=4096)
    tls_source = await loop.create_server(Source, "127.0.0.1", 0, ssl=context, backlog=4096)
    ports = [server.sockets[0].getsockname()[1] for server in (https, source, tls_source)]
    print(json.dumps(dict(zip(("https", "source", "tls_source"), ports, strict=True))), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
