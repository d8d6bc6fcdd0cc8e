"""Twin of aiproxyd/mitm/telling.py: nothing of a finished part is left out."""

from aiproxyd.assemble import FinishedThought, FinishedToolCall
from aiproxyd.mitm.telling import told
from aiproxyd.model.events import ThoughtSource, ToolKind
from aiproxyd.model.observation import ThoughtRecorded, ToolCalled


def test_a_tool_call_is_told_whole() -> None:
    call = FinishedToolCall(
        name="Read",
        position=2,
        call_id="c",
        item_id="i",
        kind=ToolKind.CUSTOM,
        arguments="{}",
        is_truncated=True,
        server_url="https://mcp.example.com",
    )
    assert told(call, at=7.0, interception_id="id", response_id="msg") == ToolCalled(
        at=7.0,
        interception_id="id",
        tool="Read",
        position=2,
        call_id="c",
        item_id="i",
        tool_kind=ToolKind.CUSTOM,
        arguments="{}",
        truncated=True,
        server_url="https://mcp.example.com",
        response_id="msg",
    )


def test_a_thought_is_told_whole() -> None:
    thought = FinishedThought(position=1, source=ThoughtSource.THINKING, content="Hm.")
    assert told(thought, at=7.0, interception_id="id", response_id="msg") == ThoughtRecorded(
        at=7.0, interception_id="id", position=1, source=ThoughtSource.THINKING, content="Hm."
    )
