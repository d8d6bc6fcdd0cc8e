import asyncio
import contextlib
import gc
import logging
import socket
import ssl

import certifi
import msgspec
import pytest
import uvloop
from cryptography import x509
from mitmproxy import http

from aiproxyd.mitm import hooks, safe_handler
from aiproxyd.mitm.backpressure import MAX_CLIENT_HANDSHAKE_BYTES
from aiproxyd.mitm.engine import EngineSettings
from aiproxyd.mitm.safe_handler import HandlerSettings
from aiproxyd.model.observation import (
    ClientTlsFailed,
    InterceptionDescribed,
    InterceptionEnded,
    InterceptionStarted,
    UpstreamTlsFailed,
)
from tests.unit.mitm.conversation import (
    BODY,
    HEAD,
    REPLY,
    REQUEST,
    RESPONSE,
    RESPONSE_HEAD,
    STREAM_HEAD,
    answer,
    chunk,
    read_request,
)
from tests.unit.mitm.rig import HOST, PATIENCE_SECONDS, own_ca, rig


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="aiproxyd.mitm")


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
    assert seen == [(HEAD, BODY)]
    assert running.journal.all(InterceptionStarted)[0].principal_name == "ada"
    assert running.journal.all(InterceptionDescribed)[0].prompt == "hi"
    assert (ended.outcome, ended.usage.output_tokens) == ("completed", 5)


def test_it_serves_under_uvloop():
    async def story():
        async with rig(answer) as running:
            client = await running.client()
            await client.send(REQUEST)
            assert await client.exactly(len(RESPONSE)) == RESPONSE
            await client.close()
            await running.all_served()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())


async def test_requests_of_one_connection_share_one_upstream_connection():
    async with rig(answer) as running:
        client = await running.client()
        for _ in range(3):
            await client.send(REQUEST)
            assert await client.exactly(len(RESPONSE)) == RESPONSE
        assert running.dialled == 1
        assert len(running.journal.all(InterceptionEnded)) == 3


async def test_an_upstream_that_closed_meanwhile_is_dialled_again():
    async def once(reader, writer):
        await read_request(reader)
        writer.write(RESPONSE)
        writer.close()
        await writer.wait_closed()

    async with rig(once) as running:
        client = await running.client()
        for expected in (1, 2):
            await client.send(REQUEST)
            assert await client.exactly(len(RESPONSE)) == RESPONSE
            assert running.dialled == expected
            # Whether the close is noticed before or after the next request is a race that neither side can win.
            while running.engine._handlers["connection-0"].transports.keys() != {
                running.engine._handlers["connection-0"].client
            }:
                await asyncio.sleep(0)


async def test_a_chunk_reaches_the_client_before_the_provider_sends_the_next():
    go_on = asyncio.Event()

    async def script(reader, writer):
        await read_request(reader)
        writer.write(STREAM_HEAD + chunk(b"data: 1\n\n"))
        await go_on.wait()
        writer.write(chunk(b"data: 2\n\n") + b"0\r\n\r\n")
        await reader.read()

    async with rig(script) as running:
        client = await running.client()
        await client.send(REQUEST)
        assert await client.head() == STREAM_HEAD
        assert await client.until(b"data: 1\n\n\r\n") == chunk(b"data: 1\n\n")
        go_on.set()
        assert await client.until(b"0\r\n\r\n") == chunk(b"data: 2\n\n") + b"0\r\n\r\n"


