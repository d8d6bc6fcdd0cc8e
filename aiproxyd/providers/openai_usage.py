"""Usage figures as OpenAI's two APIs and the servers compatible with them report them, turned into ours. Not a parser of bodies.

Facts:
- The input includes what was read from and written to the cache, so it is taken out here, and never below zero.
- `completion_tokens` includes reasoning, except at xAI and where Gemini is translated, whose totals are the sum of the three.
- Perplexity bills a research by queries, citations and reasoning tokens that no total includes; xAI a live search by sources.
- DeepSeek tells cached tokens as `prompt_cache_hit_tokens`, Moonshot as `cached_tokens` of the usage itself.

Source:
    https://developers.openai.com/api/docs/guides/prompt-caching
    https://api-docs.deepseek.com/guides/kv_cache
    https://docs.x.ai/docs/guides/reasoning
    https://docs.x.ai/docs/guides/live-search
    https://docs.perplexity.ai/getting-started/pricing
"""

import msgspec

from aiproxyd.model.usage import TokenUsage, token_count
from aiproxyd.providers.decoding import Count


class _PromptDetails(msgspec.Struct):
    cached_tokens: Count = None
    cache_write_tokens: Count = None
    audio_tokens: Count = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: Count = None
    audio_tokens: Count = None
    accepted_prediction_tokens: Count = None
    rejected_prediction_tokens: Count = None


class ChatUsage(msgspec.Struct):
    """The `usage` object of a chat completion."""

    prompt_tokens: Count = None
    completion_tokens: Count = None
    total_tokens: Count = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    prompt_cache_hit_tokens: Count = None
    cached_tokens: Count = None
    citation_tokens: Count = None
    reasoning_tokens: Count = None
    num_search_queries: Count = None
    num_sources_used: Count = None


def chat_token_usage(usage: ChatUsage) -> TokenUsage | None:
    """Return the figures, or None where there are none: servers without accounting send zeros, and unknown is not zero."""
    prompt, output = token_count(usage.prompt_tokens), token_count(usage.completion_tokens)
    total = token_count(usage.total_tokens)
    if not prompt and not output:
        return None
    prompt_details = usage.prompt_tokens_details or _PromptDetails()
    details = usage.completion_tokens_details or _CompletionDetails()
    cached = next(
        (
            token_count(count)
            for count in (prompt_details.cached_tokens, usage.prompt_cache_hit_tokens, usage.cached_tokens)
            if count is not None
        ),
        0,
    )
    written = token_count(prompt_details.cache_write_tokens)
    reasoning = token_count(details.reasoning_tokens)
    if reasoning and total == prompt + output + reasoning:
        output += reasoning
    return TokenUsage(
        input_tokens=max(0, prompt - cached - written),
        output_tokens=output,
        cache_read_input_tokens=cached,
        cache_write_input_tokens=written,
        reasoning_output_tokens=min(reasoning, output),
        extra={
            "prompt_audio": token_count(prompt_details.audio_tokens),
            "completion_accepted_prediction": token_count(details.accepted_prediction_tokens),
            "completion_rejected_prediction": token_count(details.rejected_prediction_tokens),
            "completion_audio": token_count(details.audio_tokens),
            "completion_reasoning": reasoning,
        }
        | _searched(usage),
    )


def _searched(usage: ChatUsage) -> dict[str, int]:
    """Return what a search before the answer is billed by, where a server bills it."""
    queries, citations = token_count(usage.num_search_queries), token_count(usage.citation_tokens)
    billed = {
        "web_search_requests": queries,
        "web_search_sources": token_count(usage.num_sources_used),
        "citation": citations,
        # Of the research, not of the answer; servers without one repeat the answer's here.
        "research_reasoning": token_count(usage.reasoning_tokens) if queries or citations else 0,
    }
    return {name: count for name, count in billed.items() if count}


class _InputDetails(msgspec.Struct):
    cached_tokens: Count = None
    cache_write_tokens: Count = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: Count = None


class ResponseUsage(msgspec.Struct):
    """The `usage` object of the Responses API."""

    input_tokens: Count = None
    output_tokens: Count = None
    total_tokens: Count = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


def response_token_usage(usage: ResponseUsage) -> TokenUsage:
    """Return the figures. Zeros are told: a turn that only warms the cache up costs none."""
    input_details = usage.input_tokens_details or _InputDetails()
    output_details = usage.output_tokens_details or _OutputDetails()
    whole_input, output = token_count(usage.input_tokens), token_count(usage.output_tokens)
    cached = token_count(input_details.cached_tokens)
    written = token_count(input_details.cache_write_tokens)
    reasoning = token_count(output_details.reasoning_tokens)
    return TokenUsage(
        input_tokens=max(0, whole_input - cached - written),
        output_tokens=output,
        cache_read_input_tokens=cached,
        cache_write_input_tokens=written,
        reasoning_output_tokens=min(reasoning, output),
        extra={
            "output_reasoning": reasoning,
            "total_tokens": whole_input + output if usage.total_tokens is None else token_count(usage.total_tokens),
        },
    )
