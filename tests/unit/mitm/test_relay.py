"""Decrypted connections on real sockets with real TLS: bytes, the tap's view, and every way in which a connection ends."""

import asyncio
import contextlib
import socket
import ssl
from random import Random

import pytest

from aiproxyd.mitm.deadlines import Deadlines
from aiproxyd.mitm.decrypted import AbortedBy
from aiproxyd.mitm.front import FrontSettings
from aiproxyd.mitm.relay import MAX_PIPELINED
from aiproxyd.mitm.relay_settings import RelaySettings
from aiproxyd.model.observation import ClientTlsFailed, ConnectDecided, ConnectionSecured, UnknownEventsSeen, UpstreamTlsFailed
from tests.unit.mitm.bare import Bare, hear, say
from tests.unit.mitm.stage import PROVIDER_HOST, Memory, SeeingTap, answer_all, read_response, reset, stage, until
from tests.unit.wire import http1_conversations

LOOPS = "both"

GET = b"GET /v1/models HTTP/1.1\r\nHost: api.anthropic.com\r\n\r\n"


def limits(**values):
    return FrontSettings(relay=RelaySettings(**values))


# What passes, and what is seen


async def test_the_tap_sees_a_request_before_its_first_byte_leaves(tmp_path):
    arrived = []

    async def upstream(reader, writer):
        arrived.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await reader.read()

    async with stage(tmp_path, upstream) as s:
        order = []
        s.tap.on_open = lambda head: order.append((head.method, list(arrived)))
        reader, writer = await s.decrypt()
        # The head comes in two pieces; nothing of it may leave before it is whole and seen.
        writer.write(GET[:20])
        await until(lambda: any(getattr(p, "_requests", None) and p._requests.has_partial_head for p in s.front._pairs))
        assert not arrived
        writer.write(GET[20:])
        assert await read_response(reader) == b"HTTP/1.1 204 No Content\r\n\r\n"
        assert order == [("GET", [])]
        assert arrived == [GET]
        writer.close()


async def test_the_time_of_tls_and_of_a_held_first_byte_is_told_once(tmp_path):
    async def upstream(reader, writer):
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
            await writer.drain()
            writer.write(b"body")
        await reader.read()

    async with stage(tmp_path, upstream) as s:
        reader, writer = await s.decrypt()
        for _ in range(2):
            writer.write(GET)
            await read_response(reader)
        (secured,) = s.memory.of(ConnectionSecured)
        assert secured.provider == "anthropic"
        assert 0 < secured.seconds < 60
        # Of the request and of the answer.
        assert [len(request.held_seconds) for request in s.tap.requests] == [2, 2]
        assert all(0 < request.held_seconds[0] < 60 for request in s.tap.requests)
        writer.close()


