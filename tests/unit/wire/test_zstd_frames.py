"""Cuts are checked against frames whose blocks are known, and against the library by test_content_coding."""

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.exceptions import MalformedBody
from aiproxyd.wire.zstd_frames import FrameCutter
from tests.support.strategies import coded, cut_by, splits

MAGIC = b"\x28\xb5\x2f\xfd"
SINGLE_SEGMENT_OF_9 = MAGIC + b"\x20\x09"


def block(kind: int, size: int, content: bytes, *, is_last: bool = False) -> bytes:
    return (size << 3 | kind << 1 | is_last).to_bytes(3, "little") + content


ROWS = [
    ("nothing", [], True),
    ("a raw block", [(SINGLE_SEGMENT_OF_9 + block(0, 2, b"ab", is_last=True), False), (b"", True)], True),
    ("an RLE block is one byte", [(SINGLE_SEGMENT_OF_9 + block(1, 9, b"x", is_last=True), False), (b"", True)], True),
    (
        "two blocks and a checksum",
        [(MAGIC + b"\x04\x58" + block(0, 1, b"a"), False), (block(0, 0, b"", is_last=True), False), (b"sum!", True)],
        True,
    ),
    (
        "the longest header",
        [(MAGIC + b"\xc3\x58" + b"dict" + b"contents" + block(0, 0, b"", is_last=True), False), (b"", True)],
        True,
    ),
    ("a skippable frame", [(b"\x5a\x2a\x4d\x18\x03\x00\x00\x00abc", True)], True),
    ("an empty skippable frame", [(b"\x50\x2a\x4d\x18\x00\x00\x00\x00", True)], True),
    ("a frame cut in its magic number", [(MAGIC[:3], False)], False),
    ("a frame cut in a block", [(SINGLE_SEGMENT_OF_9 + block(0, 2, b"a"), False)], False),
    ("a frame cut between blocks", [(MAGIC + b"\x00\x58" + block(0, 1, b"a"), False)], False),
    ("a frame without its checksum", [(MAGIC + b"\x04\x58" + block(0, 0, b"", is_last=True), False), (b"su", False)], False),
]


@pytest.mark.parametrize(("pieces", "is_whole"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_it_cuts_at_the_ends_of_blocks_and_frames(pieces: list[tuple[bytes, bool]], is_whole: bool) -> None:
    wire = b"".join(piece for piece, _ in pieces)
    cutter = FrameCutter()
    assert list(cutter.cut(wire)) == pieces
    assert cutter.is_between_frames is is_whole
    cutter = FrameCutter()
    cut = [piece for chunk in cut_by(wire, 1) for piece in cutter.cut(chunk)]
    assert b"".join(piece for piece, _ in cut) == wire
    assert sum(ends for _, ends in cut) == sum(ends for _, ends in pieces)
    assert cutter.is_between_frames is is_whole


@given(st.data())
def test_nothing_is_lost_and_no_piece_crosses_a_frames_end(data: st.DataObject) -> None:
    wire = data.draw(coded(data.draw(st.binary(max_size=400)), "zstd"))
    cutter = FrameCutter()
    pieces = [piece for chunk in data.draw(splits(wire)) for piece in cutter.cut(chunk)]
    assert b"".join(piece for piece, _ in pieces) == wire
    assert cutter.is_between_frames
    frame = b""
    for piece, ends_frame in pieces:
        frame += piece
        if ends_frame:
            if frame.startswith(MAGIC):
                zstandard.ZstdDecompressor().decompressobj().decompress(frame)
            frame = b""
    assert frame == b""


@given(st.lists(st.binary(max_size=60), max_size=10))
def test_arbitrary_bytes_are_cut_or_refused_and_at_most_a_field_is_held(chunks: list[bytes]) -> None:
    cutter = FrameCutter()
    fed = given_back = 0
    for chunk in chunks:
        try:
            given_back += sum(len(piece) for piece, _ in cutter.cut(chunk))
        except MalformedBody:
            return
        fed += len(chunk)
        assert given_back == fed
        assert len(cutter._field) < 4
