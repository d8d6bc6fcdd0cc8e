"""Undoes content codings (RFC 9110 §8.4) as the bytes come: gzip, deflate, br, zstd, and several stacked. Codes nothing.

Facts:
- `Content-Encoding: gzip, zstd` names the codings in the order they were applied; they are undone from the last.
- `deflate` means the zlib format (RFC 1950), and some senders leave its wrapper away (RFC 9110 §8.4.1.2).
- gzip data is a series of members (RFC 1952 §2.2), zstd data a series of frames (RFC 8878 §3.1). `x-gzip` is gzip.

Strategy: a chunk of 64 KiB may stand for 64 MiB of gzip's output and 2 GiB of zstd's. So output comes from iterators, in
pieces of at most `MAX_PIECE_BYTES`, and the consumer may stop between any two of them: nothing ever holds the whole. What one
chunk may expand to is limited besides, since expanding takes time that other connections wait for.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

import brotli
import zstandard

from aiproxyd.exceptions import MalformedBody, UnknownContentCoding
from aiproxyd.wire.zstd_frames import FrameCutter

MAX_PIECE_BYTES: Final = 256 << 10
"""Most bytes of output in one piece."""

MAX_FEED_OUTPUT_BYTES: Final = 64 << 20
"""Most bytes one call of `feed` may expand to. A chunk of 64 KiB meets it at 1024 to 1, which is the most that gzip can do."""

# The libraries copy what they have not yet consumed for each piece of output, so they get their input in slices of this size:
# then the copies are at most an eighth of the output, whatever the size of a chunk.
_MAX_SLICE_BYTES: Final = 32 << 10

MAX_STACKED_CODINGS: Final = 4
"""Most codings on one body. Real ones have one, rarely two."""

# RFC 9659: a zstd window in HTTP is at most 8 MiB. It is what a decoder may have to allocate for one body.
_MAX_ZSTD_WINDOW_BYTES: Final = 8 << 20

_GZIP_MAGIC: Final = b"\x1f\x8b"


class _Decoder(Protocol):
    """One coding. After an exception it is spent."""

    def feed(self, data: bytes) -> Iterator[bytes]: ...

    def close(self) -> None:
        """Raises MalformedBody if the body was cut."""


class ContentDecoder:
    """Undoes the codings of one body. Any split of the body into calls gives the same bytes."""

    __slots__ = ("_decoders", "_max_feed_output_bytes")

    def __init__(self, codings: Iterable[str], *, max_feed_output_bytes: int = MAX_FEED_OUTPUT_BYTES) -> None:
        """Return a decoder at the start of a body.

        Args:
            codings: Lower-case, in the order of `Content-Encoding`; `identity` and empty ones count for nothing.
            max_feed_output_bytes: Most bytes that one call of `feed` may give.

        Raises:
            UnknownContentCoding: One of `codings` is not known. The body cannot be read; forward it.
            MalformedBody: There are more than `MAX_STACKED_CODINGS`.
        """
        makers: list[Callable[[], _Decoder]] = []
        for coding in codings:
            if coding in {"", "identity"}:
                continue
            maker = _DECODERS.get(coding)
            if maker is None:
                raise UnknownContentCoding(coding)
            makers.append(maker)
        if len(makers) > MAX_STACKED_CODINGS:
            raise MalformedBody(f"a body has {len(makers)} content codings; the limit is {MAX_STACKED_CODINGS}")
        self._decoders = [maker() for maker in reversed(makers)]
        self._max_feed_output_bytes = max_feed_output_bytes

    @property
    def is_identity(self) -> bool:
        """Whether the bytes are what they are, so that decoding can be left out."""
        return not self._decoders

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what `data` decodes to, in pieces of at most `MAX_PIECE_BYTES`, none of them empty.

        The iterator must be used up before the next call, or the decoder never be used again.

        Raises:
            MalformedBody: The bytes are not of the coding, or expand to more than the limit. The decoder is then spent.
        """
        if self._decoders:
            return self._limited(self._expanded(data, 0))
        return iter((data,) if data else ())

    def close(self) -> None:
        """Take note of the body's end. A body without any bytes is whole, whatever its coding.

        Raises:
            MalformedBody: The body was cut in the middle of a coding.
        """
        for decoder in self._decoders:
            decoder.close()

    def _expanded(self, data: bytes, depth: int) -> Iterator[bytes]:
        if depth == len(self._decoders):
            yield data
            return
        decoder = self._decoders[depth]
        for start in range(0, len(data), _MAX_SLICE_BYTES):
            for piece in decoder.feed(data[start : start + _MAX_SLICE_BYTES]):
                yield from self._expanded(piece, depth + 1)

    def _limited(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        output_bytes = 0
        for piece in pieces:
            output_bytes += len(piece)
            if output_bytes > self._max_feed_output_bytes:
                raise MalformedBody(f"a chunk expands to more than {self._max_feed_output_bytes} bytes")
            yield piece


class _Zlib:
    """The zlib format, or deflate data without its wrapper. What follows its end is ignored, as clients do."""

    __slots__ = ("_inflater", "_start")

    def __init__(self) -> None:
        self._start = b""
        self._inflater: zlib._Decompress | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._inflater is None:
            # Two bytes tell whether there is a wrapper: RFC 1950 §2.2 makes them a multiple of 31. Data without it would have
            # to begin with an uncompressed block and a padding bit that encoders leave zero.
            self._start += data
            if len(self._start) < 2:
                return
            is_wrapped = self._start[0] & 0x0F == 8 and int.from_bytes(self._start[:2]) % 31 == 0
            self._inflater = zlib.decompressobj(zlib.MAX_WBITS if is_wrapped else -zlib.MAX_WBITS)
            data, self._start = self._start, b""
        if not self._inflater.eof:
            yield from _inflated(self._inflater, data, "deflate")

    def close(self) -> None:
        if self._start or (self._inflater is not None and not self._inflater.eof):
            raise MalformedBody("a deflate body was cut")


class _Gzip:
    """Members one after the other. What follows one and is none is ignored with all behind it, as `gzip` and clients do."""

    __slots__ = ("_has_ended", "_inflater", "_is_first", "_start")

    def __init__(self) -> None:
        self._inflater: zlib._Decompress | None = None
        """Of the current member; None between members."""
        self._is_first = True
        self._start = b""
        """Up to one byte between members, that may begin a magic number."""
        self._has_ended = False
        """Whether a member ended and no other may begin."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data and not self._has_ended:
            if self._inflater is None:
                data, self._start = self._start + data, b""
                if data == _GZIP_MAGIC[:1]:
                    self._start = data
                    return
                if not self._is_first and not data.startswith(_GZIP_MAGIC):
                    self._has_ended = True
                    return
                self._inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
                self._is_first = False
            yield from _inflated(self._inflater, data, "gzip")
            if not self._inflater.eof:
                return
            data = self._inflater.unused_data
            self._inflater = None

    def close(self) -> None:
        if self._inflater is not None or self._start:
            raise MalformedBody("a gzip body was cut")


def _inflated(inflater: "zlib._Decompress", data: bytes, coding: str) -> Iterator[bytes]:
    while True:
        try:
            piece = inflater.decompress(data, MAX_PIECE_BYTES)
        except zlib.error as exc:
            raise MalformedBody(f"a {coding} body is not {coding} data: {exc}") from exc
        if piece:
            yield piece
        data = inflater.unconsumed_tail
        # A full piece may have left output behind although all input was taken.
        if inflater.eof or (not data and len(piece) < MAX_PIECE_BYTES):
            return


class _Brotli:
    __slots__ = ("_decompressor", "_has_data")

    def __init__(self) -> None:
        self._decompressor = brotli.Decompressor()
        self._has_data = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        is_all_out = self._decompressor.is_finished() or not data
        while not is_all_out:
            self._has_data = True
            try:
                piece = self._decompressor.process(data, output_buffer_limit=MAX_PIECE_BYTES)
            except brotli.error as exc:
                raise MalformedBody("a br body is not br data") from exc
            data = b""
            yield from _cut(piece)
            # Output may be left behind although it says that more input is welcome.
            is_all_out = self._decompressor.is_finished() or (
                len(piece) < MAX_PIECE_BYTES and self._decompressor.can_accept_more_data()
            )

    def close(self) -> None:
        if self._has_data and not self._decompressor.is_finished():
            raise MalformedBody("a br body was cut")


def _cut(piece: bytes) -> Iterator[bytes]:
    """Yield `piece` in parts within the limit: brotli's buffer grows in blocks and overshoots it."""
    for start in range(0, len(piece), MAX_PIECE_BYTES):
        yield piece[start : start + MAX_PIECE_BYTES]


class _Zstd:
    __slots__ = ("_cutter", "_decompressor", "_frame")

    def __init__(self) -> None:
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW_BYTES)
        self._frame = self._decompressor.decompressobj()
        self._cutter = FrameCutter()

    def feed(self, data: bytes) -> Iterator[bytes]:
        for compressed, ends_frame in self._cutter.cut(data):
            if compressed:
                try:
                    piece = self._frame.decompress(compressed)
                except zstandard.ZstdError as exc:
                    raise MalformedBody(f"a zstd body is not zstd data: {exc}") from exc
                if piece:
                    yield from _cut(piece)
            if ends_frame:
                self._frame = self._decompressor.decompressobj()

    def close(self) -> None:
        if not self._cutter.is_between_frames:
            raise MalformedBody("a zstd body was cut")


_DECODERS: Final[dict[str, Callable[[], _Decoder]]] = {
    "gzip": _Gzip,
    "x-gzip": _Gzip,
    "deflate": _Zlib,
    "br": _Brotli,
    "zstd": _Zstd,
}
