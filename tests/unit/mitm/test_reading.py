"""The body of a request: whole, coded, too large, cut; what it says, and what is let go."""

import gzip
import json

import pytest

from aiproxyd.mitm.decrypted import TapSettings
from aiproxyd.mitm.reading import RequestReading, decoder_for
from aiproxyd.model.head import Headers, RequestHead
from aiproxyd.providers.apis import APIS

API = APIS["openai.chat_completions"]
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}).encode()


def read(pieces: list[bytes], *fields: tuple[str, str], limit: int = 1000) -> RequestReading:
    head = RequestHead("POST", "/v1/chat/completions", Headers(fields))
    reading = RequestReading(head.headers, limit)
    for piece in pieces:
        reading.feed(piece)
    reading.close(API, head, "Unknown", TapSettings())
    return reading


@pytest.mark.parametrize("coding", [None, "gzip"])
def test_a_body_is_read_when_it_is_whole(coding: str | None) -> None:
    sent = gzip.compress(BODY) if coding else BODY
    reading = read([sent[:9], sent[9:]], *([("content-encoding", coding)] if coding else []))
    assert (reading.facts.prompt, reading.anomaly, reading.origin) == ("Hi", "", {"initiated_by": "human"})
    assert reading.received_bytes == len(sent)


@pytest.mark.parametrize(
    ("pieces", "coding", "anomaly"),
    [
        ([BODY], "rot13", "request body: content coding 'rot13' is not one of"),
        ([BODY * 20, b"more"], "", "request body exceeds 1000 bytes"),
        ([gzip.compress(BODY, mtime=0)[:20]], "gzip", "request body: "),
        ([b"no gzip", b"more"], "gzip", "request body: "),
    ],
)
def test_what_cannot_be_read_is_an_anomaly(pieces: list[bytes], coding: str, anomaly: str) -> None:
    reading = read(pieces, *([("content-encoding", coding)] if coding else []))
    assert reading.anomaly.startswith(anomaly)
    assert reading.facts.prompt is None
    assert reading.received_bytes == sum(map(len, pieces))


def test_after_giving_up_nothing_is_read() -> None:
    reading = RequestReading(Headers(), 1000)
    reading.feed(BODY)
    reading.give_up("because")
    reading.close(API, RequestHead("POST", "/", Headers()), "Unknown", TapSettings())
    assert (reading.anomaly, reading.facts.prompt) == ("because", None)


def test_identity_needs_no_decoder() -> None:
    assert decoder_for(Headers()) is None
    assert decoder_for(Headers([("content-encoding", "identity")])) is None
    assert decoder_for(Headers([("content-encoding", "br")])) is not None
