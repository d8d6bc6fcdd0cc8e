import asyncio
import logging

import pytest

from aiproxyd.mitm import safe_layers
from aiproxyd.mitm.engine import EngineSettings
from aiproxyd.mitm.safe_layers import MAX_ERROR_MESSAGE_CHARACTERS, MAX_PIPELINED_BYTES, error_response
from aiproxyd.model.observation import InterceptionEnded, PassthroughEnded
from tests.unit.mitm.conversation import BODY, HEAD, REPLY, REQUEST, RESPONSE, STREAM_HEAD, answer, chunk, read_request
from tests.unit.mitm.rig import HOST, rig

GET = b"GET /v1/models HTTP/1.1\r\nHost: %s\r\n\r\n" % HOST.encode()


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="aiproxyd.mitm")


def replies(*pieces: bytes):
    """A provider that reads a request and writes `pieces`, then waits."""

    async def script(reader, writer):
        await read_request(reader)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        await reader.read()

    return script


# Trailers


async def test_trailers_of_a_response_arrive():
    end = b"0\r\nX-Checksum: abc\r\nGrpc-Status: 0\r\n\r\n"
    async with rig(replies(STREAM_HEAD + chunk(b"data: 1\n\n") + end)) as running:
        client = await running.client()
        await client.send(REQUEST)
        assert await client.until(end) == STREAM_HEAD + chunk(b"data: 1\n\n") + end
        await client.send(REQUEST)  # the connection is still in step
        await client.close()


async def test_trailers_of_a_request_arrive():
    got = asyncio.get_running_loop().create_future()
    request = HEAD.replace(b"Content-Length: %d" % len(BODY), b"Transfer-Encoding: chunked") + chunk(BODY)
    end = b"0\r\nX-Checksum: abc\r\n\r\n"

    async def script(reader, writer):
        got.set_result(await reader.readuntil(end))
        writer.write(RESPONSE)
        await answer(reader, writer)

    async with rig(script) as running:
        client = await running.client()
        for _ in range(2):
            await client.send(request + end if not got.done() else REQUEST)
            assert await client.exactly(len(RESPONSE)) == RESPONSE
        assert await got == request + end


async def test_trailers_that_come_in_pieces_arrive():
    pieces = (STREAM_HEAD, chunk(b"x"), b"0\r\n", b"X-A", b": 1\r", b"\n", b"\r", b"\n")
    async with rig(replies(*pieces)) as running:
        client = await running.client()
        await client.send(REQUEST)
        assert await client.until(b"X-A: 1\r\n\r\n") == b"".join(pieces)


async def test_a_trailer_section_without_end_is_not_hoarded():
    async with rig(replies(STREAM_HEAD + b"0\r\n" + b"X: y\r\n" * 40_000)) as running:
        client = await running.client()
        await client.send(REQUEST)
        assert await client.rest() == STREAM_HEAD
        await running.all_served()
        assert running.journal.all(InterceptionEnded)[0].outcome in ("upstream_aborted", "upstream_error")


async def test_a_chunk_header_without_end_is_not_hoarded():
    async with rig(replies(STREAM_HEAD + b"1;x=" + b"y" * 200_000)) as running:
        client = await running.client()
        await client.send(REQUEST)
        assert await client.rest() == STREAM_HEAD


async def test_malformed_chunks_of_a_request_end_its_connection():
    async with rig(answer) as running:
        client = await running.client()
        await client.send(HEAD.replace(b"Content-Length: %d" % len(BODY), b"Transfer-Encoding: chunked") + b"zz\r\n")
        assert await client.rest() == b""
        await running.all_served()
        assert running.journal.all(InterceptionEnded)[0].outcome == "client_aborted"


async def test_many_chunks_of_one_read_arrive_whole():
    events = [b"data: %d\n\n" % number for number in range(2000)]
    async with rig(replies(STREAM_HEAD + b"".join(map(chunk, events)) + b"0\r\n\r\n")) as running:
        client = await running.client()
        await client.send(REQUEST)
        assert await client.head() == STREAM_HEAD
        body = b""
        while size := int((await client.until(b"\r\n")).strip(), 16):
            body += await client.exactly(size)
            await client.exactly(2)
        assert body == b"".join(events)


# Limits of heads


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"])
async def test_a_huge_request_head_is_refused(end):
    async with rig(answer) as running:
        client = await running.client()
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000 + end)
        response = await client.rest()
        assert response.startswith(b"HTTP/1.1 431 ")
        assert response.endswith(b"aiproxyd: the head of the request is larger than this proxy accepts\n")
        await running.all_served()


async def test_a_request_head_that_drips_is_refused_in_time():
    async with rig(answer, settings=EngineSettings(head_timeout_seconds=1)) as running:
        client = await running.client()
        await client.send(b"GET / HT")
        assert (await client.rest()).startswith(b"HTTP/1.1 408 ")
        await running.all_served()


