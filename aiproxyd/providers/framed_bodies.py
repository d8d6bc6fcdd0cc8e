"""A response body that is a succession of frames other than server-sent events, as a `ResponseParser`.

Not a parser of any API: an API gives the decoder of its frames and says what a frame means.
"""

from collections.abc import Callable
from typing import Protocol

from aiproxyd.exceptions import WireError
from aiproxyd.model.events import StreamEvent
from aiproxyd.providers.samples import Samples
from aiproxyd.wire.aws_event_stream import AwsEventMessage


class FrameDecoder[F](Protocol):
    """Bytes to frames, such as `wire.json_array` and `wire.aws_event_stream` have them."""

    @property
    def held_bytes(self) -> int:
        """Bytes kept of the unfinished frame."""

    def feed(self, data: bytes) -> list[F]:
        """Return the frames that `data` completes, or raise a WireError."""

    def close(self) -> list[F]:
        """Raise a WireError that was not raised yet."""


class FramedBody[F]:
    """A `ResponseParser` of frames. Events before a fault are returned; the next call raises it."""

    __slots__ = ("_decoder", "_failure", "_finish", "_read", "samples")

    def __init__(
        self,
        decoder: FrameDecoder[F],
        read: Callable[[F, list[StreamEvent]], None],
        finish: Callable[[list[StreamEvent]], None],
        samples: Samples | None = None,
    ) -> None:
        """Return a parser at the start of a body.

        Args:
            decoder: Of the frames.
            read: Appends what a frame says, or raises a WireError.
            finish: Appends what only the end of the body says.
            samples: Takes the samples, where who made the parser keeps them.
        """
        self._decoder = decoder
        self._read = read
        self._finish = finish
        self._failure: WireError | None = None
        self.samples = samples or Samples()
        """As `ResponseParser.samples`."""

    @property
    def held_bytes(self) -> int:
        """Bytes kept of what is not finished."""
        return self._decoder.held_bytes

    def feed(self, data: bytes) -> list[StreamEvent]:
        """As `ResponseParser.feed`."""
        if self._failure is not None:
            raise self._failure
        out: list[StreamEvent] = []
        try:
            for frame in self._decoder.feed(data):
                before = len(out)
                self._read(frame, out)
                self.samples.take(out, before, _data_of(frame))
        except WireError as exc:
            self._failure = exc
            if not out:
                raise
        return out

    def close(self) -> list[StreamEvent]:
        """As `ResponseParser.close`."""
        if self._failure is not None:
            raise self._failure
        try:
            self._decoder.close()
        except WireError as exc:
            self._failure = exc
            raise
        out: list[StreamEvent] = []
        self._finish(out)
        return out


def _data_of(frame: object) -> bytes:
    if isinstance(frame, AwsEventMessage):
        return frame.payload
    return frame if isinstance(frame, bytes) else b""
