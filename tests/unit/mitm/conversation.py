"""Bytes that tests of decrypted connections send and get."""

import asyncio
import json

from tests.unit.mitm.rig import HOST

BODY = json.dumps({"model": "gpt-x", "messages": [{"role": "user", "content": "hi"}]}).encode()
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n" % (HOST.encode(), len(BODY))
REQUEST = HEAD + BODY
REPLY = json.dumps(
    {
        "id": "chatcmpl-1",
        "model": "gpt-x-2",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "ho"}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
    }
).encode()
RESPONSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(REPLY)
RESPONSE = RESPONSE_HEAD + REPLY
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.split(b":", 1) for line in head.lower().split(b"\r\n")[1:] if line)
    return head, await reader.readexactly(int(fields.get(b"content-length", 0)))


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request with RESPONSE."""
    while True:
        await read_request(reader)
        writer.write(RESPONSE)
