"""The front on real sockets: what clients get, and what is told."""

import asyncio
import contextlib
import socket
import ssl

import msgspec
import pytest
import trustme

from aiproxyd.classify import ProviderStatus, ProviderTable
from aiproxyd.mitm.front import FrontSettings
from aiproxyd.mitm.inbound import Inbound
from aiproxyd.mitm.refusals import RefusalLog
from aiproxyd.model.observation import ConnectDecided, TunnelClosed
from aiproxyd.model.verdict import Action
from tests.unit.mitm.stage import (
    PROVIDER,
    PROVIDER_HOST,
    REFUSED_HOST,
    TUNNEL_HOST,
    answer_all,
    read_response,
    reset,
    stage,
    until,
)

LOOPS = "both"


async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def test_a_tunnel_carries_bytes_and_keeps_half_close(tmp_path):
    async def upstream(reader, writer):
        data = await reader.read()
        writer.write(b"got %d" % len(data))

    async with stage(tmp_path, answer_all, plain_handler=upstream) as s:
        reader, writer = await s.connect(f"{TUNNEL_HOST}:443")
        writer.write(b"x" * 300_000)
        writer.write_eof()
        assert await reader.read() == b"got 300000"
        writer.close()
        (closed,) = await s.memory.until(TunnelClosed)
        assert (closed.bytes_to_upstream, closed.bytes_to_client, closed.reason) == (300_000, 10, "eof")
        (decided,) = s.memory.of(ConnectDecided)
        assert (decided.action, decided.status_code, decided.host) == (Action.TUNNEL, 200, TUNNEL_HOST)


async def test_bytes_right_behind_the_connect_are_forwarded(tmp_path):
    async with stage(tmp_path, answer_all, plain_handler=echo) as s:
        reader, writer = await s.open()
        writer.write(b"CONNECT files.example.com:443 HTTP/1.1\r\nHost: x\r\n\r\nearly")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(5) == b"early"
        writer.close()


async def test_a_decrypted_request_is_relayed_and_tapped(tmp_path):
    async with stage(tmp_path, answer_all) as s:
        reader, writer = await s.decrypt()
        for number in range(3):
            writer.write(b"POST /v1/%d HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody" % number)
            assert (await read_response(reader)).endswith(b"/v1/%d|body" % number)
        writer.close()
        assert [r.head.path for r in s.tap.requests] == ["/v1/0", "/v1/1", "/v1/2"]
        for seen in s.tap.requests:
            assert seen.calls == ["request_data", "request_end", "response_head", "response_data", "response_end"]
            assert seen.request == b"body"


# Refusals


