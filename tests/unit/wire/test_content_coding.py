"""The four tests of a decoder for every coding, bombs, and what real senders get wrong."""

import gzip
import random
import sys
import tracemalloc
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from aiproxyd.exceptions import MalformedBody, UnknownContentCoding, WireError
from aiproxyd.wire.content_coding import MAX_FEED_OUTPUT_BYTES, MAX_PIECE_BYTES, ContentDecoder
from tests.support.strategies import CODINGS, coded, cut_by, splits

REAL_CODINGS = ("gzip", "deflate", "br", "zstd")
TEXT = b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hello"}}\n' * 40
PLAIN_CODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": lambda data: brotli.compress(data, quality=4),
    "zstd": zstandard.compress,
}


def decode(codings: list[str], chunks: list[bytes]) -> bytes:
    decoder = ContentDecoder(codings)
    decoded = b"".join(piece for chunk in chunks for piece in decoder.feed(chunk))
    decoder.close()
    return decoded


@given(st.data())
def test_what_was_coded_is_read_back_under_any_split_and_any_stack(data: st.DataObject) -> None:
    body = data.draw(st.one_of(st.binary(max_size=300), st.just(TEXT)))
    codings = data.draw(st.lists(st.sampled_from(CODINGS), max_size=3))
    wire = body
    for coding in codings:
        wire = data.draw(coded(wire, coding))
    assert decode(codings, data.draw(splits(wire))) == body


@given(st.data())
def test_arbitrary_bytes_give_bytes_or_a_wire_error(data: st.DataObject) -> None:
    decoder = ContentDecoder([data.draw(st.sampled_from(REAL_CODINGS))])
    start = data.draw(st.sampled_from([b"", b"\x1f\x8b\x08", b"\x78\x9c", b"\x28\xb5\x2f\xfd", b"\x0b"]))
    try:
        for chunk in [start, *data.draw(st.lists(st.binary(max_size=60), max_size=8))]:
            for piece in decoder.feed(chunk):
                assert 0 < len(piece) <= MAX_PIECE_BYTES
        decoder.close()
    except WireError:
        pass


@pytest.mark.parametrize("coding", REAL_CODINGS)
def test_flipped_bits_never_raise_anything_else(coding: str) -> None:
    wire = PLAIN_CODERS[coding](TEXT)
    for index in range(len(wire)):
        for bit in (1, 128):
            broken = wire[:index] + bytes([wire[index] ^ bit]) + wire[index + 1 :]
            try:
                decode([coding], [broken])
            except MalformedBody:
                pass


@pytest.mark.parametrize("coding", REAL_CODINGS)
def test_a_cut_body_is_told_at_its_end_and_what_came_is_read(coding: str) -> None:
    wire = PLAIN_CODERS[coding](TEXT)
    for end in range(1, len(wire)):
        decoder = ContentDecoder([coding])
        decoded = b"".join(decoder.feed(wire[:end]))
        assert TEXT.startswith(decoded)
        with pytest.raises(MalformedBody, match=f"a {coding} body was cut"):
            decoder.close()


@pytest.mark.parametrize("coding", CODINGS)
def test_a_body_without_bytes_is_whole(coding: str) -> None:
    assert decode([coding], []) == b""
    assert decode([coding], [b"", b""]) == b""


@pytest.mark.parametrize("coding", REAL_CODINGS)
def test_what_is_flushed_is_readable_at_once(coding: str) -> None:
    """An event stream is flushed event by event; a client sees each before the next is made."""
    compressor = {
        "gzip": lambda: zlib.compressobj(wbits=31),
        "deflate": zlib.compressobj,
        "br": brotli.Compressor,
        "zstd": lambda: zstandard.ZstdCompressor().compressobj(),
    }[coding]()
    decoder = ContentDecoder([coding])
    for number in range(5):
        event = b"data: %d\n\n" % number
        if coding == "br":
            wire = compressor.process(event) + compressor.flush()
        elif coding == "zstd":
            wire = compressor.compress(event) + compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        else:
            wire = compressor.compress(event) + compressor.flush(zlib.Z_SYNC_FLUSH)
        assert b"".join(decoder.feed(wire)) == event


def _bomb(coding: str) -> bytes:
    """A few bytes that stand for 256 MiB."""
    zeros = bytes(1 << 20)
    if coding == "br":
        # Its sliding window makes a bomb of ten thousand to one.
        compressor = brotli.Compressor(quality=9)
        return b"".join(compressor.process(zeros) for _ in range(256)) + compressor.finish()
    if coding == "zstd":
        stream = zstandard.ZstdCompressor().compressobj()
        return b"".join(stream.compress(zeros) for _ in range(256)) + stream.flush()
    stream = zlib.compressobj(wbits=31 if coding == "gzip" else 15)
    return b"".join(stream.compress(zeros) for _ in range(256)) + stream.flush()