async def test_a_request_body_reaches_the_provider_as_it_comes():
    first = asyncio.Event()

    async def script(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(3)
        first.set()
        await reader.readexactly(len(BODY) - 3)
        writer.write(RESPONSE)
        await reader.read()

    async with rig(script) as running:
        client = await running.client()
        await client.send(HEAD + BODY[:3])
        await asyncio.wait_for(first.wait(), PATIENCE_SECONDS)
        await client.send(BODY[3:])
        assert await client.exactly(len(RESPONSE)) == RESPONSE


# What addons may break


class Breaks:
    """An addon whose one hook raises."""

    def __init__(self, hook: str, *, later: bool = False) -> None:
        async def raise_later(*_: object) -> None:
            await asyncio.sleep(0)
            raise RuntimeError("secret detail")

        def raise_now(*_: object) -> None:
            raise RuntimeError("secret detail")

        setattr(self, hook, raise_later if later else raise_now)


@pytest.mark.parametrize("later", [False, True])
async def test_a_request_hook_that_raises_refuses_the_request(later):
    async with rig(answer, addons=(Breaks("requestheaders", later=later),)) as running:
        client = await running.client()
        await client.send(REQUEST)
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 503 ")
        await client.close()
        ended = await running.journal.wait_for(InterceptionEnded)
        assert (ended.outcome, ended.status_code) == ("refused", 503)


async def test_a_refused_request_is_answered_whatever_the_size_of_its_body_and_never_reaches_the_provider():
    reached = []

    async def script(reader, writer):
        reached.append(await reader.read(1))

    async with rig(script, addons=(Breaks("requestheaders"),)) as running:
        client = await running.client()
        await client.send(HEAD.replace(b"%d" % len(BODY), b"5000000"))
        await client.send(b"x" * 5_000_000)
        assert (await client.head()).startswith(b"HTTP/1.1 503 ")
        await client.close()
        await running.all_served()
    assert reached in ([], [b""])


@pytest.mark.parametrize(
    "hook",
    ["client_connected", "server_connect", "server_connected", "tls_clienthello", "tls_start_client", "tls_start_server"],
)
async def test_a_hook_that_may_refuse_a_connection_and_raises_closes_it(hook):
    async with rig(answer, addons=(Breaks(hook),)) as running:
        with contextlib.suppress(OSError, ssl.SSLError):
            client = await running.client()
            await client.send(REQUEST)
            assert b"200 OK" not in await client.rest()
        await running.all_served()
        assert not running.journal.all(InterceptionStarted)


@pytest.mark.parametrize(
    "hook", ["responseheaders", "response", "tls_established_client", "tls_established_server", "client_disconnected"]
)
async def test_a_hook_that_only_observes_and_raises_harms_nobody(hook):
    async with rig(answer, addons=(Breaks(hook),)) as running:
        client = await running.client()
        await client.send(REQUEST)
        assert await client.exactly(len(RESPONSE)) == RESPONSE
        await client.close()
        await running.all_served()
        assert running.journal.all(InterceptionEnded)[0].outcome == "completed"


async def test_a_stream_callback_that_raises_closes_the_connection_and_ends_the_record():
    class BreaksTheStream:
        def responseheaders(self, flow: http.HTTPFlow) -> None:
            def raise_now(_: bytes) -> bytes:
                raise RuntimeError("secret detail")

            flow.response.stream = raise_now

    async with rig(answer, addons=(BreaksTheStream(),)) as running:
        client = await running.client()
        await client.send(REQUEST)
        assert await client.rest() == RESPONSE_HEAD
        await running.all_served()
        assert running.journal.all(InterceptionEnded)[0].outcome == "interrupted"


async def test_a_hook_that_never_answers_closes_the_connection(monkeypatch):
    monkeypatch.setattr(hooks, "HOOK_TIMEOUT_SECONDS", 0.05)

    class Hangs:
        async def request(self, flow: http.HTTPFlow) -> None:
            await asyncio.Event().wait()

    async with rig(answer, addons=(Hangs(),)) as running:
        client = await running.client()
        await client.send(REQUEST)
        assert await client.rest() == b""
        await running.all_served()
        assert running.journal.all(InterceptionEnded)[0].outcome == "interrupted"


async def test_a_hook_may_take_its_time_and_answer_itself():
    class Answers:
        async def requestheaders(self, flow: http.HTTPFlow) -> None:
            await asyncio.sleep(0)
            flow.response = http.Response.make(402, b"pay first")

    async with rig(answer, addons=(Answers(),)) as running:
        client = await running.client()
        await client.send(REQUEST)
        assert (await client.head()).startswith(b"HTTP/1.1 402 ")
        assert await client.exactly(9) == b"pay first"
        ended = await running.journal.wait_for(InterceptionEnded)
        assert (ended.outcome, ended.status_code) == ("refused", 402)


async def test_a_hook_cannot_send_a_request_elsewhere():
    class Redirects:
        def requestheaders(self, flow: http.HTTPFlow) -> None:
            flow.request.host = "evil.example"

    async with rig(answer, addons=(Redirects(),)) as running:
        client = await running.client()
        await client.send(REQUEST)
        assert (await client.head()).startswith(b"HTTP/1.1 502 ")
        assert running.dialled == 1
        ended = await running.journal.wait_for(InterceptionEnded)
        assert ended.outcome == "upstream_error"


# Endings


async def test_a_client_that_leaves_ends_the_upstream_connection_at_once():
    left = asyncio.Event()

    async def script(reader, writer):
        await read_request(reader)
        writer.write(STREAM_HEAD + chunk(b"data: 1\n\n"))
        await reader.read()
        left.set()

    async with rig(script) as running:
        client = await running.client()
        await client.send(REQUEST)
        await client.until(b"data: 1\n\n")
        await client.close()
        await asyncio.wait_for(left.wait(), PATIENCE_SECONDS)
        ended = await running.journal.wait_for(InterceptionEnded)
        assert ended.outcome == "client_aborted"


@pytest.mark.parametrize("reset", [False, True])
async def test_a_provider_that_leaves_in_the_middle_is_seen_as_such(reset):
    async def script(reader, writer):
        await read_request(reader)
        writer.write(STREAM_HEAD + chunk(b"data: 1\n\n"))
        await writer.drain()
        if reset:
            writer.transport.abort()

    async with rig(script) as running:
        client = await running.client()
        await client.send(REQUEST)
        assert await client.rest() in (STREAM_HEAD + chunk(b"data: 1\n\n"), STREAM_HEAD, b"")
        await running.all_served()
        assert running.journal.all(InterceptionEnded)[0].outcome in ("upstream_aborted", "upstream_error")


async def test_a_drain_closes_idle_connections_at_once_and_busy_ones_after_their_response():
    go_on = asyncio.Event()

    async def script(reader, writer):
        await read_request(reader)
        writer.write(STREAM_HEAD)
        await go_on.wait()
        writer.write(b"0\r\n\r\n")
        await reader.read()

    async with rig(script) as running:
        idle, busy = await running.client(), await running.client()
        await busy.send(REQUEST)
        await busy.head()
        running.engine.drain()
        assert await idle.rest() == b""
        await asyncio.wait_for(running.served[0], PATIENCE_SECONDS)
        assert running.engine.connections == 1
        go_on.set()
        assert await busy.rest() == b"0\r\n\r\n"
        await running.all_served()
        assert running.journal.all(InterceptionEnded)[0].outcome != "interrupted"


async def test_a_response_that_begins_during_a_drain_tells_that_its_connection_ends():
    asked = asyncio.Event()
    go_on = asyncio.Event()

    async def script(reader, writer):
        await read_request(reader)
        asked.set()
        await go_on.wait()
        writer.write(RESPONSE)
        await reader.read()

    async with rig(script) as running:
        client = await running.client()
        await client.send(REQUEST)
        await asyncio.wait_for(asked.wait(), PATIENCE_SECONDS)
        running.engine.drain()
        go_on.set()
        head, _, body = (await client.rest()).partition(b"\r\n\r\n")
        assert b"connection: close" in head.lower()
        assert body == REPLY


async def test_a_serve_that_is_cancelled_closes_both_sides_and_ends_the_record():
    gone = asyncio.Event()

    async def script(reader, writer):
        await read_request(reader)
        writer.write(STREAM_HEAD)
        await reader.read()
        gone.set()

    async with rig(script) as running:
        client = await running.client()
        await client.send(REQUEST)
        await client.head()
        running.served[0].cancel()
        assert await client.rest() == b""
        await asyncio.wait_for(gone.wait(), PATIENCE_SECONDS)
        with pytest.raises(asyncio.CancelledError):
            await running.served.pop(0)
        assert running.journal.all(InterceptionEnded)[0].outcome == "interrupted"
        assert running.engine.connections == 0


async def test_an_idle_connection_is_closed():
    async with rig(answer, settings=EngineSettings(idle_timeout_seconds=1)) as running:
        client = await running.client()
        assert await client.rest() == b""
        await running.all_served()


async def test_a_connection_that_arrives_after_the_drain_is_closed():
    async with rig(answer) as running:
        running.engine.drain()
        reader, writer = await running.raw_client()
        assert await reader.read() == b""
        writer.close()


# TLS


async def test_the_leaf_is_for_the_host_of_the_connect_and_its_key_is_not_the_cas():
    async with rig(answer) as running:
        context = ssl.create_default_context(cadata=own_ca().trust_pem.decode())
        context.check_hostname = False
        _, writer = await running.raw_client()
        await writer.start_tls(context, server_hostname="chat.example")
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
    leaf = x509.load_der_x509_certificate(der)
    authority = x509.load_pem_x509_certificate(own_ca().trust_pem)
    assert leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName) == [
        HOST
    ]
    assert leaf.public_key() != authority.public_key()


