"""The end of a call is told when something else begins, or when the response's end says whether it was cut."""

from aiproxyd.model.events import StreamEvent, ToolCallEnded
from aiproxyd.providers.call_ends import CallEnds


def test_only_the_last_call_can_have_been_cut() -> None:
    ends, out = CallEnds(), list[StreamEvent]()
    ends.hold(0, out)
    assert out == []
    ends.hold(1, out)
    ends.release(out, is_cut=True)
    assert out == [ToolCallEnded(0), ToolCallEnded(1, truncated=True)]
    ends.release(out, is_cut=True)
    assert len(out) == 2
