"""Messages arrive in order and whole; the loss of the other side is told."""

import socket
import struct

import msgspec

from aiproxyd.channel import MAX_MESSAGE_BYTES, Answer, Authenticate, Channel, Configure, Drain, Ready
from aiproxyd.model.principal import Principal


async def pair():
    a, b = socket.socketpair()
    return await Channel.open(a), await Channel.open(b)


async def test_messages_arrive_in_order():
    a, b = await pair()
    sent = [
        Configure(config=msgspec.Raw(b'{"listen":["' + b"x" * 200_000 + b'"]}')),
        Drain(timeout_seconds=1.5),
        Answer(question=7, principal=Principal(id="1", name="a", groups=("g",))),
        Authenticate(question=7, credential="tökén"),
        Ready(),
    ]
    for message in sent:
        a.send(message)
    assert [await b.receive() for _ in sent] == sent
    a.close()
    b.close()


async def test_a_lost_peer_is_none():
    a, b = await pair()
    a.close()
    assert await b.receive() is None
    b.send(Ready())
    b.close()


async def test_nonsense_is_a_lost_peer():
    for nonsense in (struct.pack(">I", MAX_MESSAGE_BYTES + 1), struct.pack(">I", 2) + b"{}", struct.pack(">I", 9) + b"half"):
        raw, end = socket.socketpair()
        channel = await Channel.open(end)
        with raw:
            raw.sendall(nonsense)
        assert await channel.receive() is None
        channel.close()
