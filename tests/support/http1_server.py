"""HTTP/1.1, the provider's side, written out so that a test controls every byte: chunks, writes, trailers, resets."""

import asyncio
import contextlib
import socket
import struct

from tests.support import websocket_replies
from tests.support.application import Application, Broken, Incoming
from tests.support.ledger import Entry
from tests.support.pace import Pace
from tests.support.replies import Reply

# Far more than the proxy lets through.
MAX_HEAD_BYTES = 32 << 20

_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 429: "Too Many Requests", 529: "Site Overloaded"}


class ClientLeft(Exception):
    """The client closed the connection before its request was whole."""


async def serve(application: Application, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer every request of one connection, then close it."""
    connection = application.connected()
    tls = writer.get_extra_info("ssl_object")
    sni = getattr(tls, "fake_provider_sni", "") if tls else ""
    try:
        while await _exchange(application, reader, writer, connection=connection, sni=sni or ""):
            pass
    except (ConnectionError, ClientLeft, asyncio.IncompleteReadError, OSError):
        pass
    finally:
        application.ledger.changed()
        writer.close()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await writer.wait_closed()


async def _exchange(
    application: Application, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, connection: int, sni: str
) -> bool:
    """Answer one request; return whether another may follow."""
    try:
        whole = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return False
    head = whole[:-4]
    line, *fields = head.split(b"\r\n")
    method, target, _ = line.decode("latin-1").split(" ", 2)
    headers = [
        (name.decode("latin-1"), value.strip().decode("latin-1"))
        for name, _, value in (field.partition(b":") for field in fields)
    ]
    incoming = application.incoming(
        connection=connection, protocol="http/1.1", sni=sni, method=method, target=target, head=head, headers=headers
    )
    entry = incoming.entry
    if entry.header("upgrade").lower() == "websocket" and Pace.parse(entry.credential).status < 400:
        await websocket_replies.serve(application, reader, writer, whole, entry)
        return False
    early = application.pace_of_query(entry).early
    if not early:
        if entry.header("expect").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await _read_body(reader, incoming)
    reply, pace = application.answer(incoming, read=not early)
    try:
        keep = await _respond(application, reader, writer, reply, pace, entry)
    except (ConnectionError, OSError):
        entry.end = "client_left"
        keep = False
    except asyncio.CancelledError:
        # The provider stops while it still speaks.
        entry.end = "client_left" if entry.end == "open" else entry.end
        raise
    finally:
        application.ledger.changed()
    if keep and early:
        await _read_body(reader, incoming)
    return keep and entry.header("connection").lower() != "close"


async def _read_body(reader: asyncio.StreamReader, incoming: Incoming) -> None:
    entry = incoming.entry
    if "chunked" in entry.header("transfer-encoding").lower():
        while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            await _read_exactly(reader, incoming, size)
            await reader.readexactly(2)
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass
    else:
        await _read_exactly(reader, incoming, int(entry.header("content-length") or 0))


async def _read_exactly(reader: asyncio.StreamReader, incoming: Incoming, size: int) -> None:
    while size:
        data = await reader.read(min(size, 1 << 18))
        if not data:
            incoming.entry.end = "client_left"
            raise ClientLeft
        incoming.data(data)
        size -= len(data)


async def _respond(
    application: Application,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    reply: Reply,
    pace: Pace,
    entry: Entry,
) -> bool:
    for number in range(pace.informational):
        writer.write(f"HTTP/1.1 103 Early Hints\r\nLink: </{number}>; rel=preload\r\n\r\n".encode())
    head = [
        f"HTTP/1.1 {reply.status} {_REASONS.get(reply.status, '')}",
        "Date: Sat, 21 Nov 2026 00:00:00 GMT",
        f"Content-Type: {reply.content_type}",
        f"request-id: req_{entry.serial:08d}",
        "X-oDD-Case: kept  as it is",
        "Set-Cookie: a=1",
        "Set-Cookie: b=2",
        *(f"{name}: {value}" for name, value in reply.headers),
    ]
    if entry.coding != "identity":
        head.append(f"Content-Encoding: {entry.coding}")
    if reply.status in {429, 529}:
        head.append(f"retry-after: {pace.retry}")
    body = application.pieces(reply, pace, entry)
    if pace.framing == "length":
        whole = b"".join([piece async for piece in body])
        head.append(f"Content-Length: {len(whole)}")
        await _write_head(writer, head, entry)
        await _write(writer, whole, pace)
    else:
        if pace.framing == "close":
            head.append("Connection: close")
        else:
            head.append("Transfer-Encoding: chunked")
            if pace.trailers:
                head.append("Trailer: " + ", ".join(f"X-Trailer-{number}" for number in range(pace.trailers)))
        await _write_head(writer, head, entry)
        try:
            async for piece in body:
                await _write(writer, _framed(piece, pace), pace)
        except Broken as broken:
            return await _break(reader, writer, entry, broken.args[0])
        if pace.framing != "close":
            trailers = "".join(f"X-Trailer-{number}: value {number}\r\n" for number in range(pace.trailers))
            await _write(writer, f"0\r\n{trailers}\r\n".encode(), pace)
    await writer.drain()
    entry.end = "complete"
    return pace.framing != "close"


async def _write_head(writer: asyncio.StreamWriter, head: list[str], entry: Entry) -> None:
    entry.response_head = "\r\n".join(head).encode("latin-1")
    writer.write(entry.response_head + b"\r\n\r\n")
    await writer.drain()


def _framed(piece: bytes, pace: Pace) -> bytes:
    if pace.framing == "close" or not piece:
        return piece
    size = pace.chunk or len(piece)
    chunks = (piece[start : start + size] for start in range(0, len(piece), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)


async def _write(writer: asyncio.StreamWriter, data: bytes, pace: Pace) -> None:
    size = pace.split or (1 << 18)
    for start in range(0, len(data), size):
        writer.write(data[start : start + size])
        await writer.drain()


async def _break(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, entry: Entry, how: str) -> bool:
    if how == "stall":
        while await reader.read(65536):
            pass
        entry.end = "client_left"
        return False
    entry.end = how
    if how == "reset":
        # Linger of zero seconds makes the kernel answer with RST instead of FIN.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    return False
