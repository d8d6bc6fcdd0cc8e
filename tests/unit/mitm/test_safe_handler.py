import asyncio
import json

from aiproxyd.model.observation import InterceptionDescribed, InterceptionEnded, InterceptionStarted
from tests.unit.mitm.rig import HOST, rig

BODY = json.dumps({"model": "gpt-x", "messages": [{"role": "user", "content": "hi"}]}).encode()
REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s" % (HOST.encode(), len(BODY), BODY)
REPLY = json.dumps(
    {
        "id": "chatcmpl-1",
        "model": "gpt-x-2",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "ho"}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
    }
).encode()
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(REPLY), REPLY)


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(l.split(b":")[1]) for l in head.lower().split(b"\r\n") if l.startswith(b"content-length:")), 0)
    return head, await reader.readexactly(length)


async def answer(reader, writer):
    while True:
        await read_request(reader)
        writer.write(RESPONSE)


async def test_a_request_and_its_response_pass_unchanged_and_are_recorded():
    seen = []

    async def script(reader, writer):
        seen.append(await read_request(reader))
        writer.write(RESPONSE)
        await reader.read()

    async with rig(script) as running:
        client = await running.client()
        await client.send(REQUEST)
        assert await client.exactly(len(RESPONSE)) == RESPONSE
        await client.close()
        await running.all_served()
        ended = await running.journal.wait_for(InterceptionEnded)
    head, _, body = REQUEST.partition(b"\r\n\r\n")
    assert seen == [(head + b"\r\n\r\n", body)]
    assert running.journal.all(InterceptionStarted)[0].principal_name == "ada"
    assert running.journal.all(InterceptionDescribed)[0].prompt == "hi"
    assert (ended.outcome, ended.usage.output_tokens) == ("completed", 5)
