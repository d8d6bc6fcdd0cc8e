"""HTTP/1.1 conversations by the grammar, with everything that is odd and legal, and some of what is not.

Each is made from a `random.Random`, so that a seed names it. What was meant is kept beside the bytes: a parser is compared with
the meaning, not with itself.
"""

from random import Random
from typing import NamedTuple

REASONS = ("OK", "", "Not Found", "no reason at all; really", "caf\xe9")
PATHS = (
    "/",
    "/v1/messages",
    "/v1/messages?beta=true",
    "/a/%2e%2e/b",
    "/x?y?z",
    "/caf\xe9",
    "*",
    "http://api.anthropic.com/v1/x?q=1",
)


class Message(NamedTuple):
    """One message as it was meant."""

    start: str
    """Method or status."""
    wire: bytes
    body: bytes
    """After transfer coding; empty when there is none."""
    method: str = ""
    """Of a request, or of the request that a response answers."""
    ends_by_close: bool = False
    is_upgrade: bool = False
    trailers: int = 0


class Conversation(NamedTuple):
    requests: tuple[Message, ...]
    responses: tuple[Message, ...]
    """In order, one a request, with their interim ones in the wire bytes."""
    after_upgrade: tuple[bytes, bytes]
    """What client and server say when HTTP is over."""


def conversation(random: Random) -> Conversation:
    """Return a legal conversation of one to five requests."""
    requests: list[Message] = []
    responses: list[Message] = []
    after = (b"", b"")
    count = random.randint(1, 5)
    for number in range(count):
        is_last = number == count - 1
        is_upgrade = is_last and random.random() < 0.1
        message = request(random, upgrade=is_upgrade)
        answer = response(random, message.method, may_close=is_last, upgrade=is_upgrade)
        requests.append(message)
        responses.append(answer)
        if answer.is_upgrade:
            after = (random.randbytes(random.randint(0, 300)), random.randbytes(random.randint(0, 300)))
    return Conversation(tuple(requests), tuple(responses), after)


def request(random: Random, *, upgrade: bool = False) -> Message:
    """Return a legal request."""
    method = random.choice(("GET", "POST", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "M-SEARCH", "PATCH"))
    target = random.choice(PATHS)
    headers = ["Host: api.anthropic.com"]
    body = b""
    wire_body = b""
    trailers = 0
    if method in {"POST", "PUT", "PATCH"}:
        body = _body(random)
        if random.random() < 0.5:
            headers.append(_length(random, len(body)))
            wire_body = body
        else:
            headers.append(_cased(random, "Transfer-Encoding") + ": " + random.choice(("chunked", "Chunked", " chunked")))
            wire_body, trailers = chunked(random, body)
        if random.random() < 0.2:
            headers.append("Expect: 100-continue")
    if upgrade:
        headers += ["Connection: Upgrade", "Upgrade: websocket"]
    headers += _fields(random)
    random.shuffle(headers)
    start = f"{method} {target} HTTP/1.1"
    blank = b"\r\n" if random.random() < 0.05 else b""
    return Message(method, blank + _head(start, headers) + wire_body, body, method=method, trailers=trailers)


def response(random: Random, method: str, *, may_close: bool, upgrade: bool) -> Message:
    """Return a legal response to a request of `method`, interim ones before it."""
    interim = b""
    while random.random() < 0.2:
        interim += _head(random.choice(("HTTP/1.1 100 Continue", "HTTP/1.1 103 Early Hints", "HTTP/1.1 102 ")), _fields(random))
    if upgrade and random.random() < 0.8:
        head = _head("HTTP/1.1 101 Switching Protocols", ["Upgrade: websocket", "Connection: Upgrade"])
        return Message("101", interim + head, b"", method=method, is_upgrade=True)
    status = random.choice(("200", "200", "200", "201", "204", "304", "400", "429", "500"))
    headers = _fields(random)
    body = b""
    wire_body = b""
    trailers = 0
    closes = False
    if status in {"204", "304"} or method == "HEAD":
        if status != "204" and random.random() < 0.5:
            headers.append(_length(random, random.randint(0, 5000)))
    else:
        body = _body(random)
        kind = random.choice(("length", "chunked", "close") if may_close and not upgrade else ("length", "chunked"))
        if kind == "length":
            headers.append(_length(random, len(body)))
            wire_body = body
        elif kind == "chunked":
            headers.append(_cased(random, "Transfer-Encoding") + ":chunked")
            wire_body, trailers = chunked(random, body)
        else:
            closes = True
            wire_body = body
    random.shuffle(headers)
    reason = random.choice(REASONS)
    version = "HTTP/1.0" if closes and random.random() < 0.5 else "HTTP/1.1"
    start = f"{version} {status}" + (f" {reason}" if reason or random.random() < 0.8 else "")
    wire = interim + _head(start, headers) + wire_body
    return Message(status, wire, body, method=method, ends_by_close=closes, trailers=trailers)


