"""The front on real sockets: what clients get, and what is told."""


from aiproxyd.model.observation import ConnectDecided, TunnelClosed
from aiproxyd.model.verdict import Action
from tests.unit.mitm.stage import TUNNEL_HOST, answer_all, read_response, stage

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
