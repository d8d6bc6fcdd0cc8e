"""Any bytes give messages or one MalformedBody from aiproxyd.wire.websocket, never any other error, and bounded memory.

    python -m tests.fuzz.fuzz_websocket [SECONDS]

With atheris installed it runs under its coverage guidance; without, it mutates frames at random for so many seconds (default 60).
"""

import random
import sys

from aiproxyd.exceptions import MalformedBody
from aiproxyd.wire.websocket import HEAD_BYTES, MessageFollower
from tests.support.parsers import fuzz
from tests.support.transcripts import random_split
from tests.support.websocket_frames import MASK, Deflater, frame

MAX_MESSAGE_BYTES = 20_000


def _corpus() -> list[bytes]:
    deflater = Deflater(takeover=True)
    text = b'{"type":"response.create","model":"m","input":"' + b"word " * 900 + b'"}'
    return [
        frame(text, mask=MASK) + frame(b"\x03\xe8", 8, mask=MASK),
        frame(deflater(text), rsv=4) + frame(b"", 9) + frame(deflater(text[:100]), rsv=4),
        frame(text[:9], final=False) + frame(b"p", 10) + frame(text[9:99], 0, final=False) + frame(b"", 0, wide=8),
    ]


def test_one_input(data: bytes) -> None:
    """Follow `data` with and without compression, cut anywhere."""
    source = random.Random(len(data))
    for deflate in (False, True):
        follower = MessageFollower(max_message_bytes=MAX_MESSAGE_BYTES, deflate=deflate, takeover=source.random() < 0.5)
        try:
            for chunk in random_split(data, source.randrange(1 << 30)):
                for message in follower.feed(chunk):
                    assert len(message.data) <= MAX_MESSAGE_BYTES
                assert follower.held_bytes <= max(MAX_MESSAGE_BYTES, HEAD_BYTES) + 14
        except MalformedBody:
            assert follower.held_bytes == 0


def main() -> None:
    """Fuzz until a fault, or until the time is over."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    try:
        import atheris
    except ImportError:
        print(f"websocket: {fuzz(test_one_input, _corpus(), seconds)} inputs, no fault")
    else:
        atheris.Setup([sys.argv[0], f"-max_total_time={seconds:.0f}"], test_one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
