"""Plain `http://` requests in absolute form: what the origin gets, what the client gets, and what becomes of the connection."""

import asyncio
import contextlib

import pytest

from aiproxyd.mitm.front import FrontSettings
from aiproxyd.model.observation import ConnectDecided, TunnelClosed
from tests.unit.mitm.stage import REFUSED_HOST, TUNNEL_HOST, answer_all, read_response, stage, until

LOOPS = "both"


async def test_requests_of_one_connection_go_each_its_way(tmp_path):
    heads = []

    async def origin(reader, writer):
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        body = await reader.readexactly(4) if b"Content-Length: 4" in heads[-1] else b""
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await reader.read()

    async with stage(tmp_path, answer_all, plain_handler=origin) as s:
        reader, writer = await s.open()
        writer.write(
            b"GET http://files.example.com/a?b HTTP/1.1\r\nHost: files.example.com\r\nProxy-Authorization: Basic x\r\n\r\n"
        )
        assert await read_response(reader) == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        writer.write(b"POST http://files.example.com HTTP/1.1\r\nHost: files.example.com\r\nContent-Length: 4\r\n\r\nbo")
        await until(lambda: len(heads) == 2)
        writer.write(b"dy")
        assert (await read_response(reader)).endswith(b"body")
        assert heads == [
            b"GET /a?b HTTP/1.1\r\nHost: files.example.com\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: files.example.com\r\nContent-Length: 4\r\n\r\n",
        ]
        assert s.decider.asked == [("GET", TUNNEL_HOST), ("POST", TUNNEL_HOST)]
        assert [d.status_code for d in s.memory.of(ConnectDecided)] == [200, 200]
        await s.memory.until(TunnelClosed, 2)
        # The same connection may be tunnelled afterwards.
        writer.write(b"CONNECT files.example.com:443 HTTP/1.1\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_fields_meant_for_the_proxy_reach_no_origin(tmp_path):
    heads = []

    async def origin(reader, writer):
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await reader.read()

    async with stage(tmp_path, answer_all, plain_handler=origin) as s:
        reader, writer = await s.open()
        fields = b"X-Coder-AI-Governance-Token: secret\r\nX-Coder-AI-Governance-Request-Id: 1\r\nA: b"
        writer.write(b"GET http://files.example.com/ HTTP/1.1\r\nHost: files.example.com\r\n%s\r\n\r\n" % fields)
        await read_response(reader)
        assert heads == [b"GET / HTTP/1.1\r\nHost: files.example.com\r\nA: b\r\n\r\n"]
        writer.close()


async def test_pipelined_requests_wait_for_their_turn(tmp_path):
    async with stage(tmp_path, answer_all) as s:
        reader, writer = await s.open()
        writer.write(
            b"".join(
                b"POST http://files.example.com/%d HTTP/1.1\r\nHost: files.example.com\r\nContent-Length: 2\r\n\r\nab" % n
                for n in range(5)
            )
        )
        for number in range(5):
            assert (await read_response(reader)).endswith(b"/%d|ab" % number)
        assert len(s.decider.asked) == 5
        writer.close()


async def test_a_refused_plain_request_leaves_the_connection_usable_unless_it_has_a_body(tmp_path):
    async with stage(tmp_path, answer_all) as s:
        reader, writer = await s.open()
        writer.write(f"GET http://{REFUSED_HOST}/ HTTP/1.1\r\n\r\n".encode())
        assert (await read_response(reader)).startswith(b"HTTP/1.1 403 ")
        writer.write(b"GET http://files.example.com/ok HTTP/1.1\r\n\r\n")
        assert (await read_response(reader)).endswith(b"/ok|")
        writer.write(f"POST http://{REFUSED_HOST}/ HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n".encode() + bytes(100_000))
        assert (await reader.read()).startswith(b"HTTP/1.1 403 ")
        writer.close()


@pytest.mark.parametrize(
    ("answer", "request_version"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"1.1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", b"1.1"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"1.1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"1.0"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut", b"1.1"),
        (b"HTTP/1.1 204 No Content\r\n\r\nan answer to nothing", b"1.1"),
        (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nno", b"1.1"),
        (b"", b"1.1"),
    ],
)
async def test_the_clients_connection_ends_with_an_answer_that_ends_it(tmp_path, answer, request_version):
    async def origin(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    async with stage(tmp_path, answer_all, plain_handler=origin) as s:
        reader, writer = await s.open()
        writer.write(b"GET http://files.example.com/ HTTP/%s\r\n\r\n" % request_version)
        assert await reader.read() == answer
        writer.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokmore\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: mine\r\n\r\n",
    ],
)
async def test_an_origin_whose_answer_cannot_be_followed_does_not_get_the_next_request(tmp_path, answer):
    got = bytearray()
    may_end = asyncio.Event()

    async def origin(reader, writer):
        got.extend(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                while data := await reader.read(4096):
                    got.extend(data)
        may_end.set()
        writer.close()

    async with stage(tmp_path, answer_all, plain_handler=origin) as s:
        reader, writer = await s.open()
        writer.write(b"GET http://files.example.com/ HTTP/1.1\r\nHost: files.example.com\r\n\r\n")
        assert await reader.readexactly(len(answer)) == answer
        with contextlib.suppress(OSError):
            writer.write(b"GET http://other.example.com/ HTTP/1.1\r\nProxy-Authorization: Basic secret\r\n\r\n")
        await may_end.wait()
        assert bytes(got) == b"GET / HTTP/1.1\r\nHost: files.example.com\r\n\r\n"
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()


async def test_a_client_that_leaves_before_the_answer_ends_the_origins_connection(tmp_path):
    gone = asyncio.Event()

    async def origin(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await reader.read()
        gone.set()

    async with stage(tmp_path, answer_all, plain_handler=origin) as s:
        _, writer = await s.open()
        writer.write(b"GET http://files.example.com/ HTTP/1.1\r\n\r\n")
        await until(lambda: s.front._pairs)
        writer.close()
        await asyncio.wait_for(gone.wait(), 5)


async def test_an_early_answer_reaches_a_client_that_is_still_sending(tmp_path):
    async def origin(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await reader.read()

    async with stage(tmp_path, answer_all, plain_handler=origin) as s:
        reader, writer = await s.open()
        writer.write(b"POST http://files.example.com/ HTTP/1.1\r\nContent-Length: 9000000\r\n\r\n" + bytes(100_000))
        assert (await reader.read()).endswith(b"big")
        writer.close()


async def test_a_plain_websocket_becomes_opaque_with_half_close(tmp_path):
    async def origin(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")
        writer.write(b"got " + await reader.read())

    async with stage(tmp_path, answer_all, plain_handler=origin) as s:
        reader, writer = await s.open()
        writer.write(b"GET http://files.example.com/ HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nearly")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b" late")
        writer.write_eof()
        assert await reader.read() == b"got early late"
        writer.close()


async def test_a_body_that_cannot_be_followed_goes_on(tmp_path):
    arrived = bytearray()

    async def origin(reader, writer):
        while data := await reader.read(1000):
            arrived.extend(data)
            if b"end" in arrived:
                writer.write(b"anything")
                return

    async with stage(tmp_path, answer_all, plain_handler=origin) as s:
        reader, writer = await s.open()
        writer.write(
            b"POST http://files.example.com/ HTTP/1.1\r\nHost: files.example.com\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        writer.write(b"zz\r\nend")
        assert await reader.read() == b"anything"
        assert arrived.endswith(b"\r\n\r\nzz\r\nend")
        writer.close()


async def test_an_exchange_on_which_nothing_passes_is_closed(tmp_path):
    async def origin(reader, writer):
        with contextlib.suppress(OSError):
            await reader.read()

    async with stage(tmp_path, answer_all, plain_handler=origin, settings=FrontSettings(tunnel_idle_timeout_seconds=0.1)) as s:
        reader, writer = await s.open()
        writer.write(b"GET http://files.example.com/ HTTP/1.1\r\n\r\n")
        assert await reader.read() == b""
        assert (await s.memory.until(TunnelClosed))[0].reason == "idle"
        writer.close()
