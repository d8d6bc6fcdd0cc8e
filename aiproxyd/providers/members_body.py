"""A response body that is one JSON object of which only a few members matter, as a `ResponseParser` that never holds the rest.

Not a parser of any API: an API names the members and says what they mean.
"""

from collections.abc import Callable, Iterable, Mapping

from aiproxyd.exceptions import WireError
from aiproxyd.model.events import StreamEvent
from aiproxyd.providers.samples import Samples
from aiproxyd.wire.json_members import JsonMembersDecoder


class MembersBody:
    """Says nothing before the body's end. The body may be of any size; `max_kept_bytes` bounds the members that are kept."""

    __slots__ = ("_decoder", "_failure", "_read", "samples")

    def __init__(
        self, max_kept_bytes: int, names: Iterable[str], read: Callable[[Mapping[str, bytes]], list[StreamEvent]]
    ) -> None:
        self._decoder = JsonMembersDecoder(names, max_kept_bytes)
        self._read = read
        self._failure: WireError | None = None
        self.samples = Samples()
        """As `ResponseParser.samples`."""

    @property
    def held_bytes(self) -> int:
        """Bytes of the members kept so far."""
        return self._decoder.held_bytes

    def feed(self, data: bytes) -> list[StreamEvent]:
        """As `ResponseParser.feed`; always empty."""
        if self._failure is not None:
            raise self._failure
        self._decoder.feed(data)
        return []

    def close(self) -> list[StreamEvent]:
        """As `ResponseParser.close`."""
        if self._failure is not None:
            raise self._failure
        try:
            members = self._decoder.close()
            out = self._read(members)
        except WireError as exc:
            self._failure = exc
            raise
        kept = b",".join(b'"%b":%b' % (name.encode(), value) for name, value in members.items())
        self.samples.take_document(out, b"{%b}" % kept)
        return out


class UnreadBody:
    """A `ResponseParser` of a body that says nothing to us, such as sound. A whole one is complete."""

    __slots__ = ()

    held_bytes = 0
    samples = None

    def feed(self, data: bytes) -> list[StreamEvent]:  # noqa: ARG002 (not read)
        """Say nothing."""
        return []

    def close(self) -> list[StreamEvent]:
        """Say nothing: that the body is whole is for who carried it to say."""
        return []