async def test_each_head_has_its_own_time():
    asked = asyncio.Event()
    go_on = asyncio.Event()

    async def script(reader, writer):
        await read_request(reader)
        asked.set()
        await go_on.wait()
        writer.write(RESPONSE)
        await reader.read()

    async with rig(script, settings=EngineSettings(head_timeout_seconds=1)) as running:
        client = await running.client()
        await client.send(REQUEST[:20])
        await client.send(REQUEST[20:])
        await asked.wait()
        # Longer than a head may take: the model thinks, and no head is on its way.
        await asyncio.sleep(1.2)
        go_on.set()
        assert await client.exactly(len(RESPONSE)) == RESPONSE


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"])
async def test_a_huge_response_head_is_not_taken(end):
    async with rig(replies(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + end)) as running:
        client = await running.client()
        await client.send(REQUEST)
        response = await client.rest()
        assert response.startswith(b"HTTP/1.1 502 ")
        assert b"yyy" not in response
        assert running.journal.all(InterceptionEnded)[0].outcome in ("upstream_aborted", "upstream_error")


async def test_a_response_head_that_drips_is_given_up_in_time():
    async with rig(replies(b"HTTP/1.1 20"), settings=EngineSettings(head_timeout_seconds=1)) as running:
        client = await running.client()
        await client.send(REQUEST)
        assert (await client.rest()).startswith(b"HTTP/1.1 502 ")


async def test_a_response_that_is_no_http_is_not_shown():
    async with rig(replies(b"SSH-2.0-secret\r\n\r\n")) as running:
        client = await running.client()
        await client.send(REQUEST)
        response = await client.rest()
        assert response.startswith(b"HTTP/1.1 502 ")
        assert len(response) < 2 * MAX_ERROR_MESSAGE_CHARACTERS + 300


async def test_what_is_pipelined_is_answered_in_turn():
    async with rig(answer) as running:
        client = await running.client()
        await client.send(REQUEST * 3)
        assert await client.exactly(3 * len(RESPONSE)) == 3 * RESPONSE
        assert len(running.journal.all(InterceptionEnded)) == 3


