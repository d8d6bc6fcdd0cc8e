"""Finds documented fields that a completed answer should have and has not. Pure; what parsers do not know they count themselves.

Facts:
- The table holds only fields that an API documents as always present in the answers meant, in the provider's own words. A server that
  is merely compatible and leaves one out is found too: its figures or its identity are missing whoever is to blame.
- Chat and legacy completions have figures in a stream only where the client asked for them.
- An answer that is not over yet (`queued`, `in_progress`) has no figures, and one that was cut or failed need not have any.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from aiproxyd.assemble import Assembly

PREFIX: Final = "missing:"
"""Before the field's name, in the label of the metric and in the kind of a sample."""


class Documented(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that every completed answer of an API has, by the provider's names; empty for what it need not have."""

    id: str = "id"
    model: str = "model"
    finish: str = ""
    usage: str = "usage"
    input: str = ""
    """Of the usage: the input tokens, which no answer does without."""
    output: str = ""
    """Of the usage: the output tokens, which no answer with output does without."""
    tool_name: str = ""
    tool_id: str = ""
    """Of the calls that the client has to answer."""
    asks_in_streams: bool = False
    """Whether the client must ask for the figures of a stream."""
    unfinished: frozenset[str] = frozenset()
    """Finish reasons of answers that are not over."""
    no_tool_id: frozenset[str] = frozenset()
    """Finish reasons of answers whose calls have no id."""


_CHAT: Final = Documented(
    finish="choices.finish_reason",
    input="usage.prompt_tokens",
    output="usage.completion_tokens",
    tool_name="tool_calls.function.name",
    tool_id="tool_calls.id",
    asks_in_streams=True,
    no_tool_id=frozenset({"function_call"}),
)

DOCUMENTED: Final[Mapping[str, Documented]] = MappingProxyType(
    {
        # https://platform.claude.com/docs/en/api/messages
        "anthropic.messages": Documented(
            finish="stop_reason",
            input="usage.input_tokens",
            output="usage.output_tokens",
            tool_name="tool_use.name",
            tool_id="tool_use.id",
        ),
        # https://developers.openai.com/api/reference/resources/chat
        "openai.chat_completions": _CHAT,
        # https://developers.openai.com/api/reference/resources/completions (Copilot's suggestions name no model)
        "openai.completions": msgspec.structs.replace(_CHAT, model="", tool_name="", tool_id=""),
        # https://developers.openai.com/api/reference/resources/responses
        "openai.responses": Documented(
            finish="status",
            input="usage.input_tokens",
            output="usage.output_tokens",
            tool_name="function_call.name",
            tool_id="function_call.call_id",
            unfinished=frozenset({"queued", "in_progress"}),
        ),
        # https://developers.openai.com/api/reference/resources/realtime (the session has the model)
        "openai.realtime": Documented(
            model="",
            finish="status",
            input="usage.input_tokens",
            tool_name="function_call.name",
            tool_id="function_call.call_id",
        ),
        # https://developers.openai.com/api/reference/resources/embeddings
        "openai.embeddings": Documented(id="", input="usage.prompt_tokens"),
        # https://ai.google.dev/api/generate-content (candidatesTokenCount is left out where it is 0; calls need no id)
        "google.generate_content": Documented(
            id="",
            model="modelVersion",
            finish="candidates.finishReason",
            usage="usageMetadata",
            input="usageMetadata.promptTokenCount",
            output="usageMetadata.candidatesTokenCount",
            tool_name="functionCall.name",
        ),
        # https://ai.google.dev/api/interactions-api (`store: false` gives no id, and an agent may stand for a model)
        "google.interactions": Documented(
            id="",
            finish="status",
            input="usage.total_input_tokens",
            output="usage.total_output_tokens",
            tool_name="function_call.name",
            tool_id="function_call.id",
            unfinished=frozenset({"queued", "in_progress"}),
        ),
        # https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html (the path names the model)
        "bedrock.converse": Documented(
            id="",
            model="",
            finish="stopReason",
            input="usage.inputTokens",
            output="usage.outputTokens",
            tool_name="toolUse.name",
            tool_id="toolUse.toolUseId",
        ),
        # https://docs.cohere.com/reference/chat (the request names the model)
        "cohere.chat": Documented(
            model="",
            finish="finish_reason",
            input="usage.billed_units.input_tokens",
            output="usage.billed_units.output_tokens",
            tool_name="tool_calls.function.name",
            tool_id="tool_calls.id",
        ),
        # https://docs.cohere.com/reference/embed
        "cohere.embed": Documented(model="", usage="meta.billed_units"),
    }
)
"""By API. Not in it: those whose answers depend on the model, as the bodies of InvokeModel, images and sound do."""


def missing_fields(api: str, assembly: Assembly, *, is_streamed: bool, asks_for_usage: bool) -> list[str]:
    """Return the documented fields that a response lacks, each with PREFIX before it; none of one that did not complete.

    Args:
        api: Its name, as in `providers.apis`.
        assembly: What was read of the response, to its end.
        is_streamed: Whether it was streamed.
        asks_for_usage: Whether the request asked for the figures of a stream.
    """
    fields = DOCUMENTED.get(api)
    if fields is None or assembly.error is not None or not assembly.is_complete or assembly.finish_reason in fields.unfinished:
        return []
    is_asked = asks_for_usage or not (is_streamed and fields.asks_in_streams)
    usage = assembly.usage
    found = {
        fields.id: not assembly.response_id,
        fields.model: not assembly.response_model,
        fields.finish: not assembly.finish_reason,
        fields.usage: usage is None and is_asked,
        fields.input: usage is not None and usage.output_tokens > 0 and not usage.total_input_tokens,
        fields.output: usage is not None and assembly.has_output and not usage.output_tokens,
        fields.tool_name: assembly.calls_without_name > 0,
        fields.tool_id: assembly.calls_without_id > 0 and assembly.finish_reason not in fields.no_tool_id,
    }
    return [f"{PREFIX}{name}" for name, is_missing in found.items() if name and is_missing]