async def test_bytes_that_were_read_with_the_connect_are_not_lost():
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context(cadata=own_ca().trust_pem.decode()).wrap_bio(incoming, outgoing, server_hostname=HOST)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    async with rig(answer) as running:
        reader, writer = await running.raw_client(received=outgoing.read())
        while True:
            incoming.write(await asyncio.wait_for(reader.read(65536), PATIENCE_SECONDS))
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                pass
        writer.close()


async def test_only_http1_is_negotiated_while_http2_is_off():
    async with rig(answer, alpn=("h2", "http/1.1")) as running:
        client = await running.client("h2", "http/1.1")
        assert client.tls.selected_alpn_protocol() == "http/1.1"
        await client.send(REQUEST)
        assert await client.exactly(len(RESPONSE)) == RESPONSE


@pytest.mark.parametrize(
    ("client", "provider", "common"),
    [
        (("h2", "http/1.1"), ("h2", "http/1.1"), "h2"),
        (("h2", "http/1.1"), ("http/1.1",), "http/1.1"),
        (("http/1.1",), ("h2", "http/1.1"), "http/1.1"),
    ],
)
async def test_with_http2_on_both_sides_speak_the_same_protocol(client, provider, common):
    async with rig(answer, alpn=provider, http2=True) as running:
        connected = await running.client(*client)
        assert connected.tls.selected_alpn_protocol() == common


