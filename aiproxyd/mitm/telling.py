"""What is told of a response's finished parts, as observations. Pure: times and ids are arguments."""

from aiproxyd.assemble import Finished, FinishedToolCall
from aiproxyd.model.observation import ThoughtRecorded, ToolCalled


def told(item: Finished, *, at: float, interception_id: str, response_id: str) -> ToolCalled | ThoughtRecorded:
    """Return the observation of a tool call or a thought that is complete.

    Args:
        item: What the response held.
        at: Unix time in seconds.
        interception_id: Whose response it is.
        response_id: The provider's id of it; empty while it is unknown.
    """
    if isinstance(item, FinishedToolCall):
        return ToolCalled(
            at=at,
            interception_id=interception_id,
            tool=item.name,
            position=item.position,
            call_id=item.call_id,
            item_id=item.item_id,
            tool_kind=item.kind,
            arguments=item.arguments,
            truncated=item.is_truncated,
            server_url=item.server_url,
            response_id=response_id,
        )
    return ThoughtRecorded(
        at=at, interception_id=interception_id, position=item.position, source=item.source, content=item.content
    )
