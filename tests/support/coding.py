"""Content codings, the provider's side: encoders that can be flushed after every piece, and whole-body helpers."""

import zlib
from typing import Protocol

import brotli
import zstandard

CODINGS = ("identity", "gzip", "deflate", "br", "zstd")

# The order in which a provider chooses: what its CDN prefers.
_PREFERENCE = ("zstd", "br", "gzip", "deflate")


class Encoder(Protocol):
    """Encodes one body, piece by piece."""

    def encode(self, piece: bytes) -> bytes:
        """Return everything that stands for `piece`, flushed: a decoder gets all of it at once."""

    def finish(self) -> bytes:
        """Return the end of the body."""


class _Identity:
    def encode(self, piece: bytes) -> bytes:
        return piece

    def finish(self) -> bytes:
        return b""


class _Zlib:
    def __init__(self, window_bits: int) -> None:
        self._compressor = zlib.compressobj(6, zlib.DEFLATED, window_bits)

    def encode(self, piece: bytes) -> bytes:
        return self._compressor.compress(piece) + self._compressor.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        return self._compressor.flush()


class _Brotli:
    def __init__(self) -> None:
        self._compressor = brotli.Compressor(quality=4)

    def encode(self, piece: bytes) -> bytes:
        return self._compressor.process(piece) + self._compressor.flush()

    def finish(self) -> bytes:
        return self._compressor.finish()


class _Zstandard:
    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(level=3).compressobj()

    def encode(self, piece: bytes) -> bytes:
        return self._compressor.compress(piece) + self._compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    def finish(self) -> bytes:
        return self._compressor.flush()


def encoder(coding: str) -> Encoder:
    """Return a new encoder for one of CODINGS."""
    match coding:
        case "gzip":
            return _Zlib(31)
        case "deflate":
            return _Zlib(15)
        case "br":
            return _Brotli()
        case "zstd":
            return _Zstandard()
        case _:
            return _Identity()


def encode(coding: str, body: bytes) -> bytes:
    """Return `body` in `coding`."""
    stream = encoder(coding)
    return stream.encode(body) + stream.finish()


def decode(coding: str, body: bytes) -> bytes:
    """Return what `body` stands for in `coding`."""
    match coding:
        case "gzip":
            return zlib.decompress(body, 31)
        case "deflate":
            return zlib.decompress(body)
        case "br":
            return brotli.decompress(body)
        case "zstd":
            return zstandard.ZstdDecompressor().decompressobj().decompress(body)
        case _:
            return body


def chosen(accept_encoding: str) -> str:
    """Return the coding a provider answers with."""
    offered = {word.partition(";")[0].strip() for word in accept_encoding.split(",")}
    return next((coding for coding in _PREFERENCE if coding in offered), "identity")