async def test_a_client_that_does_not_trust_our_ca_is_told_of():
    # By hand, because asyncio closes without sending the alert that says why.
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context(cafile=certifi.where()).wrap_bio(incoming, outgoing, server_hostname=HOST)
    async with rig(answer) as running:
        reader, writer = await running.raw_client()
        with contextlib.suppress(ssl.SSLCertVerificationError):
            while True:
                try:
                    tls.do_handshake()
                except ssl.SSLWantReadError:
                    writer.write(outgoing.read())
                    incoming.write(await asyncio.wait_for(reader.read(65536), PATIENCE_SECONDS))
        writer.write(outgoing.read())
        failed = await running.journal.wait_for(ClientTlsFailed)
        assert (failed.host, failed.reason) == (HOST, "unknown_ca")
        await running.all_served()


async def test_a_client_that_just_closes_in_its_handshake_is_told_of():
    async with rig(answer) as running:
        with pytest.raises(ssl.SSLCertVerificationError):
            await running.client(trusting=False)
        assert (await running.journal.wait_for(ClientTlsFailed)).reason == "closed"


@pytest.mark.parametrize(
    ("options", "reason"), [({"trusted": False}, "untrusted"), ({"provider_name": "other.example"}, "hostname")]
)
async def test_a_provider_that_cannot_prove_itself_gets_no_request(options, reason):
    reached = []

    async def script(reader, writer):
        reached.append(await reader.read(1))

    async with rig(script, **options) as running:
        client = await running.client()
        await client.send(REQUEST)
        response = await client.rest()
        assert response.startswith(b"HTTP/1.1 502 ")
        assert b"text/plain" in response
        assert b"ertificate verify failed" in response
        failed = await running.journal.wait_for(UpstreamTlsFailed)
        assert (failed.host, failed.provider, failed.reason) == (HOST, "openai", reason)
        assert (await running.journal.wait_for(InterceptionEnded)).outcome == "upstream_error"
    assert not any(reached)


async def test_a_second_connection_resumes_the_session_with_the_provider():
    reused = []

    async def script(reader, writer):
        reused.append(writer.get_extra_info("ssl_object").session_reused)
        await answer(reader, writer)

    async with rig(script) as running:
        for _ in range(2):
            client = await running.client()
            await client.send(REQUEST)
            assert await client.exactly(len(RESPONSE)) == RESPONSE
            await client.close()
            await running.all_served()
            gc.collect()  # the session outlives its connection
    assert reused == [False, True]


# What a client or a provider may try


async def test_a_client_that_sends_no_hello_is_closed_in_time():
    settings = EngineSettings(handler=HandlerSettings(client_tls_timeout_seconds=0.05))
    async with rig(answer, settings=settings) as running:
        reader, writer = await running.raw_client()
        assert await asyncio.wait_for(reader.read(), PATIENCE_SECONDS) == b""
        assert (await running.journal.wait_for(ClientTlsFailed)).reason == "timeout"
        writer.close()


