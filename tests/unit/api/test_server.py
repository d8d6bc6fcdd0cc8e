import asyncio
import gc
import signal
import socket

import pytest

from aiproxyd.api import server as server_module
from aiproxyd.api.server import AdminServer


async def hello(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


def listener():
    socket_ = socket.create_server(("127.0.0.1", 0))
    socket_.setblocking(False)
    return socket_


@pytest.fixture
async def serve():
    servers = []

    async def start(app):
        listening = listener()
        server = AdminServer(app, listening)
        servers.append(server)
        await server.start()
        return server, listening.getsockname()[1]

    yield start
    for server in servers:
        await server.stop()


async def exchange(port, request):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


GET = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


async def test_requests_are_answered_as_soon_as_start_returns(serve):
    _, port = await serve(hello)
    assert (await exchange(port, GET)).endswith(b"\r\n\r\nhello")


async def test_a_body_does_not_wait_until_the_client_has_acknowledged_the_head():
    listening = listener()
    server = AdminServer(hello, listening)
    await server.start()
    # Connections have it from the listener.
    assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    await server.stop()


async def test_it_does_not_say_what_serves(serve):
    _, port = await serve(hello)
    assert b"\r\nserver:" not in (await exchange(port, GET)).lower()


async def test_every_answer_has_the_date_of_its_request(serve, monkeypatch):
    _, port = await serve(hello)
    now = 1_000_000_000.9
    monkeypatch.setattr(server_module.time, "time", lambda: now)
    for date in (b"Sun, 09 Sep 2001 01:46:40 GMT", b"Sun, 09 Sep 2001 01:46:41 GMT"):
        assert (await exchange(port, GET)).count(b"\r\ndate: " + date + b"\r\n") == 1
        now += 1.0


async def test_a_head_request_gets_no_body(serve):
    _, port = await serve(hello)
    answer = await exchange(port, GET.replace(b"GET", b"HEAD"))
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\n")


async def test_signals_stay_the_daemons(serve):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    await serve(hello)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


async def test_after_stop_nobody_listens_and_stop_may_come_again(serve):
    server, port = await serve(hello)
    await server.stop()
    await server.stop()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_stop_before_start_is_nothing():
    listening = listener()
    await AdminServer(hello, listening).stop()
    listening.close()


async def test_stop_lets_an_answer_under_way_finish(serve):
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(scope, receive, send):
        entered.set()
        await leave.wait()
        await hello(scope, receive, send)

    server, port = await serve(slow)
    answer = asyncio.ensure_future(exchange(port, GET))
    await entered.wait()
    stopping = asyncio.ensure_future(server.stop())
    leave.set()
    assert (await answer).endswith(b"hello")
    await stopping


async def test_stop_does_not_wait_for_one_who_never_ends(serve, monkeypatch):
    monkeypatch.setattr(server_module, "GRACE_SECONDS", 0)
    entered = asyncio.Event()

    async def endless(scope, receive, send):
        entered.set()
        await asyncio.Event().wait()

    server, port = await serve(endless)
    answer = asyncio.ensure_future(exchange(port, GET))
    await entered.wait()
    await server.stop()
    await answer


async def test_a_client_that_never_finishes_its_head_is_dropped(serve, monkeypatch):
    """The attack: connections that say nothing, or half a head, and stay."""
    monkeypatch.setattr(server_module, "HEAD_SECONDS", 0.05)
    _, port = await serve(hello)
    assert await exchange(port, b"") == b""
    assert await exchange(port, b"GET / HTTP/1.1\r\nHost:") == b""


async def test_half_a_second_head_on_a_kept_connection_is_dropped_too(serve, monkeypatch):
    monkeypatch.setattr(server_module, "HEAD_SECONDS", 0.05)
    _, port = await serve(hello)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200")
    writer.write(b"GET / HTTP/1.1\r\n")
    assert await reader.read() == b""
    writer.close()


async def test_a_slow_answer_is_not_cut_by_the_deadline_of_heads(serve, monkeypatch):
    monkeypatch.setattr(server_module, "HEAD_SECONDS", 0.05)

    async def slow(scope, receive, send):
        await asyncio.sleep(0.2)  # four deadlines
        await hello(scope, receive, send)

    _, port = await serve(slow)
    assert (await exchange(port, GET)).endswith(b"hello")


async def test_a_head_of_any_length_is_refused_beyond_the_limit(serve):
    _, port = await serve(hello)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nx: " + b"x" * (server_module.MAX_HEAD_BYTES + 1))
    assert (await reader.read()).startswith(b"HTTP/1.1 400")
    writer.close()


async def test_a_socket_that_cannot_be_served_is_an_error_of_start():
    listening = listener()
    listening.close()
    with pytest.raises((OSError, ValueError)):
        await AdminServer(hello, listening).start()
    # A task whose exception nobody took would complain here.
    gc.collect()
