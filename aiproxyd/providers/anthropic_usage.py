"""Usage figures as Anthropic's Messages API reports them, merged over a stream and turned into ours. Not a parser of bodies.

Facts:
- `input_tokens` excludes what was read from and written to the cache; `output_tokens` includes reasoning.
- `message_start` has the figures of the input, `message_delta` cumulative ones: its output tokens are the billed total. A null
  there means no news, and so does an input side of zeros, which gateways put there.
- Tokens of a `compaction` entry in `iterations` are billed but stand in no top-level figure, so they are added here. Those of an
  `advisor_message` entry are another model's: they are kept beside, as extra figures.

Source:
    https://platform.claude.com/docs/en/api/messages
    https://platform.claude.com/docs/en/build-with-claude/prompt-caching
    https://platform.claude.com/docs/en/build-with-claude/compaction
"""

from typing import Final

import msgspec

from aiproxyd.model.events import UsageReported
from aiproxyd.model.usage import TokenUsage, token_count
from aiproxyd.providers.decoding import Count, short


class _CacheCreation(msgspec.Struct):
    ephemeral_5m_input_tokens: Count = None
    ephemeral_1h_input_tokens: Count = None


class _ServerToolUse(msgspec.Struct):
    web_search_requests: Count = None
    web_fetch_requests: Count = None


class _OutputDetails(msgspec.Struct):
    thinking_tokens: Count = None


class _Figures(msgspec.Struct):
    input_tokens: Count = None
    output_tokens: Count = None
    cache_read_input_tokens: Count = None
    cache_creation_input_tokens: Count = None
    cache_creation: _CacheCreation | None = None


class _Iteration(_Figures):
    type: str = ""


class Usage(_Figures):
    """The `usage` object of a message, of its start or of its delta."""

    output_tokens_details: _OutputDetails | None = None
    server_tool_use: _ServerToolUse | None = None
    iterations: list[_Iteration] | None = None
    service_tier: str | None = None
    inference_geo: str | None = None
    speed: str | None = None


_INPUT_FIELDS: Final = frozenset({"input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation"})


def merge(usage: Usage, news: Usage) -> None:
    """Put what `news` tells over what `usage` has."""
    has_input = any((news.input_tokens, news.cache_read_input_tokens, news.cache_creation_input_tokens))
    for field in news.__struct_fields__:
        value = getattr(news, field)
        if value is not None and (has_input or field not in _INPUT_FIELDS):
            setattr(usage, field, value)


def usage_reported(usage: Usage, *, is_final: bool) -> UsageReported:
    """Return the report of what is known so far."""
    output_tokens = token_count(usage.output_tokens)
    details = usage.output_tokens_details
    tools = usage.server_tool_use or _ServerToolUse()
    total = _token_usage(usage)
    extra = {"web_search_requests": token_count(tools.web_search_requests)}
    if fetches := token_count(tools.web_fetch_requests):
        extra["web_fetch_requests"] = fetches
    for iteration in usage.iterations or ():
        if iteration.type == "compaction":
            total += _token_usage(iteration)
        elif iteration.type == "advisor_message":
            advisor = _token_usage(iteration)
            for name, count in (
                ("advisor_input", advisor.input_tokens),
                ("advisor_output", advisor.output_tokens),
                ("advisor_cache_read_input", advisor.cache_read_input_tokens),
                ("advisor_cache_write_input", advisor.cache_write_input_tokens),
            ):
                extra[name] = extra.get(name, 0) + count
    extra["cache_ephemeral_5m_input"] = total.cache_write_5m_input_tokens
    extra["cache_ephemeral_1h_input"] = total.cache_write_1h_input_tokens
    reasoning = min(token_count(details.thinking_tokens) if details is not None else 0, output_tokens)
    facts = (("service_tier", usage.service_tier), ("inference_geo", usage.inference_geo), ("speed", usage.speed))
    return UsageReported(
        msgspec.structs.replace(total, reasoning_output_tokens=reasoning, extra=extra),
        final=is_final,
        metadata={name: short(value) for name, value in facts if value},
    )


def _token_usage(figures: _Figures) -> TokenUsage:
    split = figures.cache_creation or _CacheCreation()
    write_5m = token_count(split.ephemeral_5m_input_tokens)
    write_1h = token_count(split.ephemeral_1h_input_tokens)
    written = figures.cache_creation_input_tokens
    write = write_5m + write_1h if written is None else token_count(written)
    # A later, smaller total has no split of its own; the parts stay within the whole.
    write_1h = min(write_1h, write)
    return TokenUsage(
        input_tokens=token_count(figures.input_tokens),
        output_tokens=token_count(figures.output_tokens),
        cache_read_input_tokens=token_count(figures.cache_read_input_tokens),
        cache_write_input_tokens=write,
        cache_write_5m_input_tokens=min(write_5m, write - write_1h),
        cache_write_1h_input_tokens=write_1h,
    )
