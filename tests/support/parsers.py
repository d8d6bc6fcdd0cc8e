"""What every parser of a response body must hold, whatever its API. The twins of the API modules call these with their own data."""

import contextlib
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from aiproxyd.exceptions import WireError
from aiproxyd.providers.api import Api, RequestFacts, ResponseParser
from aiproxyd.wire.content_coding import ContentDecoder
from tests.support import coding
from tests.support.transcripts import Transcript, bytewise, parse, random_split, request_summary, result, splits, summary


def check_meaning(transcript: Transcript) -> None:
    """Both halves of a conversation mean what its files say, and a cut anywhere changes nothing."""
    facts = transcript.api.read_request(transcript.request, transcript.head())
    assert request_summary(facts, transcript.expected_request["anomaly"]) == transcript.expected_request
    found, events = result(transcript)
    assert found == transcript.expected_result
    if transcript.status < 400:
        for name, chunks in splits(transcript.response):
            assert result(transcript, chunks)[1] == events, name


def check_codings(transcript: Transcript) -> None:
    """The response means the same under each content coding."""
    if transcript.status >= 400:
        return
    for name in coding.CODINGS:
        coded = coding.encode(name, transcript.response)
        chunks = random_split(coded, seed=len(coded)) if len(coded) < 1 << 20 else [coded]
        assert result(transcript, list(_decoded(name, chunks)))[0] == transcript.expected_result, name


def _decoded(name: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
    decoder = ContentDecoder([name])
    for chunk in chunks:
        yield from decoder.feed(chunk)
    decoder.close()


def check_written(api: Api, expected: dict[str, Any], stream: bytes, chunks: Iterable[bytes]) -> None:
    """A stream that a grammar wrote means what the grammar said, whole and as `chunks`."""
    for way in ([stream], chunks):
        events, failure = parse(api.stream_parser(len(stream) + 1), way)
        assert _in_any_order(summary(events, failure, "")) == _in_any_order(expected)


def _in_any_order(found: dict[str, Any]) -> dict[str, Any]:
    """Return a summary without the order of its parts, which a grammar that interleaves them does not keep."""
    return found | {key: sorted(found[key], key=str) for key in ("thoughts", "tools")}


def check_total(make: Callable[[int], ResponseParser], chunks: Iterable[bytes], max_bytes: int) -> None:
    """Any bytes give events or one WireError, after which the parser is spent; and it never holds more than its limit."""
    parser: Any = make(max_bytes)
    try:
        for chunk in chunks:
            parser.feed(chunk)
            assert parser.held_bytes <= max_bytes + len(chunk)
        parser.close()
    except WireError:
        for again in (lambda: parser.feed(b""), parser.close):
            with contextlib.suppress(WireError):
                again()
                raise AssertionError("a parser that raised goes on")


def check_broken(api: Api, transcripts: Sequence[Transcript], seed: int) -> None:
    """A conversation that is broken somewhere, which one and where by `seed`, gives events or one WireError, and facts of its request."""
    source = random.Random(seed)
    case = source.choice([case for case in transcripts if len(case.response) < 1 << 16])
    response = mutated(case.response, source)
    make = api.stream_parser if case.is_stream else api.document_parser
    check_total(make, bytewise(response), source.choice([200, 1 << 20]))
    api.read_error(source.choice([400, 401, 429, 500, 529, 599]), response)
    assert isinstance(api.read_request(mutated(case.request, source), case.head()), RequestFacts)


def mutated(data: bytes, source: random.Random) -> bytes:
    """Return `data` with a few bytes changed, removed, repeated or put in."""
    body = bytearray(data)
    for _ in range(source.randrange(1, 6)):
        at = source.randrange(len(body) + 1)
        match source.randrange(4):
            case 0:
                del body[at : at + source.randrange(1, 20)]
            case 1:
                body[at:at] = source.randbytes(source.randrange(1, 8))
            case 2:
                body[at:at] = body[at : at + source.randrange(1, 200)]
            case _:
                body[at : at + 1] = source.choice(
                    [b'"', b"\\", b"{", b"}", b"[", b"\n", b"\r", b"null", b"1", b"-", b"\xff", b"true"]
                )
    return bytes(body)


class Looks:
    """Counts how many bytes of JSON a module decodes, through its `decode`."""

    def __init__(self, decode: Callable[[Any, Any], Any]) -> None:
        self._decode = decode
        self.decoded_bytes = 0

    def __call__(self, decoder: Any, data: Any) -> Any:
        self.decoded_bytes += len(data)
        return self._decode(decoder, data)


def fuzz(make_input: Callable[[bytes], None], corpus: list[bytes], seconds: float) -> int:
    """Call `make_input` with mutations of `corpus` for `seconds`; return how many. The plain stand-in for atheris."""
    source = random.Random(0)
    end = time.monotonic() + seconds
    runs = 0
    while time.monotonic() < end:
        make_input(mutated(source.choice(corpus), source))
        runs += 1
    return runs
