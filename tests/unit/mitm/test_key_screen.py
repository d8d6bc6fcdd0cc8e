"""Answers that repeat the operator's key, on real sockets: what the client gets, and what it never gets."""

import asyncio
import contextlib
import gzip
import json
import zlib

import pytest
import zstandard

from aiproxyd.mitm.decrypted import AbortedBy
from aiproxyd.mitm.key_screen import MAX_WITHHELD_BYTES, KeyScreen
from aiproxyd.model.credential import UpstreamKey
from aiproxyd.model.head import Headers, ResponseHead
from aiproxyd.provider_errors import ErrorShape, answer
from aiproxyd.redaction import forms_of
from aiproxyd.upstream import UpstreamRules
from aiproxyd.wire.http1 import Data, End, Head, Interim, Opaque
from tests.unit.mitm.stage import read_response, stage

LOOPS = "both"

KEY, OTHER = "sk-ant/first+0123456789aaaa", "sk-ant-second-0123456789bbbb"
RULES = UpstreamRules("anthropic", "anthropic", keys=(UpstreamKey(KEY), UpstreamKey(OTHER)))
POST = b"POST /v1/messages HTTP/1.1\r\nHost: api.anthropic.com\r\nContent-Length: 2\r\n\r\n{}"
REPEATED = json.dumps({"type": "error", "error": {"message": f"the key {KEY} may not do that"}}).encode()
CLEARED = REPEATED.replace(KEY.encode(), b"[hidden]")


def whole(body, fields=b"", status=b"400 Bad Request"):
    return b"HTTP/1.1 %s\r\nX-Odd:  1\r\n%sContent-Length: %d\r\n\r\n%s" % (status, fields, len(body), body)


def chunked(body, size=7, fields=b"", trailer=b""):
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[i : i + size] for i in range(0, len(body), size)))
    return b"HTTP/1.1 400 Bad Request\r\n%sTransfer-Encoding: chunked\r\n\r\n%s0\r\n%s\r\n" % (fields, chunks, trailer)


