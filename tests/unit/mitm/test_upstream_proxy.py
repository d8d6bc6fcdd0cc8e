"""A CONNECT to another proxy: what is said, what is taken from the socket, and what each answer means."""

import asyncio
import socket

import pytest

from aiproxyd.config.network import parse_proxy_url
from aiproxyd.mitm.bridge import Bridges
from aiproxyd.mitm.upstream_proxy import DialFailed, UpstreamProxy, UpstreamProxySettings
from aiproxyd.model.authority import Authority

DESTINATION = Authority("files.example.com", 443)


class Rig:
    """An upstream proxy that says `pieces`, one after the other, to whoever asks."""

    def __init__(self, *pieces, url="http://u:p@proxy.corp:3128"):
        self.asked = b""
        self.dialled = []
        self._pieces = pieces
        settings = UpstreamProxySettings(parse_proxy_url(url), None)
        self.proxy = UpstreamProxy(settings, dial=self._dial, bridges=Bridges())

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_):
        self._server.close()
        self._server.close_clients()
        await self._server.wait_closed()

    async def _dial(self, authority):
        self.dialled.append(authority)
        connection = socket.socket()
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, self._server.sockets[0].getsockname())
        return connection

    async def _serve(self, reader, writer):
        self.asked = await reader.readuntil(b"\r\n\r\n")
        for piece in self._pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()


async def test_the_destination_and_the_credentials_are_said_and_nothing_else():
    async with Rig(b"HTTP/1.1 200 OK\r\n\r\n") as rig:
        (await rig.proxy.connect(DESTINATION)).close()
        assert rig.dialled == [Authority("proxy.corp", 3128)]
        assert rig.asked == (
            b"CONNECT files.example.com:443 HTTP/1.1\r\nHost: files.example.com:443\r\nProxy-Authorization: Basic dTpw\r\n\r\n"
        )


@pytest.mark.parametrize("cut", [1, 17, 18, 19, 20, 21])
async def test_what_the_destination_says_behind_the_head_stays_in_the_socket(cut):
    said = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nearly"
    async with Rig(b"HTTP/1.1 102 Processing\r\n\r\n", said[:cut], said[cut:]) as rig:
        connection = await rig.proxy.connect(DESTINATION)
        received = b""
        while len(received) < 5:
            received += await asyncio.get_running_loop().sock_recv(connection, 100)
        assert received == b"early"
        connection.close()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "upstream_proxy_credentials"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "upstream_proxy_refused"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "upstream_proxy_refused"),
        (b"SSH-2.0-x\r\n\r\n", "upstream_proxy_protocol"),
        (b"HTTP/1.1 200 OK\r\n", "upstream_proxy_protocol"),
        (b"", "upstream_proxy_protocol"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 40_000 + b"\r\n\r\n", "upstream_proxy_protocol"),
    ],
)
async def test_every_other_answer_is_a_word_for_metrics(answer, reason):
    async with Rig(answer) as rig:
        with pytest.raises(DialFailed) as caught:
            await rig.proxy.connect(DESTINATION)
        assert caught.value.reason == reason


async def test_a_proxy_that_cannot_be_reached_says_so_and_its_credentials_are_not_logged(caplog):
    async def dial(_authority):
        raise DialFailed("refused")

    settings = UpstreamProxySettings(parse_proxy_url("http://u:hunter2@proxy.corp"), None)
    proxy = UpstreamProxy(settings, dial=dial, bridges=Bridges())
    for _ in range(3):
        with pytest.raises(DialFailed) as caught:
            await proxy.connect(DESTINATION)
        assert caught.value.reason == "upstream_proxy_unreachable"
    assert len(caplog.records) == 1, "the same trouble is said once a minute"
    assert "proxy.corp" in caplog.text
    assert "hunter2" not in caplog.text
