"""Usage figures as Google reports them (`usageMetadata`), turned into ours. Not a parser of bodies.

Facts:
- `promptTokenCount` includes `cachedContentTokenCount`. What tools put into the prompt stands beside it, as
  `toolUsePromptTokenCount`, and is billed as input.
- `thoughtsTokenCount` stands beside `candidatesTokenCount`; both are billed as output. Where `totalTokenCount` shows that the
  candidates include the thoughts already, they are not added again.
- In a stream each report is a total so far, and a later one may leave out what an earlier one had.

Source:
    https://ai.google.dev/api/generate-content#UsageMetadata
    https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/v1/GenerateContentResponse#UsageMetadata
"""

import msgspec

from aiproxyd.model.usage import TokenUsage, token_count
from aiproxyd.providers.decoding import Count


class ModalityCount(msgspec.Struct, rename="camel"):
    """Tokens of one kind of content."""

    modality: str | None = None
    token_count: Count = None


class UsageMetadata(msgspec.Struct, rename="camel"):
    """The `usageMetadata` of a response."""

    prompt_token_count: Count = None
    candidates_token_count: Count = None
    thoughts_token_count: Count = None
    tool_use_prompt_token_count: Count = None
    cached_content_token_count: Count = None
    total_token_count: Count = None
    prompt_tokens_details: list[ModalityCount] | None = None
    candidates_tokens_details: list[ModalityCount] | None = None
    cache_tokens_details: list[ModalityCount] | None = None
    traffic_type: str | None = None
    service_tier: str | None = None


_INPUT = {"AUDIO": "input_audio", "IMAGE": "input_image", "VIDEO": "input_video", "DOCUMENT": "input_document"}
_CACHED = {"AUDIO": "cached_audio"}
_OUTPUT = {"AUDIO": "output_audio", "IMAGE": "output_image", "VIDEO": "output_video"}


def merged(before: UsageMetadata | None, latest: UsageMetadata) -> UsageMetadata:
    """Return `latest` with what it leaves out taken from `before`."""
    if before is None:
        return latest
    known = {name: value for name in latest.__struct_fields__ if (value := getattr(latest, name)) is not None}
    return msgspec.structs.replace(before, **known)


def token_usage(usage: UsageMetadata) -> TokenUsage | None:
    """Return the figures, or None where there are none: a report without counts is no report of zero."""
    prompt, candidates = token_count(usage.prompt_token_count), token_count(usage.candidates_token_count)
    thoughts, tool_use = token_count(usage.thoughts_token_count), token_count(usage.tool_use_prompt_token_count)
    if not (prompt or candidates or thoughts):
        return None
    cached = token_count(usage.cached_content_token_count)
    is_included = candidates >= thoughts > 0 and token_count(usage.total_token_count) == prompt + tool_use + candidates
    extra = {"tool_use_prompt": tool_use}
    for details, names in (
        (usage.prompt_tokens_details, _INPUT),
        (usage.candidates_tokens_details, _OUTPUT),
        (usage.cache_tokens_details, _CACHED),
    ):
        for detail in details or ():
            name = names.get(detail.modality or "")
            if name is not None:
                extra[name] = extra.get(name, 0) + token_count(detail.token_count)
    output = candidates if is_included else candidates + thoughts
    return TokenUsage(
        input_tokens=max(0, prompt - cached) + tool_use,
        output_tokens=output,
        cache_read_input_tokens=cached,
        reasoning_output_tokens=min(thoughts, output),
        extra=extra,
    )