async def test_an_event_arrives_before_the_next_is_sent(tmp_path):
    received = asyncio.Event()

    async def upstream(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\ndata: 1\r\n")
        await received.wait()
        writer.write(b"7\r\ndata: 2\r\n0\r\n\r\n")
        await reader.read()

    async with stage(tmp_path, upstream) as s:
        reader, writer = await s.decrypt()
        writer.write(GET)
        await reader.readuntil(b"data: 1\r\n")
        (seen,) = s.tap.requests
        assert seen.response == b"data: 1"
        received.set()
        await reader.readuntil(b"0\r\n\r\n")
        assert seen.response == b"data: 1data: 2"
        assert seen.calls[-1] == "response_end"
        writer.close()


async def test_bytes_arrive_as_they_were_sent_but_for_proxy_fields(tmp_path):
    arrived = bytearray()
    answer = (
        b"HTTP/1.1 200\r\nx-oDD:  1 \r\nTRANSFER-encoding:Chunked\r\nProxy-X: stays\r\n\r\n03;e=1\r\nabc\r\n0\r\nT: 1\r\n\r\n"
    )

    async def upstream(reader, writer):
        while b"\r\n0\r\nX: y\r\n\r\n" not in arrived:
            arrived.extend(await reader.read(1000))
        writer.write(answer)
        await reader.read()

    async with stage(tmp_path, upstream) as s:
        reader, writer = await s.decrypt()
        sent = b"POST /v1/x HTTP/1.1\r\nhOST: a\r\n%sTransfer-Encoding: chunked\r\n\r\n00004;x\r\nbody\r\n0\r\nX: y\r\n\r\n"
        writer.write(sent % b"Proxy-Authorization: Basic c2VjcmV0\r\nProxy-Connection: keep-alive\r\n")
        assert await reader.readexactly(len(answer)) == answer
        assert arrived == sent % b""
        (seen,) = s.tap.requests
        assert (seen.request, seen.response) == (b"body", b"abc")
        writer.close()


async def test_fields_meant_for_the_proxy_are_seen_by_the_tap_and_by_nobody_behind(tmp_path):
    arrived = []

    async def upstream(reader, writer):
        arrived.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await reader.read()

    async with stage(tmp_path, upstream, settings=limits(own_headers=frozenset({"x-team"}))) as s:
        reader, writer = await s.decrypt()
        writer.write(b"GET / HTTP/1.1\r\nX-Team: search\r\nhOST: a\r\nX-Teams:  1\r\nx-team: ads\r\n\r\n")
        await read_response(reader)
        assert arrived == [b"GET / HTTP/1.1\r\nhOST: a\r\nX-Teams:  1\r\n\r\n"]
        assert s.tap.requests[0].head.headers.all("x-team") == ["search", "ads"]
        writer.close()


async def test_large_bodies_pass_whole_both_ways(tmp_path):
    body = bytes(range(256)) * 20_000

    async with stage(tmp_path, answer_all) as s:
        reader, writer = await s.decrypt()
        writer.write(b"POST /v1/x HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body))
        writer.write(body)
        assert (await read_response(reader)).endswith(b"\r\n\r\n/v1/x|" + body)
        (seen,) = s.tap.requests
        assert seen.request == body
        assert seen.response == b"/v1/x|" + body
        writer.close()


async def test_a_client_that_does_not_read_holds_the_provider_back(tmp_path):
    sent = 0

    async def upstream(reader, writer):
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (24 << 20))
        while sent < 24 << 20:
            writer.write(bytes(1 << 16))
            await writer.drain()
            sent += 1 << 16
        await reader.read()

    async with stage(tmp_path, upstream) as s:
        reader, writer = await s.decrypt()
        writer.transport.pause_reading()
        writer.write(GET)
        (relay,) = await until(lambda: [p for p in s.front._pairs if p.client.has_unsent])
        assert relay.upstream.is_paused
        assert sum(len(part) for part in relay.client._unsent) <= 1 << 17
        stalled_at = sent
        assert stalled_at < 24 << 20
        writer.transport.resume_reading()
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        received = 0
        while received < 24 << 20:
            received += len(await reader.read(1 << 20))
        writer.close()


async def test_pipelined_requests_are_answered_and_seen_in_order(tmp_path):
    count = MAX_PIPELINED * 3

    async with stage(tmp_path, answer_all) as s:
        reader, writer = await s.decrypt()
        writer.write(b"".join(b"POST /%d HTTP/1.1\r\nContent-Length: 2\r\n\r\nab" % number for number in range(count)))
        for number in range(count):
            assert (await read_response(reader)).endswith(b"\r\n\r\n/%d|ab" % number)
        assert [(seen.head.path, seen.response) for seen in s.tap.requests] == [
            (f"/{number}", b"/%d|ab" % number) for number in range(count)
        ]
        writer.close()


async def test_an_early_answer_is_seen_before_the_requests_end(tmp_path):
    answered = asyncio.Event()

    async def upstream(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 429 Too Many\r\nContent-Length: 4\r\n\r\nslow")
        answered.set()
        await reader.read()

    async with stage(tmp_path, upstream) as s:
        reader, writer = await s.decrypt()
        writer.write(b"POST /v1/x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 8\r\n\r\nhalf")
        assert (await reader.readuntil(b"slow")).startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 429")
        (seen,) = s.tap.requests
        assert seen.calls == ["request_data", "response_head", "response_data", "response_end"]
        assert [head.status_code for head in seen.response_heads] == [429]
        writer.write(b"rest")
        await until(lambda: seen.calls[-1] == "request_end")
        writer.close()


async def test_an_upgrade_becomes_opaque_both_ways(tmp_path):
    async def upstream(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x02hi")
        while data := await reader.read(1000):
            writer.write(data[::-1])

    async with stage(tmp_path, upstream) as s:
        reader, writer = await s.decrypt()
        writer.write(b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        assert (await reader.readuntil(b"\x81\x02hi")).startswith(b"HTTP/1.1 101")
        (seen,) = s.tap.requests
        assert seen.calls == ["request_end", "response_head", "response_end"]
        writer.write(b"GET /not-http HTTP/1.1\r\n\r\n")
        assert await reader.readexactly(26) == b"GET /not-http HTTP/1.1\r\n\r\n"[::-1]
        assert len(s.tap.requests) == 1
        assert not s.memory.of(UnknownEventsSeen)
        writer.close()


async def test_what_cannot_be_followed_goes_on_and_is_counted(tmp_path):
    attack = (
        b"POST /v1/x HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\n\r\n"
    )
    arrived = bytearray()

    async def upstream(reader, writer):
        while len(arrived) < len(attack):
            arrived.extend(await reader.read(1000))
        writer.write(b"anything")
        await reader.read()

    async with stage(tmp_path, upstream) as s:
        reader, writer = await s.decrypt()
        writer.write(attack)
        assert await reader.readexactly(8) == b"anything"
        assert arrived == attack
        (unknown,) = s.memory.of(UnknownEventsSeen)
        assert (unknown.provider, unknown.api, unknown.counts) == ("anthropic", "http1", {"both_lengths": 1})
        (seen,) = s.tap.requests
        assert seen.calls == ["lose_sight"]
        writer.close()


async def test_a_response_that_cannot_be_followed_goes_on_and_is_counted(tmp_path):
    answer = b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok"

    async def upstream(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await reader.read()

    async with stage(tmp_path, upstream) as s:
        reader, writer = await s.decrypt()
        writer.write(GET)
        assert await reader.readexactly(len(answer)) == answer
        assert s.memory.of(UnknownEventsSeen)[0].counts == {"line_end": 1}
        assert s.tap.requests[0].calls == ["request_end", "lose_sight"]
        writer.close()


# TLS


async def test_a_client_hello_in_the_same_segment_as_the_connect_is_understood(tmp_path):
    async with stage(tmp_path, answer_all) as s:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = s.client_context.wrap_bio(incoming, outgoing, server_hostname=PROVIDER_HOST)
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        reader, writer = await s.open()
        writer.write(b"CONNECT api.anthropic.com:443 HTTP/1.1\r\n\r\n" + outgoing.read())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        while True:
            incoming.write(await reader.read(65536))
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
                break
        tls.write(GET)
        writer.write(outgoing.read())
        text = b""
        while not text.endswith(b"/v1/models|"):
            incoming.write(await reader.read(65536))
            with contextlib.suppress(ssl.SSLWantReadError):
                text += tls.read(65536)
        writer.close()


async def test_the_leaf_is_for_the_connects_host_whatever_the_sni(tmp_path):
    async with stage(tmp_path, answer_all) as s:
        _, writer = await s.connect(f"{PROVIDER_HOST}:443")
        s.client_context.check_hostname = False
        await writer.start_tls(s.client_context, server_hostname="other.example.com")
        certificate = writer.get_extra_info("ssl_object").getpeercert()
        assert certificate["subjectAltName"] == (("DNS", PROVIDER_HOST),)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        writer.close()


async def test_sessions_are_resumed_on_both_sides(tmp_path):
    resumed = []

    async def upstream(reader, writer):
        resumed.append(writer.get_extra_info("ssl_object").session_reused)
        await answer_all(reader, writer)

    async with stage(tmp_path, upstream) as s:
        loop = asyncio.get_running_loop()
        session = None
        for number in range(2):
            raw = socket.create_connection(("127.0.0.1", s.port))

            def talk(raw=raw, session=session):
                raw.sendall(b"CONNECT api.anthropic.com:443 HTTP/1.1\r\n\r\n")
                raw.recv(1000)
                with s.client_context.wrap_socket(raw, server_hostname=PROVIDER_HOST, session=session) as tls:
                    tls.sendall(GET)
                    tls.recv(1000)
                    return tls.session, tls.session_reused

            session, reused = await loop.run_in_executor(None, talk)
            assert reused is bool(number)
        assert resumed == [False, True]


@pytest.mark.parametrize(
    ("options", "reason", "sentence"),
    [
        ({"trusted": False}, "untrusted", b"not trusted"),
        ({"upstream_host": "other.example.com"}, "hostname", b"another name"),
    ],
)
async def test_a_provider_that_is_not_to_be_trusted_is_a_502_for_the_first_request(tmp_path, options, reason, sentence):
    async with stage(tmp_path, answer_all, **options) as s:
        reader, writer = await s.decrypt()
        writer.write(b"POST /v1/messages HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
        assert sentence in answer
        (failed,) = s.memory.of(UpstreamTlsFailed)
        assert (failed.host, failed.provider, failed.reason) == (PROVIDER_HOST, "anthropic", reason)
        (seen,) = s.tap.requests
        assert seen.aborted is AbortedBy.UNREACHABLE
        writer.close()


async def test_a_provider_that_says_nothing_in_tls_is_a_502_in_time(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        hosts = {PROVIDER_HOST: f"127.0.0.1:{mute.getsockname()[1]}"}
        async with stage(tmp_path, answer_all, hosts=hosts, settings=limits(upstream_tls_timeout_seconds=0.1)) as s:
            reader, writer = await s.decrypt()
            writer.write(GET)
            assert (await reader.read()).startswith(b"HTTP/1.1 502")
            assert s.memory.of(UpstreamTlsFailed)[0].reason == "timeout"
            writer.close()


async def test_a_provider_that_hangs_up_in_tls_is_a_502(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as rude:
        asyncio.get_running_loop().add_reader(rude.fileno(), lambda: rude.accept()[0].close())
        async with stage(tmp_path, answer_all, hosts={PROVIDER_HOST: f"127.0.0.1:{rude.getsockname()[1]}"}) as s:
            reader, writer = await s.decrypt()
            await s.memory.until(UpstreamTlsFailed)
            writer.write(GET)
            assert (await reader.read()).startswith(b"HTTP/1.1 502")
            assert s.memory.of(UpstreamTlsFailed)[0].reason == "closed"
            writer.close()
        asyncio.get_running_loop().remove_reader(rude.fileno())


async def test_a_client_that_does_not_trust_our_ca_is_told_of(tmp_path):
    def refuse(port):
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.sendall(b"CONNECT api.anthropic.com:443 HTTP/1.1\r\n\r\n")
            raw.recv(1000)
            with pytest.raises(ssl.SSLCertVerificationError):
                ssl.create_default_context().wrap_socket(raw, server_hostname=PROVIDER_HOST)

    async with stage(tmp_path, answer_all) as s:
        await asyncio.get_running_loop().run_in_executor(None, refuse, s.port)
        (failed,) = await s.memory.until(ClientTlsFailed)
        assert (failed.host, failed.reason) == (PROVIDER_HOST, "unknown_ca")
        assert not s.tap.requests


@pytest.mark.parametrize(("first", "reason"), [(b"", "closed"), (b"GET / HTTP/1.1\r\n\r\n" * 10, "protocol")])
async def test_a_client_that_does_not_speak_tls_is_told_of(tmp_path, first, reason):
    async with stage(tmp_path, answer_all) as s:
        _, writer = await s.connect(f"{PROVIDER_HOST}:443")
        writer.write(first)
        if not first:
            writer.close()
        (failed,) = await s.memory.until(ClientTlsFailed)
        assert failed.reason == reason
        writer.close()


async def test_a_client_that_is_slow_in_tls_is_told_of(tmp_path):
    async with stage(tmp_path, answer_all, settings=limits(client_tls_timeout_seconds=0.1)) as s:
        reader, writer = await s.connect(f"{PROVIDER_HOST}:443")
        assert await reader.read() == b""
        (failed,) = s.memory.of(ClientTlsFailed)
        assert failed.reason == "timeout"
        writer.close()


# Ends


async def test_a_client_that_leaves_in_a_stream_ends_the_providers_connection_at_once(tmp_path):
    gone = asyncio.Event()

    async def upstream(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await reader.read()
        gone.set()

    async with stage(tmp_path, upstream) as s:
        reader, writer = await s.decrypt()
        writer.write(GET)
        await reader.readuntil(b"hello\r\n")
        writer.close()
        await asyncio.wait_for(gone.wait(), 5)
        (seen,) = s.tap.requests
        assert seen.aborted is AbortedBy.CLIENT
        assert seen.calls == ["request_end", "response_head", "response_data", "abort"]
        await until(lambda: not s.front._pairs)


async def test_a_client_that_is_reset_in_a_stream_ends_the_providers_connection_at_once(tmp_path):
    gone = asyncio.Event()

    async def upstream(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        with contextlib.suppress(OSError):
            await reader.read()
        gone.set()

    async with stage(tmp_path, upstream) as s:
        reader, writer = await s.decrypt()
        writer.write(GET)
        await reader.readuntil(b"hello\r\n")
        reset(writer)
        await asyncio.wait_for(gone.wait(), 5)
        assert s.tap.requests[0].aborted is AbortedBy.CLIENT


async def test_a_client_that_leaves_in_its_request_ends_it(tmp_path):
    async with stage(tmp_path, answer_all) as s:
        _, writer = await s.decrypt()
        writer.write(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf")
        await until(lambda: s.tap.requests)
        writer.close()
        await until(lambda: s.tap.requests[0].is_over)
        assert s.tap.requests[0].aborted is AbortedBy.CLIENT
        assert s.tap.requests[0].request == b"half"


async def test_a_client_that_leaves_between_requests_is_nothing_to_tell(tmp_path):
    async with stage(tmp_path, answer_all) as s:
        reader, writer = await s.decrypt()
        writer.write(GET)
        await read_response(reader)
        writer.close()
        await until(lambda: not s.front._pairs)
        assert s.tap.requests[0].aborted is None


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_an_answer_that_is_cut_is_cut_for_the_client_too(tmp_path, how):
    async def upstream(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await writer.drain()
        if how == "reset":
            reset(writer)

    async with stage(tmp_path, upstream) as s:
        reader, writer = await s.decrypt()
        writer.write(GET)
        with contextlib.suppress(OSError):
            await reader.readuntil(b"half")
            assert await reader.read() == b""
        await until(lambda: s.tap.requests[0].is_over)
        assert s.tap.requests[0].aborted is AbortedBy.UPSTREAM
        writer.close()


async def test_what_came_before_a_reset_is_delivered(tmp_path):
    # Under uvloop the loop says once that a socket is broken; the bytes before it must not be lost with it.
    size = 300_000

    async def upstream(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (size * 2) + bytes(size))
        await writer.drain()
        await until(lambda: writer.transport.get_write_buffer_size() == 0)
        reset(writer)

    async with stage(tmp_path, upstream) as s:
        reader, writer = await s.decrypt()
        writer.write(GET)
        received = b""
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                received += data
        await until(lambda: s.tap.requests[0].is_over)
        assert s.tap.requests[0].aborted is AbortedBy.UPSTREAM
        assert received.endswith(s.tap.requests[0].response)
        writer.close()


async def test_an_answer_that_lasts_until_the_end_of_the_connection_is_whole_there(tmp_path):
    async def upstream(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")

    async with stage(tmp_path, upstream) as s:
        reader, writer = await s.decrypt()
        writer.write(GET)
        assert await reader.read() == b"HTTP/1.1 200 OK\r\n\r\nuntil the end"
        (seen,) = s.tap.requests
        assert (seen.response, seen.calls[-1]) == (b"until the end", "response_end")
        writer.close()


async def test_a_provider_that_closes_between_requests_closes_the_client(tmp_path):
    async def upstream(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with stage(tmp_path, upstream) as s:
        reader, writer = await s.decrypt()
        writer.write(GET)
        assert await reader.read() == b"HTTP/1.1 204 No Content\r\n\r\n"
        assert s.tap.requests[0].aborted is None
        writer.close()


async def test_an_early_answer_reaches_a_client_that_is_still_sending(tmp_path):
    async def upstream(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
        await writer.drain()

    async with stage(tmp_path, upstream) as s:
        reader, writer = await s.decrypt()
        writer.write(b"POST / HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n" + bytes(200_000))
        assert (await reader.readuntil(b"big")).startswith(b"HTTP/1.1 413")
        await until(lambda: s.tap.requests[0].is_over)
        assert "response_end" in s.tap.requests[0].calls
        writer.close()


# Limits


async def test_a_head_that_is_too_large_is_refused(tmp_path):
    async with stage(tmp_path, answer_all, settings=limits(max_head_bytes=1000)) as s:
        reader, writer = await s.decrypt()
        writer.write(b"GET / HTTP/1.1\r\nX: " + b"x" * 2000)
        assert (await reader.read()).startswith(b"HTTP/1.1 431 ")
        assert not s.tap.requests
        writer.close()


async def test_a_head_that_takes_too_long_is_refused(tmp_path):
    async with stage(tmp_path, answer_all, settings=limits(head_timeout_seconds=0.1)) as s:
        reader, writer = await s.decrypt()
        writer.write(GET)
        await read_response(reader)
        writer.write(b"GET / HTTP/1.1\r\nX: ")
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_a_connection_on_which_nothing_passes_is_closed(tmp_path):
    async def upstream(reader, writer):
        await reader.read()

    async with stage(tmp_path, upstream, settings=limits(idle_timeout_seconds=0.1)) as s:
        reader, writer = await s.decrypt()
        writer.write(GET)
        assert await reader.read() == b""
        assert s.tap.requests[0].aborted is AbortedBy.PROXY
        writer.close()


# Draining


async def test_a_drain_lets_an_answer_end_and_then_closes(tmp_path):
    go_on = asyncio.Event()

    async def upstream(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha")
        await go_on.wait()
        writer.write(b"lf")
        await reader.read()

    async with stage(tmp_path, upstream) as s:
        idle_reader, idle_writer = await s.decrypt()
        await until(lambda: all(p._is_upstream_secure for p in s.front._pairs))
        reader, writer = await s.decrypt()
        writer.write(GET)
        await reader.readuntil(b"ha")
        s.front.drain()
        assert await idle_reader.read() == b""
        assert not await s.front.wait(0.01)
        go_on.set()
        assert await reader.read() == b"lf"
        assert await s.front.wait(5)
        assert s.tap.requests[0].aborted is None
        idle_writer.close()
        writer.close()


async def test_what_is_left_after_a_drain_is_ended_by_the_proxy(tmp_path):
    async def upstream(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha")
        await reader.read()

    async with stage(tmp_path, upstream) as s:
        reader, writer = await s.decrypt()
        writer.write(GET)
        await reader.readuntil(b"ha")
        await s.front.close()
        assert s.tap.requests[0].aborted is AbortedBy.PROXY
        assert len(s.front) == 0
        writer.close()


async def test_a_fault_of_ours_closes_the_connection_and_hangs_nobody(tmp_path, caplog):
    async with stage(tmp_path, answer_all) as s:

        def fail(head):
            raise ZeroDivisionError

        s.tap.on_open = fail
        reader, writer = await s.decrypt()
        writer.write(GET)
        assert await reader.read() == b""
        assert "a connection is closed because its relay failed" in caplog.text
        assert [d.status_code for d in s.memory.of(ConnectDecided)] == [200]
        writer.close()


# Fidelity


@pytest.mark.parametrize("seed", range(0, 2000, 100))
async def test_conversations_arrive_bit_for_bit_and_the_tap_sees_what_was_meant(seed, monkeypatch):
    # 2,000 conversations on each loop. In every second one the tap lets chunks of answers be gathered.
    monkeypatch.setattr("aiproxyd.mitm.gathering.MAX_WAIT_SECONDS", 0.01)
    loop = asyncio.get_running_loop()
    deadlines = Deadlines(tick_seconds=0.01)
    for number in range(seed, seed + 100):
        random = Random(number)
        conversation = http1_conversations.conversation(random)
        memory, tap = Memory(), SeeingTap(is_midstream=bool(number % 2))
        bare = Bare(tap, memory, deadlines)

        async def serve(conversation=conversation, bare=bare, random=random):
            for request, response in zip(conversation.requests, conversation.responses, strict=True):
                assert await hear(bare.upstream, len(request.wire)) == request.wire
                await say(bare.upstream, coarse(random, response.wire))
                if response.ends_by_close:
                    bare.upstream.shutdown(socket.SHUT_WR)
            if conversation.responses[-1].is_upgrade:
                await say(bare.upstream, coarse(random, conversation.after_upgrade[1]))
                assert await hear(bare.upstream, len(conversation.after_upgrade[0])) == conversation.after_upgrade[0]

        serving = loop.create_task(serve())
        wire = b"".join(request.wire for request in conversation.requests)
        speaking = loop.create_task(say(bare.client, coarse(random, wire)))
        wire = b"".join(response.wire for response in conversation.responses)
        assert await hear(bare.client, len(wire)) == wire, number
        await speaking
        if conversation.responses[-1].is_upgrade:
            await say(bare.client, [conversation.after_upgrade[0]])
            assert await hear(bare.client, len(conversation.after_upgrade[1])) == conversation.after_upgrade[1]
        await serving
        if conversation.responses[-1].ends_by_close:
            assert await loop.sock_recv(bare.client, 1) == b""
        assert not memory.told, number
        await until(lambda tap=tap: all(seen.is_over for seen in tap.requests))
        assert [(seen.head.method, seen.request) for seen in tap.requests] == [
            (request.method, request.body) for request in conversation.requests
        ]
        assert [(str(seen.response_heads[0].status_code), seen.response) for seen in tap.requests] == [
            (response.start, response.body) for response in conversation.responses
        ]
        assert all(seen.is_over and seen.aborted is None for seen in tap.requests)
        bare.close()
    deadlines.close()


def coarse(random, data):
    """Return `data` in a few pieces: each costs a turn of the loop."""
    pieces = []
    while data:
        size = random.choice((1, 2, 30, 500, len(data)))
        pieces.append(data[:size])
        data = data[size:]
        if len(pieces) > 10:
            return [*pieces, data] if data else pieces
    return pieces


@pytest.mark.parametrize(("name", "attack"), http1_conversations.ATTACKS, ids=[name for name, _ in http1_conversations.ATTACKS])
async def test_an_attack_arrives_bit_for_bit_and_is_counted(name, attack):
    deadlines = Deadlines()
    memory, tap = Memory(), SeeingTap()
    bare = Bare(tap, memory, deadlines)
    before = b"POST /before HTTP/1.1\r\nContent-Length: 2\r\n\r\nok"
    after = b"GET /after HTTP/1.1\r\n\r\n"
    for wire in (before, attack, after):
        await say(bare.client, [wire])
        assert await hear(bare.upstream, len(wire)) == wire
    answers = b"HTTP/1.1 204 \r\n\r\nHTTP/1.1 204 \r\n\r\n"
    await say(bare.upstream, [answers])
    assert await hear(bare.client, len(answers)) == answers
    assert len(memory.of(UnknownEventsSeen)) == 1
    assert "/after" not in [seen.head.path for seen in tap.requests]
    assert all(seen.is_over for seen in tap.requests)
    bare.close()
    deadlines.close()
