"""Hypothesis strategies: what goes over the wire, made from its grammar together with what it means.

A property that only compares two ways of reading the same bytes is satisfied by a fault that both share. So these strategies
make the meaning first and write it down in every way that the grammar allows.
"""

import gzip
import zlib
from collections.abc import Iterator

import brotli
import zstandard
from hypothesis import strategies as st

from aiproxyd.wire.event_stream import ServerSentEvent

CODINGS = ("gzip", "x-gzip", "deflate", "br", "zstd", "identity")


@st.composite
def splits(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """`data` in chunks: whole, byte by byte, or cut anywhere, with empty chunks among them."""
    match draw(st.sampled_from(["whole", "bytes", "cut", "cut"])):
        case "whole":
            return [data]
        case "bytes" if len(data) <= 4096:
            return [data[index : index + 1] for index in range(len(data))]
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def cut_by(data: bytes, size: int) -> Iterator[bytes]:
    """`data` in chunks of `size` bytes."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


# A value of a field: any bytes but line endings. Alone among them, a lone CR or LF inside would be another line.
_values = st.binary(max_size=40).map(lambda value: value.replace(b"\r", b"").replace(b"\n", b""))
_names = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)


@st.composite
def _field(draw: st.DrawFn, name: bytes, value: bytes) -> bytes:
    if not value and draw(st.booleans()):
        return name
    # Of two spaces after the colon the second belongs to the value.
    needs_space = value.startswith(b" ")
    return name + b":" + (b" " if needs_space or draw(st.booleans()) else b"") + value


@st.composite
def _noise(draw: st.DrawFn) -> bytes:
    """A line that is not blank and means nothing."""
    value = draw(_values)
    name = draw(st.sampled_from([b":", b": ", b"id:", b"retry: ", b"Data: ", b"data :", b"events:", b"\xff:", b" data: "]))
    return name + value


@st.composite
def event_streams(draw: st.DrawFn) -> tuple[list[ServerSentEvent], bytes]:
    """Events, and an event stream that says them."""
    events: list[ServerSentEvent] = []
    lines: list[bytes] = []
    for _ in range(draw(st.integers(0, 6))):
        name = ""
        data: list[bytes] = []
        for _ in range(draw(st.integers(0, 4))):
            match draw(st.sampled_from(["data", "data", "event", "noise"])):
                case "data":
                    data.append(draw(_values))
                    lines.append(draw(_field(b"data", data[-1])))
                case "event":
                    name = draw(_names)
                    lines.append(draw(_field(b"event", name.encode())))
                case "noise":
                    lines.append(draw(_noise()))
        lines += [b""] * draw(st.integers(1, 3))
        if data:
            events.append(ServerSentEvent(name or "message", b"\n".join(data)))
    if lines and draw(st.booleans()):
        # The blank line of the last event never comes; the end of the stream stands for it.
        while lines and not lines[-1]:
            lines.pop()
    stream = b"\xef\xbb\xbf" if draw(st.booleans()) else b""
    ending = b""
    for index, line in enumerate(lines):
        # A CR line followed by an LF blank line is one ending, not two.
        endings = [b"\r", b"\r\n"] if ending == b"\r" and not line else [b"\r", b"\n", b"\r\n"]
        ending = draw(st.sampled_from(endings))
        is_last = index == len(lines) - 1
        stream += line + (b"" if is_last and line and draw(st.booleans()) else ending)
    return events, stream


@st.composite
def coded(draw: st.DrawFn, data: bytes, coding: str) -> bytes:
    """`data` in `coding`, flushed anywhere, in several members or frames where the coding has them."""
    parts = draw(splits(data))
    match coding:
        case "gzip" | "x-gzip":
            return b"".join(map(_gzip_member, _grouped(draw, parts))) + b"\0" * draw(st.integers(0, 3))
        case "deflate":
            wbits = draw(st.sampled_from([15, 9, -15]))
            compressor = zlib.compressobj(level=draw(st.integers(0, 9)), wbits=wbits)
            return (
                b"".join(compressor.compress(part) + compressor.flush(zlib.Z_SYNC_FLUSH) for part in parts) + compressor.flush()
            )
        case "br":
            brotler = brotli.Compressor(quality=draw(st.integers(0, 5)))
            return b"".join(brotler.process(part) + brotler.flush() for part in parts) + brotler.finish()
        case "zstd":
            return b"".join(_zstd_frame(draw, frame) for frame in _grouped(draw, parts))
        case _:
            return data


def _grouped(draw: st.DrawFn, parts: list[bytes]) -> list[list[bytes]]:
    """The parts in one group, or each in its own; one group at least, for no member or frame is no coding."""
    return [[part] for part in parts] if draw(st.booleans()) and parts else [parts]


def _gzip_member(parts: list[bytes]) -> bytes:
    if len(parts) == 1:
        return gzip.compress(parts[0])
    compressor = zlib.compressobj(wbits=31)
    return b"".join(compressor.compress(part) + compressor.flush(zlib.Z_SYNC_FLUSH) for part in parts) + compressor.flush()


def _zstd_frame(draw: st.DrawFn, parts: list[bytes]) -> bytes:
    compressor = zstandard.ZstdCompressor(
        level=draw(st.sampled_from([-5, 1, 3, 19])), write_checksum=draw(st.booleans()), write_content_size=draw(st.booleans())
    )
    skippable = draw(st.sampled_from([b"", b"\x50\x2a\x4d\x18\x00\x00\x00\x00", b"\x5f\x2a\x4d\x18\x03\x00\x00\x00abc"]))
    if len(parts) == 1:
        return skippable + compressor.compress(parts[0])
    stream = compressor.compressobj()
    flushed = b"".join(stream.compress(part) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) for part in parts)
    return flushed + stream.flush(zstandard.COMPRESSOBJ_FLUSH_FINISH) + skippable