async def test_a_client_without_credentials_may_try_again_on_the_same_connection(tmp_path):
    async with stage(tmp_path, answer_all, plain_handler=echo) as s:
        s.decider.needs_credentials = True
        reader, writer = await s.open()
        for _ in range(3):
            writer.write(b"CONNECT files.example.com:443 HTTP/1.1\r\nHost: files.example.com:443\r\n\r\n")
            answer = await read_response(reader)
            assert answer.startswith(b"HTTP/1.1 407 ")
            assert b"Proxy-Authenticate: Basic realm=" in answer
        writer.write(b"CONNECT files.example.com:443 HTTP/1.1\r\nProxy-Authorization: Basic dTp0\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        decided = s.memory.of(ConnectDecided)
        assert [d.status_code for d in decided] == [407, 407, 407, 200]
        assert [d.reason for d in decided] == ["missing_credentials"] * 3 + ["no_provider"]
        writer.close()


async def test_each_refusal_leaves_the_connection_usable(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        closed_port = nobody.getsockname()[1]
    hosts = {"down.example.com": f"127.0.0.1:{closed_port}"}
    async with stage(tmp_path, answer_all, plain_handler=echo, hosts=hosts) as s:
        reader, writer = await s.open()
        for target, status, reason in (
            (f"{REFUSED_HOST}:443", b"403", "port"),
            ("127.0.0.1:443", b"403", "address"),
            ("down.example.com:443", b"502", "dial_refused"),
        ):
            writer.write(b"CONNECT %s HTTP/1.1\r\n\r\n" % target.encode())
            answer = await read_response(reader)
            assert answer.split(b" ")[1] == status
            # No internal detail: neither the address nor the error of the system.
            assert b"127.0.0.1" not in answer.partition(b"\r\n\r\n")[2].replace(b"127.0.0.1 is at", b"")
            assert b"refused" not in answer.lower() or status == b"403"
            assert s.memory.of(ConnectDecided)[-1].reason == reason
        writer.write(b"CONNECT files.example.com:443 HTTP/1.1\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"CONNECT a:443 HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
        (b"GET https://a/ HTTP/1.1\r\n\r\n", b"400"),
        (b"GET http://u:p@a/ HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 5000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 5000, b"431"),
    ],
)
async def test_what_is_no_request_for_a_proxy_is_refused_with_a_reason(tmp_path, head, status):
    async with stage(tmp_path, answer_all, settings=FrontSettings(max_head_bytes=4096)) as s:
        reader, writer = await s.open()
        writer.write(head)
        answer = await reader.read()
        assert answer.split(b" ")[1] == status
        assert b"Content-Type: text/plain" in answer
        assert b"Connection: close" in answer
        assert not s.decider.asked
        writer.close()


async def test_a_head_that_takes_too_long_is_refused_and_an_empty_one_is_closed(tmp_path):
    async with stage(tmp_path, answer_all, settings=FrontSettings(head_timeout_seconds=0.1)) as s:
        silent, silent_writer = await s.open()
        reader, writer = await s.open()
        writer.write(b"CONNECT files.exa")
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
        assert await silent.read() == b""
        writer.close()
        silent_writer.close()


async def test_a_head_that_came_with_its_connection_is_not_waited_for(tmp_path, monkeypatch):
    async with stage(tmp_path, answer_all, plain_handler=echo) as s:
        waited = []
        monkeypatch.setattr(Inbound, "_wait", lambda inbound: waited.append(inbound))
        with socket.create_connection(("127.0.0.1", s.port)) as client:
            client.sendall(b"CONNECT files.example.com:443 HTTP/1.1\r\n\r\n")
            await s.memory.until(ConnectDecided)
            client.settimeout(10)
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        assert waited == []


async def test_what_came_of_a_head_with_its_connection_is_kept_for_the_rest(tmp_path):
    async with stage(tmp_path, answer_all, plain_handler=echo) as s:
        with socket.create_connection(("127.0.0.1", s.port)) as client:
            client.sendall(b"\r\nCONNECT files.exa")
            await until(lambda: len(s.front))
            client.sendall(b"mple.com:443 HTTP/1.1\r\n\r\n")
            assert (await s.memory.until(ConnectDecided))[0].status_code == 200
            client.settimeout(10)
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")


async def test_a_head_may_come_byte_by_byte_after_empty_lines(tmp_path):
    async with stage(tmp_path, answer_all, plain_handler=echo) as s:
        reader, writer = await s.open()
        for byte in b"\r\n\r\nCONNECT files.example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n!":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert await reader.readexactly(1) == b"!"
        writer.close()


async def test_a_client_that_speaks_tls_to_the_proxy_itself_is_closed(tmp_path):
    async with stage(tmp_path, answer_all) as s:
        reader, writer = await s.open()
        writer.write(b"\x16\x03\x01\x02\x00\x01")
        assert await reader.read() == b""
        writer.close()


async def test_a_client_that_leaves_while_it_is_decided_about_is_forgotten(tmp_path):
    async with stage(tmp_path, answer_all, plain_handler=echo) as s:
        go_on = asyncio.Event()
        decide = s.decider.decide

        async def slowly(*arguments, **options):
            await go_on.wait()
            return await decide(*arguments, **options)

        s.decider.decide = slowly
        _, writer = await s.open()
        writer.write(b"CONNECT files.example.com:443 HTTP/1.1\r\n\r\n")
        await until(lambda: s.front._tasks)
        reset(writer)
        go_on.set()
        await until(lambda: not len(s.front))


async def test_a_decision_that_fails_closes_the_connection(tmp_path, caplog):
    async with stage(tmp_path, answer_all) as s:

        async def fail(*arguments, **options):
            raise ZeroDivisionError

        s.decider.decide = fail
        reader, writer = await s.open()
        writer.write(b"CONNECT files.example.com:443 HTTP/1.1\r\n\r\n")
        assert await reader.read() == b""
        assert "its handling failed" in caplog.text
        writer.close()


async def test_a_provider_that_a_reload_disabled_is_a_503(tmp_path):
    async with stage(tmp_path, answer_all) as s:
        s.front.providers = ProviderTable([msgspec.structs.replace(PROVIDER, status=ProviderStatus.DISABLED)])
        reader, writer = await s.open()
        writer.write(b"CONNECT api.anthropic.com:443 HTTP/1.1\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
        writer.close()


async def test_decrypted_connections_go_to_mitmproxys_layers_when_the_settings_say_so(tmp_path):
    served = []

    async def serve(client, upstream, connection):
        served.append((client.getpeername()[0], upstream.getpeername()[0], connection.authority.host))
        client.close()
        upstream.close()

    async with stage(tmp_path, answer_all, settings=FrontSettings(uses_mitmproxy=True)) as s:
        s.decider.serve = serve
        reader, writer = await s.connect(f"{PROVIDER_HOST}:443")
        assert await reader.read() == b""
        assert served == [("127.0.0.1", "127.0.0.1", PROVIDER_HOST)]
        writer.close()


async def test_repeated_refusals_are_logged_once(tmp_path, caplog):
    caplog.set_level("INFO")
    async with stage(tmp_path, answer_all) as s:
        for _ in range(5):
            reader, writer = await s.open()
            writer.write(f"CONNECT {REFUSED_HOST}:443 HTTP/1.1\r\n\r\n".encode())
            await read_response(reader)
            writer.close()
    assert len([record for record in caplog.records if "refused 127.0.0.1" in record.getMessage()]) == 1


def test_the_log_of_refusals_counts_what_it_did_not_say(caplog):
    caplog.set_level("INFO")
    refusals = RefusalLog()
    for second in (0, 1, 59.9, 60):
        refusals.note("1.2.3.4", "port", "a:1", second)
    for number in range(2000):
        refusals.note(f"client {number}", "port", "a:1", 61)
    assert len(refusals._known) == RefusalLog._MAX_KNOWN
    assert [record.args[3] for record in caplog.records[:2]] == [0, 2]


# Tunnels


async def test_a_tunnel_on_which_nothing_passes_is_closed(tmp_path):
    async with stage(tmp_path, answer_all, plain_handler=echo, settings=FrontSettings(tunnel_idle_timeout_seconds=0.1)) as s:
        reader, writer = await s.connect(f"{TUNNEL_HOST}:443")
        assert await reader.read() == b""
        assert (await s.memory.until(TunnelClosed))[0].reason == "idle"
        writer.close()


async def test_a_tunnel_lives_through_a_drain_until_it_is_closed(tmp_path):
    async with stage(tmp_path, answer_all, plain_handler=echo) as s:
        waiting, waiting_writer = await s.open()
        await until(lambda: s.front._inbounds)
        reader, writer = await s.connect(f"{TUNNEL_HOST}:443")
        serving = asyncio.get_running_loop().create_task(s.front.serve())
        await asyncio.sleep(0)
        s.front.drain()
        s.front.drain()
        await serving
        assert await waiting.read() == b""
        writer.write(b"still here")
        assert await reader.readexactly(10) == b"still here"
        assert not await s.front.wait(0.01)
        await s.front.close()
        assert await s.front.wait(0.01)
        assert (await s.memory.until(TunnelClosed))[0].reason == "drained"
        with contextlib.suppress(OSError):
            assert await reader.read() == b""
        writer.close()
        waiting_writer.close()


async def test_who_was_revoked_during_a_dial_is_known_and_in_doubt_it_is_everybody(tmp_path):
    async with stage(tmp_path, answer_all) as s:
        since = s.front.revocations
        s.front.revoke({"1", "2"})
        s.front.revoke({"3"})
        assert [s.front.was_revoked(each, since=since) for each in ("1", "3", "4")] == [True, True, False]
        assert not s.front.was_revoked("1", since=since + 1)
        for _ in range(300):
            s.front.revoke({"5"})
        assert s.front.was_revoked("4", since=since)
        assert not s.front.was_revoked("4", since=s.front.revocations)


async def test_certificate_cache_a_provider_host_gets_cached_a_non_provider_host_does_not(tmp_path):
    issuer = trustme.CA()
    of_the_origin = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuer.issue_cert(TUNNEL_HOST).configure_cert(of_the_origin)
    trusting = ssl.create_default_context(cadata=issuer.cert_pem.bytes().decode())

    async def origin(reader, writer):
        await writer.start_tls(of_the_origin)
        await echo(reader, writer)

    async def shown(s, host, context):
        reader, writer = await s.decrypt(host, context)
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        if host == TUNNEL_HOST:
            writer.write(b"over TLS of the origin")
            assert await reader.readexactly(22) == b"over TLS of the origin"
        writer.close()
        return certificate

    async with stage(tmp_path, answer_all, plain_handler=origin) as s:
        assert len(s.leaves) == 0
        # A handshake that goes through a tunnel makes no certificate, nor does a host that is refused.
        await shown(s, TUNNEL_HOST, trusting)
        reader, writer = await s.open()
        writer.write(f"CONNECT {REFUSED_HOST}:443 HTTP/1.1\r\n\r\n".encode())
        assert (await read_response(reader)).startswith(b"HTTP/1.1 403")
        writer.close()
        assert len(s.leaves) == 0
        first = await shown(s, PROVIDER_HOST, None)
        assert len(s.leaves) == 1
        assert await shown(s, PROVIDER_HOST, None) == first
        assert ssl.PEM_cert_to_DER_cert(s.leaves.pem_chain(PROVIDER_HOST).decode()) == first
        await shown(s, TUNNEL_HOST, trusting)
        assert len(s.leaves) == 1