async def test_a_client_that_stops_in_its_handshake_is_closed_in_time():
    settings = EngineSettings(handler=HandlerSettings(client_tls_timeout_seconds=0.05))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=HOST)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    async with rig(answer, settings=settings) as running:
        reader, writer = await running.raw_client()
        writer.write(outgoing.read())
        assert await asyncio.wait_for(reader.read(), PATIENCE_SECONDS) != b""
        assert (await running.journal.wait_for(ClientTlsFailed)).reason == "timeout"
        await running.all_served()
        writer.close()


async def test_garbage_instead_of_tls_is_closed_and_told_of():
    async with rig(answer) as running:
        reader, writer = await running.raw_client()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await asyncio.wait_for(reader.read(), PATIENCE_SECONDS) == b""
        assert (await running.journal.wait_for(ClientTlsFailed)).reason == "protocol"
        writer.close()


async def test_a_client_hello_without_end_is_closed():
    record = b"\x16\x03\x01\x40\x00"
    async with rig(answer) as running:
        reader, writer = await running.raw_client()
        writer.write(record + b"\x01\xff\xff\xff" + b"\0" * (0x4000 - 4))
        with contextlib.suppress(OSError):
            for _ in range(2 * MAX_CLIENT_HANDSHAKE_BYTES // 0x4000 + 8):
                writer.write(record + b"\0" * 0x4000)
                await writer.drain()
        with contextlib.suppress(OSError):
            assert await asyncio.wait_for(reader.read(), PATIENCE_SECONDS) == b""
        await running.all_served()
        writer.close()


async def test_a_provider_that_is_silent_in_its_handshake_is_given_up_in_time():
    settings = EngineSettings(handler=HandlerSettings(upstream_tls_timeout_seconds=0.05))
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    async with rig(answer, settings=settings) as running:
        reader, writer = await running.raw_client(upstream=ours)
        context = ssl.create_default_context(cadata=own_ca().trust_pem.decode())
        await writer.start_tls(context, server_hostname=HOST)
        writer.write(REQUEST)
        response = await asyncio.wait_for(reader.read(), PATIENCE_SECONDS)
        assert response.startswith(b"HTTP/1.1 502 ")
        assert (await running.journal.wait_for(UpstreamTlsFailed)).reason == "timeout"
        writer.close()
    theirs.close()


async def test_a_client_that_does_not_read_stops_the_provider():
    written = 0
    stalled = asyncio.Event()
    total = 64 << 20

    async def script(reader, writer):
        nonlocal written
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        block = b"x" * 65536
        while written < total:
            writer.write(block)
            written += len(block)
            drained = asyncio.ensure_future(writer.drain())
            done, _ = await asyncio.wait([drained], timeout=1)
            if not done:
                stalled.set()
            await drained

    async with rig(script) as running:
        client = await running.client()
        client.writer.transport.pause_reading()
        await client.send(REQUEST)
        await asyncio.wait_for(stalled.wait(), PATIENCE_SECONDS)
        # Socket buffers of the kernel grow to some megabytes on either side; what we hold is far less.
        assert written < total // 2
        client.writer.transport.resume_reading()
        await client.head()
        assert len(await client.exactly(total)) == total


async def test_what_a_peer_gets_when_nobody_can_be_dialled_again():
    async def once(reader, writer):
        await read_request(reader)
        writer.write(RESPONSE)

    async with rig(once) as running:
        client = await running.client()
        await client.send(REQUEST)
        await client.exactly(len(RESPONSE))
        handler = running.engine._handlers["connection-0"]
        while handler.transports.keys() != {handler.client}:
            await asyncio.sleep(0)

        async def refuse(authority):
            raise OSError(111, "Connect call failed ('10.1.2.3', 443)")

        handler._redial = refuse
        await client.send(REQUEST)
        response = await client.rest()
        assert response.startswith(b"HTTP/1.1 502 ")
        assert b"10.1.2.3" not in response
        assert running.journal.all(InterceptionEnded)[1].outcome == "upstream_error"


async def test_settings_can_be_swapped_while_it_runs():
    async with rig(answer) as running:
        running.engine.settings = msgspec.structs.replace(running.engine.settings, max_head_bytes=4096)
        client = await running.client()
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 5000 + b"\r\n\r\n")
        assert (await client.rest()).startswith(b"HTTP/1.1 431 ")


def test_the_handshake_bound_is_above_what_one_read_may_hold():
    # The read that completes the handshake may hold the first request as well; it must not be taken for a hello without end.
    assert safe_handler._STREAM_LIMIT_BYTES <= MAX_CLIENT_HANDSHAKE_BYTES
