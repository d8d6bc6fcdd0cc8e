"""A request's body while it may have to be sent again. Bounded: of a larger one nothing is kept."""

from collections.abc import Iterable

from aiproxyd.wire.http1 import Data


class KeptBody:
    """A request's body while it may have to be sent again."""

    def __init__(self, max_bytes: int, *, keeps_data: bool = False) -> None:
        """
        Args:
            max_bytes: With its framing. Of a larger one nothing is kept.
            keeps_data: Whether it will be read as a whole, after transfer coding.
        """
        self.is_whole = True
        """Whether all that came is kept."""
        self._max_bytes = max_bytes
        self._bytes = 0
        self._raw: list[bytes] = []
        self._data: list[bytes] | None = [] if keeps_data else None

    def add(self, piece: Data) -> None:
        """Keep the next bytes."""
        if not self.is_whole:
            return
        self._bytes += len(piece.raw)
        self._raw.append(piece.raw)
        if self._data is not None:
            self._data.append(piece.data)
        self.is_whole = self._bytes <= self._max_bytes

    def drop(self) -> None:
        """Let go what is kept: it will not be sent again."""
        self.is_whole = False
        self._raw = []
        self._data = None

    @property
    def raw(self) -> Iterable[bytes]:
        """What came, with its framing."""
        return self._raw

    @property
    def data(self) -> bytes:
        """What came, after transfer coding."""
        return b"".join(self._data or ())