def chunked(random: Random, body: bytes) -> tuple[bytes, int]:
    """Return `body` in chunks of any size, with extensions and trailers, and how many trailers there are."""
    parts = []
    position = 0
    while position < len(body):
        size = random.choice((1, 2, 7, 16, 100, 4096, len(body)))
        piece = body[position : position + size]
        position += len(piece)
        digits = format(len(piece), random.choice(("x", "X")))
        digits = "0" * random.choice((0, 0, 0, 3)) + digits
        extension = random.choice(("", "", "", ";a=b", ';name="quoted; text"', ";x", " "))
        parts.append(f"{digits}{extension}\r\n".encode() + piece + b"\r\n")
    parts.append(random.choice((b"0\r\n", b"000\r\n", b"0;last\r\n")))
    trailers = _fields(random) if random.random() < 0.2 else []
    parts += [f"{trailer}\r\n".encode("latin-1") for trailer in trailers]
    return b"".join(parts) + b"\r\n", len(trailers)


# Requests whose end servers disagree about, or that no server takes: (name, bytes).
ATTACKS: tuple[tuple[str, bytes], ...] = (
    ("both lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n"),
    ("two lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 40\r\n\r\nbody"),
    ("a list of lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 5\r\n\r\nbody"),
    ("a signed length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\nbody"),
    ("a hexadecimal length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x4\r\n\r\nbody"),
    ("an empty length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nbody"),
    ("an endless length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999999999999\r\n\r\nbody"),
    ("chunked twice", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("a coding before chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    ("a coding nobody knows", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("chunked with a control character", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    ("a folded transfer coding", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    ("a folded length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n 4\r\n\r\nbody"),
    ("white space before the colon", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    ("white space before the first field", b"POST / HTTP/1.1\r\n Host: a\r\n\r\n"),
    ("a line without a colon", b"GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n"),
    ("an empty field name", b"GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n"),
    ("bare line feeds", b"GET / HTTP/1.1\nHost: a\n\nGET /x HTTP/1.1\r\n\r\n"),
    ("one bare line feed", b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n"),
    ("a bare carriage return", b"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n"),
    ("a null byte", b"GET / HTTP/1.1\r\nHost: a\x00b\r\n\r\n"),
    ("HTTP/1.0 with chunked", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("HTTP/2.0", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("no version", b"GET /\r\n\r\n"),
    ("two spaces", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a space in the target", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a chunk size with a sign", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\n"),
    ("a chunk size with a prefix", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n"),
    ("a chunk size with an underscore", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1_0\r\na\r\n0\r\n\r\n"),
    ("an empty chunk size", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\na\r\n0\r\n\r\n"),
    ("an endless chunk size", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\na\r\n0\r\n\r\n"),
    ("a chunk size line that ends bare", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n"),
    ("a chunk that is longer than it says", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n"),
    ("a line feed in a chunk extension", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;a\nb\r\na\r\n0\r\n\r\n"),
    ("a malformed trailer", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nno colon\r\n\r\n"),
)  # fmt: skip


def splits(random: Random, data: bytes) -> list[bytes]:
    """Return `data` in random pieces, in order."""
    pieces = []
    position = 0
    style = random.choice(("whole", "small", "mixed"))
    while position < len(data):
        if style == "whole":
            size = len(data)
        elif style == "small":
            size = random.randint(1, 5)
        else:
            size = random.choice((1, 3, 50, 700, 5000))
        pieces.append(data[position : position + size])
        position += size
    return pieces


def _head(start: str, headers: list[str]) -> bytes:
    return ("\r\n".join((start, *headers)) + "\r\n\r\n").encode("latin-1")


def _body(random: Random) -> bytes:
    size = random.choice((0, 1, 2, 15, 300, 5000))
    if random.random() < 0.3:
        return (b"0\r\n\r\nGET /evil HTTP/1.1\r\nHost: b\r\n\r\n" * (size // 30 + 1))[:size]
    return random.randbytes(size)


def _length(random: Random, size: int) -> str:
    return _cased(random, "Content-Length") + ":" + random.choice(("", " ", "  ", "\t")) + str(size) + random.choice(("", " "))


def _fields(random: Random) -> list[str]:
    fields = []
    for _ in range(random.randint(0, 4)):
        name = _cased(random, random.choice(("X-Odd", "accept", "User-Agent", "x.y!z", "Cookie")))
        value = random.choice(("", "a", "  padded  ", "a, b", "caf\xe9", 'quoted "text"', "folded\r\n  line", "x" * 300))
        fields.append(f"{name}:{random.choice(('', ' '))}{value}")
    return fields


def _cased(random: Random, name: str) -> str:
    return random.choice((name, name.lower(), name.upper(), name.swapcase()))
