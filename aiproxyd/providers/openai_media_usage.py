"""Usage figures of OpenAI's image and audio APIs, turned into ours. Not a parser of bodies.

Facts:
- By tokens: `{"type":"tokens","input_tokens","output_tokens"}` with parts by kind under `input_tokens_details` (images) or
  `input_token_details` (audio). By duration: `{"type":"duration","seconds"}`, kept in milliseconds, which are whole.

Source:
    https://developers.openai.com/api/reference/resources/images
    https://developers.openai.com/api/reference/resources/audio
"""

import math
from typing import Final

import msgspec

from aiproxyd.model.usage import MAX_TOKENS, TokenUsage, token_count
from aiproxyd.providers.decoding import Count


class _Parts(msgspec.Struct):
    text_tokens: Count = None
    image_tokens: Count = None
    audio_tokens: Count = None
    cached_tokens: Count = None


class MediaUsage(msgspec.Struct):
    """The `usage` object of an image, a transcription or a speech."""

    input_tokens: Count = None
    output_tokens: Count = None
    input_tokens_details: _Parts | None = None
    input_token_details: _Parts | None = None
    output_tokens_details: _Parts | None = None
    seconds: int | float | None = None


USAGE: Final = msgspec.json.Decoder(MediaUsage)


def media_token_usage(usage: MediaUsage) -> TokenUsage | None:
    """Return the figures, or None where there are none."""
    if usage.seconds is not None:
        return of_seconds(usage.seconds)
    total, output = token_count(usage.input_tokens), token_count(usage.output_tokens)
    if not total and not output:
        return None
    inputs = usage.input_tokens_details or usage.input_token_details or _Parts()
    outputs = usage.output_tokens_details or _Parts()
    cached = token_count(inputs.cached_tokens)
    extra = {
        name: count
        for name, value in (
            ("input_image", inputs.image_tokens),
            ("input_audio", inputs.audio_tokens),
            ("output_image", outputs.image_tokens),
            ("output_text", outputs.text_tokens),
        )
        if (count := token_count(value))
    }
    return TokenUsage(input_tokens=max(0, total - cached), output_tokens=output, cache_read_input_tokens=cached, extra=extra)


def of_seconds(seconds: float) -> TokenUsage | None:
    """Return the figures of sound of so many seconds, or None where that is no length."""
    if not math.isfinite(seconds) or seconds <= 0:
        return None
    return TokenUsage(extra={"audio_milliseconds": min(round(seconds * 1000), MAX_TOKENS)})
