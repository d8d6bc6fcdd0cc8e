"""Where the frames and blocks of zstd data begin and end. Not a decompressor: the library does that.

Facts (RFC 8878 §3.1): data is a series of frames. A frame is a magic number, a header of 2 to 14 bytes, blocks, and four bytes
of checksum if the header says so. A block has a header of 3 bytes: whether it is the last, its type and its size. It never
decompresses to more than 128 KiB. A skippable frame is a magic number, a size and so many bytes.

Why this exists: the binding's streaming object returns all that an input decompresses to in one piece, and a block of four
bytes may stand for 128 KiB: a chunk of 64 KiB for 2 GiB. Cut at block ends, no piece exceeds 128 KiB. It also knows whether a
frame is whole, which the binding does not tell.
"""

import enum
from collections.abc import Generator, Iterator
from typing import Final

from aiproxyd.exceptions import MalformedBody

_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_SKIPPABLE_MAGIC_REST: Final = b"\x2a\x4d\x18"
_RLE_BLOCK: Final = 1

# Sizes of the frame header's fields by the bits of its descriptor (RFC 8878 §3.1.1.1.1).
_DICTIONARY_ID_BYTES: Final = (0, 1, 2, 4)
_CONTENT_SIZE_BYTES: Final = (0, 2, 4, 8)


class _Step(enum.Enum):
    """What the walk asks for next."""

    READ = enum.auto()
    PASS_OVER = enum.auto()
    END_BLOCK = enum.auto()
    END_FRAME = enum.auto()


class FrameCutter:
    """Cuts data at the ends of blocks and frames. Holds at most 3 bytes."""

    __slots__ = ("_field", "_missing_bytes", "_step", "_walk", "is_between_frames")

    def __init__(self) -> None:
        self._walk = _walk()
        self._field = b""
        """What has come of the field that is being read."""
        self._step, self._missing_bytes = next(self._walk)
        self.is_between_frames = True
        """Whether everything so far belongs to whole frames."""

    def cut(self, data: bytes) -> Iterator[tuple[bytes, bool]]:
        """Yield all of `data` in pieces of at most one block each, and with each whether it ends a frame. A piece may be empty.

        Raises:
            MalformedBody: No frame begins where one must. The cutter is then spent.
        """
        start = position = 0
        while True:
            field = b""
            if self._step in {_Step.END_BLOCK, _Step.END_FRAME}:
                self.is_between_frames = self._step is _Step.END_FRAME
                yield data[start:position], self.is_between_frames
                start = position
            else:
                taken = min(self._missing_bytes, len(data) - position)
                if taken:
                    self.is_between_frames = False
                if self._step is _Step.READ:
                    self._field += data[position : position + taken]
                position += taken
                self._missing_bytes -= taken
                if self._missing_bytes:
                    break
                field, self._field = self._field, b""
            self._step, self._missing_bytes = self._walk.send(field)
        if start < position:
            yield data[start:position], False


def _walk() -> Generator[tuple[_Step, int], bytes, None]:
    """Yield what comes next and its size in bytes; is sent each field that was read."""
    while True:
        magic = yield _Step.READ, 4
        if magic[0] & 0xF0 == 0x50 and magic[1:] == _SKIPPABLE_MAGIC_REST:
            size = yield _Step.READ, 4
            yield _Step.PASS_OVER, int.from_bytes(size, "little")
            yield _Step.END_FRAME, 0
            continue
        if magic != _MAGIC:
            raise MalformedBody("a zstd frame does not begin with its magic number")
        descriptor = (yield _Step.READ, 1)[0]
        is_single_segment = descriptor >> 5 & 1
        content_size_bytes = _CONTENT_SIZE_BYTES[descriptor >> 6] or is_single_segment
        window_bytes = 1 - is_single_segment
        yield _Step.PASS_OVER, window_bytes + _DICTIONARY_ID_BYTES[descriptor & 3] + content_size_bytes
        is_last = 0
        while not is_last:
            header = int.from_bytes((yield _Step.READ, 3), "little")
            is_last = header & 1
            yield _Step.PASS_OVER, 1 if header >> 1 & 3 == _RLE_BLOCK else header >> 3
            yield _Step.END_BLOCK, 0
        if descriptor & 4:
            yield _Step.PASS_OVER, 4
        yield _Step.END_FRAME, 0