@pytest.mark.parametrize("coding", REAL_CODINGS)
def test_a_bomb_never_materialises(coding: str) -> None:
    """The attack: some kilobytes that expand to what no machine holds."""
    bomb = _bomb(coding)
    decoder = ContentDecoder([coding], max_feed_output_bytes=1 << 40)
    tracemalloc.start()
    try:
        total = sum(len(piece) for piece in decoder.feed(bomb))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == 256 << 20
    assert peak_bytes < 16 * MAX_PIECE_BYTES
    decoder = ContentDecoder([coding], max_feed_output_bytes=1 << 40)
    assert all(len(piece) <= MAX_PIECE_BYTES for piece in decoder.feed(bomb))


@pytest.mark.parametrize("coding", REAL_CODINGS)
def test_what_one_chunk_may_expand_to_is_limited(coding: str) -> None:
    decoder = ContentDecoder([coding])
    sizes: list[int] = []
    with pytest.raises(MalformedBody, match=f"expands to more than {MAX_FEED_OUTPUT_BYTES} bytes"):
        sizes.extend(len(piece) for piece in decoder.feed(_bomb(coding)))
    assert sum(sizes) <= MAX_FEED_OUTPUT_BYTES


def test_a_bomb_inside_a_bomb_comes_in_small_pieces_too() -> None:
    bomb = gzip.compress(_bomb("gzip"))
    assert len(bomb) < 4096
    largest = total = 0
    for piece in ContentDecoder(["gzip", "gzip"], max_feed_output_bytes=1 << 40).feed(bomb):
        largest = max(largest, len(piece))
        total += len(piece)
    assert (largest <= MAX_PIECE_BYTES, total) == (True, 256 << 20)


def _calls(codings: list[str], wire: bytes) -> int:
    """How many calls, ours and the libraries', decoding takes when the bytes come one at a time."""
    count = 0

    def count_call(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    decoder = ContentDecoder(codings)
    sys.setprofile(count_call)
    try:
        for chunk in cut_by(wire, 1):
            for _ in decoder.feed(chunk):
                pass
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("coding", REAL_CODINGS)
def test_the_cost_is_linear_when_the_bytes_come_one_at_a_time(coding: str) -> None:
    # Nothing but the libraries holds more than four bytes, so calls are the whole of our cost.
    wire = PLAIN_CODERS[coding](bytes(range(256)) * 8)
    twice = PLAIN_CODERS[coding](bytes(range(256)) * 8 + TEXT * 4)
    assert _calls([coding], twice) / len(twice) <= 1.5 * _calls([coding], wire) / len(wire)


def test_a_coding_that_nobody_knows_is_named() -> None:
    with pytest.raises(UnknownContentCoding, match="content coding 'compress' is not one of gzip, deflate, br, zstd, identity"):
        ContentDecoder(["gzip", "compress"])


def test_more_codings_than_anybody_uses_are_refused() -> None:
    with pytest.raises(MalformedBody, match="a body has 5 content codings; the limit is 4"):
        ContentDecoder(["gzip"] * 5)


def test_identity_is_no_coding() -> None:
    assert ContentDecoder([]).is_identity
    assert ContentDecoder(["identity", ""]).is_identity
    assert not ContentDecoder(["identity", "gzip"]).is_identity
    assert decode(["identity"], [b"a", b"", b"b"]) == b"ab"


def test_codings_are_undone_from_the_last() -> None:
    assert decode(["gzip", "zstd"], [zstandard.compress(gzip.compress(TEXT))]) == TEXT


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("size", [1, 5, 1 << 20])
def test_what_follows_the_end_is_ignored(coding: str, size: int) -> None:
    wire = PLAIN_CODERS[coding](TEXT) + b"\n<!-- served by a careless gateway -->"
    assert decode([coding], list(cut_by(wire, size))) == TEXT


@pytest.mark.parametrize("tail", [b"\x1f", b"\x1f\x8b", b"\x1f\x8b\x08"])
def test_a_second_gzip_member_that_was_cut_is_told(tail: bytes) -> None:
    with pytest.raises(MalformedBody, match="a gzip body was cut"):
        decode(["gzip"], list(cut_by(gzip.compress(TEXT) + tail, 1)))


def test_data_that_is_no_frame_is_no_zstd() -> None:
    with pytest.raises(MalformedBody, match="a zstd frame does not begin with its magic number"):
        decode(["zstd"], [b'{"error": 1}'])


def test_a_zstd_window_beyond_what_http_allows_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=24)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    wire = stream.compress(bytes(1 << 20)) + stream.flush()
    with pytest.raises(MalformedBody, match="a zstd body is not zstd data"):
        decode(["zstd"], [wire])


@settings(max_examples=25)
@given(st.data())
def test_a_large_body_comes_whole_and_in_bounded_pieces(data: st.DataObject) -> None:
    coding = data.draw(st.sampled_from(REAL_CODINGS))
    # Bytes that cannot be compressed, and bytes that nearly vanish.
    body = random.Random(data.draw(st.integers(0, 9))).randbytes(400_000) + bytes(900_000)
    wire = PLAIN_CODERS[coding](body)
    decoder = ContentDecoder([coding])
    pieces = [piece for chunk in data.draw(splits(wire)) for piece in decoder.feed(chunk)]
    decoder.close()
    assert b"".join(pieces) == body
    assert max(map(len, pieces)) <= MAX_PIECE_BYTES