async def test_what_is_pipelined_without_end_is_not_hoarded():
    async with rig(replies()) as running:
        client = await running.client()
        try:
            for _ in range(8 * MAX_PIPELINED_BYTES // len(REQUEST * 100)):
                await client.send(REQUEST * 100)
        except OSError:
            pass
        assert await client.rest() == b""
        await running.all_served()


# Hop by hop


async def test_what_ends_at_a_proxy_never_reaches_an_origin():
    got = asyncio.get_running_loop().create_future()

    async def script(reader, writer):
        got.set_result((await read_request(reader))[0])
        writer.write(RESPONSE)
        await reader.read()

    async with rig(script) as running:
        client = await running.client()
        await client.send(
            b"GET / HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic c2VjcmV0\r\nProxy-Connection: keep-alive\r\n"
            b"Connection: keep-alive, X-Hop\r\nX-Hop: secret\r\nKeep-Alive: timeout=5\r\nX-End-To-End: 1\r\n\r\n"
        )
        assert await got == b"GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\nX-End-To-End: 1\r\n\r\n"


# Early answers and informational ones


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 4\r\n\r\nno!\n", b"Transfer-Encoding: chunked\r\n\r\n4\r\nno!\n\r\n0\r\n\r\n"]
)
@pytest.mark.parametrize("closes", [False, True])
async def test_an_answer_that_comes_before_the_request_ends_arrives_whole(framing, closes):
    async def script(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\n" + framing)
        await writer.drain()
        if not closes:
            await reader.read()

    async with rig(script) as running:
        client = await running.client()
        await client.send(HEAD.replace(b"%d" % len(BODY), b"3000000") + b"x" * 100)
        assert await client.exactly(len(b"HTTP/1.1 413 Too Large\r\n" + framing)) == b"HTTP/1.1 413 Too Large\r\n" + framing
        ended = await running.journal.wait_for(InterceptionEnded)
        assert (ended.outcome, ended.status_code) == ("upstream_error", 413)
        # The rest of the request is taken and forgotten, so that a client that sends first and reads then gets its answer.
        await client.send(b"x" * 2_999_900)
        if not closes:
            await client.send(REQUEST)
            await asyncio.sleep(0)
        await client.close()
        await running.all_served()


async def test_an_interim_response_is_passed_on_and_the_final_one_follows():
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    async with rig(replies(interim[:20], interim[20:] + interim + RESPONSE)) as running:
        client = await running.client()
        await client.send(REQUEST)
        assert await client.exactly(len(2 * interim + RESPONSE)) == 2 * interim + RESPONSE
        assert (await running.journal.wait_for(InterceptionEnded)).outcome == "completed"


@pytest.mark.parametrize("interim", [b"HTTP/1.1 103 x\r\nX: " + b"y" * 100_000, b"HTTP/1.1 103 x\r\nbroken\r\n\r\n"])
async def test_an_interim_response_that_is_none_is_not_taken(interim):
    async with rig(replies(interim)) as running:
        client = await running.client()
        await client.send(REQUEST)
        assert (await client.rest()).startswith(b"HTTP/1.1 502 ")


async def test_a_client_that_waits_for_continue_is_told_to_go_on():
    async with rig(answer) as running:
        client = await running.client()
        await client.send(HEAD.replace(b"Content-Length", b"Expect: 100-continue\r\nContent-Length"))
        assert (await client.head()).startswith(b"HTTP/1.1 100 ")
        await client.send(BODY)
        assert await client.exactly(len(RESPONSE)) == RESPONSE


async def test_a_failure_after_continue_still_has_an_answer():
    async with rig(answer, trusted=False) as running:
        client = await running.client()
        await client.send(HEAD.replace(b"Content-Length", b"Expect: 100-continue\r\nContent-Length"))
        assert (await client.head()).startswith(b"HTTP/1.1 100 ")
        await client.send(BODY)
        assert (await client.head()).startswith(b"HTTP/1.1 502 ")


# Other framings


@pytest.mark.parametrize(
    ("request_head", "response"),
    [
        (b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        (b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (GET, b"HTTP/1.1 204 No Content\r\n\r\n"),
        (GET, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n"),
        (GET, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ],
)
async def test_a_response_without_body_keeps_the_connection_in_step(request_head, response):
    async def script(reader, writer):
        await read_request(reader)
        writer.write(response)
        await answer(reader, writer)

    async with rig(script) as running:
        client = await running.client()
        await client.send(request_head)
        assert await client.exactly(len(response)) == response
        await client.send(REQUEST)
        assert await client.exactly(len(RESPONSE)) == RESPONSE
        assert (await running.journal.wait_for(PassthroughEnded)).status_code == int(response[9:12])


async def test_a_response_that_ends_with_its_connection_arrives_whole():
    async def script(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + REPLY)

    async with rig(script) as running:
        client = await running.client()
        await client.send(REQUEST)
        assert await client.rest() == b"HTTP/1.1 200 OK\r\n\r\n" + REPLY
        assert running.journal.all(InterceptionEnded)[0].usage.output_tokens == 5


# Upgrades


async def test_an_upgraded_connection_is_plain_bytes_in_both_directions():
    upgrade = (
        b"GET /v1/realtime HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    switched = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    # Neither masked nor a frame at all: nobody here may care.
    blob = bytes(range(256)) * 4096
    got = []

    async def script(reader, writer):
        got.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(switched + b"first")
        got.append(await reader.readexactly(len(blob)))
        writer.write(blob)
        await reader.read()

    async with rig(script) as running:
        client = await running.client()
        await client.send(upgrade)
        assert await client.exactly(len(switched) + 5) == switched + b"first"
        assert (await running.journal.wait_for(PassthroughEnded)).status_code == 101
        await client.send(blob)
        assert await client.exactly(len(blob)) == blob
        handler = running.engine._handlers["connection-0"]
        (stream,) = handler._http.streams.values()
        assert stream.flow.websocket is None
        await client.close()
        await running.all_served()
    assert got == [upgrade, blob]


# HTTP/1 error pages


def test_an_error_page_is_short_plain_text():
    page = error_response(502, "x" * 5000)
    head, _, body = page.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    assert b"text/plain" in head
    assert len(body) < MAX_ERROR_MESSAGE_CHARACTERS + 50


def test_installing_twice_is_the_same_as_once():
    safe_layers.install()
    safe_layers.install()
    assert safe_layers.http_layers.Http1Server is safe_layers.SafeHttp1Server


async def test_a_body_larger_than_any_buffer_passes_in_both_directions():
    size = 8 << 20

    async def script(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(size)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // 65536):
            writer.write(b"y" * 65536)
            await writer.drain()
        await reader.read()

    async with rig(script) as running:
        client = await running.client()
        await client.send(b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // 65536):
            await client.send(b"x" * 65536)
        await client.head()
        assert await client.exactly(size) == b"y" * size


async def test_a_request_that_mitmproxy_refuses_is_recorded_as_refused():
    async with rig(answer) as running:
        client = await running.client()
        await client.send(HEAD.replace(b"Content-Length", b"Transfer-Encoding: chunked\r\nContent-Length") + b"0\r\n\r\n")
        assert (await client.rest()).startswith(b"HTTP/1.1 400 ")
        await running.all_served()
        assert [ended.outcome for ended in running.journal.all(InterceptionEnded)] in ([], ["refused"])
