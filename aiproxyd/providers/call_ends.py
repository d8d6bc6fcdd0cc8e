"""Holds back the end of the last tool call until it is known whether a limit cut it. Not a parser of any API.

Facts: providers end the block of a call in the same way whether its arguments are whole or the output limit was met within them; the
reason comes afterwards, with the end of the response. Only the last call of a response can have been cut.
"""

from aiproxyd.model.events import StreamEvent, ToolCallEnded


class CallEnds:
    """Of one response."""

    __slots__ = ("_index",)

    def __init__(self) -> None:
        self._index: int | None = None

    def hold(self, index: int, out: list[StreamEvent]) -> None:
        """Take note that call `index` ended, and tell the end of the one before."""
        self.release(out)
        self._index = index

    def release(self, out: list[StreamEvent], *, is_cut: bool = False) -> None:
        """Tell the end that is held back: something else began, or the response's end said whether a limit cut it."""
        if self._index is not None:
            out.append(ToolCallEnded(self._index, truncated=is_cut))
            self._index = None
