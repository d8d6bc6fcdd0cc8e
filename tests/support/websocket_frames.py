"""WebSocket frames written out, so that a test decides about every bit of them."""

import zlib

MASK = b"\x37\xfa\x21\x3d"


def frame(payload: bytes, opcode: int = 1, *, final: bool = True, rsv: int = 0, mask: bytes = b"", wide: int = 0) -> bytes:
    """Serialise one frame; `wide` forces a longer length field than needed."""
    first = (0x80 if final else 0) | rsv << 4 | opcode
    masked = 0x80 if mask else 0
    size = len(payload)
    if size > 0xFFFF or wide == 8:
        head = bytes([first, masked | 127]) + size.to_bytes(8)
    elif size > 125 or wide == 2:
        head = bytes([first, masked | 126]) + size.to_bytes(2)
    else:
        head = bytes([first, masked | size])
    if mask:
        payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return head + mask + payload


class Deflater:
    """Compresses messages as a sender of permessage-deflate does."""

    def __init__(self, *, takeover: bool) -> None:
        self._takeover = takeover
        self._new()

    def _new(self) -> None:
        self._deflate = zlib.compressobj(9, zlib.DEFLATED, -15)

    def __call__(self, data: bytes) -> bytes:
        if not self._takeover:
            self._new()
        out = self._deflate.compress(data) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return out.removesuffix(b"\x00\x00\xff\xff")