async def answers(tmp_path, raw, *, pieces=1, close=False, rules=RULES, requests=1, tail=b""):
    """Return what a client gets whose provider answers with `raw`, and what the tap saw."""

    async def provider(reader, writer):
        for _ in range(requests):
            await reader.readuntil(b"\r\n\r\n{}")
            step = -(-len(raw) // pieces)
            for start in range(0, len(raw), step):
                writer.write(raw[start : start + step])
                await writer.drain()
                await asyncio.sleep(0.001)
        if not close:
            await reader.read()

    async with stage(tmp_path, provider, rules=rules) as s:
        reader, writer = await s.decrypt()
        received = b""
        for _ in range(requests):
            writer.write(POST)
            if close:
                received += await reader.read()
            else:
                received += await read_response(reader)
                if b"chunked" in received:
                    received += await reader.readuntil(b"\r\n0\r\n" + tail + b"\r\n")
        writer.close()
        return received, s.tap.requests


def body_of(received):
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"content-length: %d" % len(body) in head.lower()
    assert b"encoding" not in head.lower()
    return body


@pytest.mark.parametrize("pieces", [1, 9])
async def test_an_error_that_repeats_the_key_goes_on_without_it_and_with_its_length(tmp_path, pieces):
    received, (seen,) = await answers(tmp_path, whole(REPEATED, b"Retry-After: 3\r\n"), pieces=pieces)
    assert received == whole(CLEARED, b"Retry-After: 3\r\n")
    # What is told is what the provider said; records hide it by themselves.
    assert (seen.response, seen.calls[-1]) == (REPEATED, "response_end")


@pytest.mark.parametrize("pieces", [1, 9])
async def test_an_error_without_the_key_goes_on_byte_for_byte(tmp_path, pieces):
    for raw in (whole(b'{"error": "no"}'), chunked(b'{"error": "no"}', fields=b"x-Y:z \r\n", trailer=b"T: 1\r\n")):
        received, _ = await answers(tmp_path, raw, pieces=pieces, tail=b"T: 1\r\n")
        assert received == raw


async def test_the_connection_is_kept_and_the_next_request_is_answered(tmp_path):
    received, seen = await answers(tmp_path, whole(REPEATED), requests=3)
    assert received == whole(CLEARED) * 3
    assert len(seen) == 3


async def test_a_key_that_is_split_by_chunks_is_found(tmp_path):
    received, _ = await answers(tmp_path, chunked(REPEATED, fields=b"ETag: x\r\n"), pieces=5)
    assert body_of(received) == CLEARED
    assert b"ETag" not in received


@pytest.mark.parametrize(
    ("coding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("zstd", zstandard.ZstdCompressor().compress)]
)
async def test_a_key_below_a_content_coding_is_found(tmp_path, coding, compress):
    fields = f"Content-Encoding: {coding}\r\n".encode()
    received, _ = await answers(tmp_path, whole(compress(REPEATED), fields))
    assert body_of(received) == CLEARED
    untouched = whole(compress(b'{"error": "no"}'), fields)
    assert (await answers(tmp_path, untouched))[0] == untouched


async def test_an_answer_that_ends_with_its_connection_is_looked_through(tmp_path):
    received, (seen,) = await answers(tmp_path, b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n" + REPEATED, close=True)
    assert body_of(received) == CLEARED
    assert seen.calls[-1] == "response_end"


@pytest.mark.parametrize("status", [b"200 OK", b"302 Found", b"400 Bad Request"])
async def test_a_key_in_a_header_is_hidden_whatever_the_status(tmp_path, status):
    fields = f"Location: https://example.com/?key={KEY.replace('/', '%2F').replace('+', '%2B')}\r\nX-Key: {OTHER}\r\n".encode()
    received, _ = await answers(tmp_path, whole(b"", fields, status))
    assert received == whole(b"", b"Location: https://example.com/?key=[hidden]\r\nX-Key: [hidden]\r\n", status)


@pytest.mark.parametrize("form", [KEY.replace("/", "\\/"), KEY.replace("/", "%2F").replace("+", "%2B"), OTHER])
async def test_every_key_of_the_entry_is_found_however_it_is_escaped(tmp_path, form):
    assert (await answers(tmp_path, whole(b"no: " + form.encode())))[0] == whole(b"no: [hidden]")


async def test_what_cannot_be_looked_through_is_replaced(tmp_path):
    for raw in (
        whole(b"x" * (MAX_WITHHELD_BYTES + 1), status=b"503 Service Unavailable"),
        whole(b"\x1f\x8bnothing", b"Content-Encoding: gzip\r\n", b"503 Service Unavailable"),
        whole(gzip.compress(b"x" * (MAX_WITHHELD_BYTES + 1)), b"Content-Encoding: gzip\r\n", b"503 Service Unavailable"),
        whole(b"what is it", b"Content-Encoding: rot13\r\n", b"503 Service Unavailable"),
    ):
        received, (seen,) = await answers(tmp_path, raw)
        assert received.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        error = json.loads(body_of(received))["error"]
        assert error["type"] == "overloaded_error"
        assert "could not be looked through" in error["message"]
        assert seen.calls[-1] == "response_end"


async def test_an_error_that_breaks_off_is_not_shown_by_halves(tmp_path):
    received, (seen,) = await answers(tmp_path, whole(REPEATED)[:-4], close=True)
    assert received == b""
    assert seen.aborted is AbortedBy.UPSTREAM


async def test_an_error_that_stops_being_http_is_not_shown(tmp_path):
    broken = chunked(REPEATED)[:-30] + b"what is this\r\n" + KEY.encode()

    async def provider(reader, writer):
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(broken)
        await reader.read()

    async with stage(tmp_path, provider, rules=RULES) as s:
        reader, writer = await s.decrypt()
        writer.write(POST)
        received = b"nothing"
        with contextlib.suppress(ConnectionResetError):
            received = await reader.read()
        assert received in {b"", b"nothing"}
        (seen,) = s.tap.requests
        assert seen.aborted is AbortedBy.UPSTREAM
        writer.close()


async def test_a_client_s_own_key_is_its_own(tmp_path):
    async def provider(reader, writer):
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(whole(b"sk-ant-mine is no good"))
        await reader.read()

    async with stage(tmp_path, provider, rules=RULES) as s:
        reader, writer = await s.decrypt()
        writer.write(POST.replace(b"Host", b"x-api-key: sk-ant-mine\r\nHost"))
        assert await read_response(reader) == whole(b"sk-ant-mine is no good")
        writer.close()


# Without sockets: what pieces come to.


def screen():
    return KeyScreen("p", forms_of([KEY, OTHER]), lambda status, text: answer(status, text, ErrorShape.GENERIC))


def test_a_success_flows_piece_by_piece():
    looking = screen()
    head = Head(b"HTTP/1.1 200 OK\r\n\r\n", ResponseHead(200, Headers()))
    assert looking.passed(Interim(f"HTTP/1.1 103 Early Hints\r\nLink: {OTHER}\r\n\r\n".encode(), 103)).endswith(
        b"Link: [hidden]\r\n\r\n"
    )
    for piece in (head, Data(b"1\r\na\r\n", b"a"), End(b"0\r\n\r\n")):
        assert looking.passed(piece) == piece.raw
        assert not looking.is_withholding
    assert looking.passed(Opaque(b"bytes")) == b"bytes"


def test_the_answer_to_a_head_keeps_the_length_it_speaks_of():
    looking = screen()
    raw = f"HTTP/1.1 404 Not Found\r\nX: {OTHER}\r\nContent-Length: 99\r\n\r\n".encode()
    assert looking.passed(Head(raw, ResponseHead(404, Headers([("content-length", "99")])))) == b""
    assert looking.is_withholding
    assert looking.passed(End()) == raw.replace(OTHER.encode(), b"[hidden]")
    assert not looking.is_withholding


def test_a_redirection_that_cannot_be_looked_through_is_an_error():
    looking = screen()
    head = ResponseHead(302, Headers([("content-encoding", "rot13")]))
    looking.passed(Head(b"HTTP/1.1 302 Found\r\n\r\n", head))
    looking.passed(Data(b"x", b"x"))
    assert looking.passed(End()).startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
