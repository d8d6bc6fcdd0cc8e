"""A relay whose four ends are a test's, without TLS: what is said is known to have passed when the other end hears it."""

import asyncio
import socket

from aiproxyd.classify import Provider
from aiproxyd.mitm.decrypted import DecryptedConnection
from aiproxyd.mitm.relay import Relay
from aiproxyd.mitm.relay_settings import RelaySettings
from aiproxyd.mitm.report import Reporter
from aiproxyd.mitm.turns import Turns
from aiproxyd.model.authority import Authority
from aiproxyd.model.principal import ANONYMOUS
from tests.unit.mitm.stage import PROVIDER_HOST


class Bare:
    """Both far ends, and the relay between."""

    def __init__(self, tap, memory, deadlines, turns=None):
        self.client, near_client = socket.socketpair()
        self.upstream, near_upstream = socket.socketpair()
        for end in (self.client, self.upstream, near_client, near_upstream):
            end.setblocking(False)
        self.reasons = []
        provider = Provider(name="anthropic", type="anthropic")
        reporter = Reporter(memory)
        self.relay = Relay(
            near_client,
            near_upstream,
            DecryptedConnection(id="1", authority=Authority(PROVIDER_HOST, 443), provider=provider, principal=ANONYMOUS),
            tap=tap,
            reporter=reporter,
            settings=RelaySettings(),
            deadlines=deadlines,
            turns=turns or Turns(reporter),
            on_closed=self.reasons.append,
        )
        self.relay._is_client_secure = self.relay._is_upstream_secure = True  # as after TLS
        self.relay.start()

    def close(self):
        self.relay.close()
        self.client.close()
        self.upstream.close()


async def say(end, pieces):
    loop = asyncio.get_running_loop()
    for piece in pieces:
        await loop.sock_sendall(end, piece)
        await asyncio.sleep(0)


async def hear(end, count):
    loop = asyncio.get_running_loop()
    heard = bytearray()
    while len(heard) < count:
        data = await loop.sock_recv(end, count - len(heard))
        assert data, "the relay closed early"
        heard += data
    return bytes(heard)
