"""Answers of Bedrock's models that only complete text, each by its maker's names. Not a parser of framing.

Facts, by maker; a stream has the same fields in pieces:
- Meta: `generation`, `stop_reason`, `prompt_token_count`, `generation_token_count`.
- Amazon Titan: `outputText`, `completionReason`, `inputTextTokenCount`, `totalOutputTextTokenCount`; whole ones in `results` with `tokenCount`.
- Mistral: `outputs` of `text` and `stop_reason`. Older Anthropic: `completion`, `stop_reason`. Cohere: `text` or `generations`, `finish_reason`.
- Embeddings have `embedding` or `embeddings` and sometimes `inputTextTokenCount`; images have `images` or `artifacts`.

Source:
    https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html
"""

from typing import Final

import msgspec

from aiproxyd.model.events import StreamEvent, TextDelta, UnknownEvent
from aiproxyd.model.usage import TokenUsage, token_count
from aiproxyd.providers import requests
from aiproxyd.providers.decoding import Count, decode, short, starts_with, text_of

_QUIET: Final = frozenset(
    {"embedding", "embeddings", "embeddingsByType", "images", "artifacts", "amazon-bedrock-invocationMetrics"}
)
"""Members of answers that are known and have no text."""
_METRICS: Final = "amazon-bedrock-invocationMetrics"
"""What Bedrock adds to the last piece of a stream."""


class _Piece(msgspec.Struct, rename="camel"):
    text: str | None = None
    output_text: str | None = None
    stop_reason: str | None = msgspec.field(default=None, name="stop_reason")
    finish_reason: str | None = msgspec.field(default=None, name="finish_reason")
    completion_reason: str | None = None
    token_count: Count = None


class _Answer(_Piece, rename="camel"):
    generation: msgspec.Raw = requests.NOTHING
    completion: str | None = None
    outputs: list[_Piece] | None = None
    results: list[_Piece] | None = None
    generations: list[_Piece] | None = None
    prompt_token_count: Count = msgspec.field(default=None, name="prompt_token_count")
    generation_token_count: Count = msgspec.field(default=None, name="generation_token_count")
    input_text_token_count: Count = None
    total_output_text_token_count: Count = None


_ANSWER: Final = msgspec.json.Decoder(_Answer)


class TextReader:
    """The text of one answer, streamed or not."""

    __slots__ = ("_input_tokens", "_output_tokens", "stop_reason")

    def __init__(self) -> None:
        self._input_tokens = 0
        self._output_tokens = 0
        self.stop_reason = ""

    def read(self, data: bytes, out: list[StreamEvent]) -> None:
        """Append what a whole answer, or a piece of one, says.

        Raises:
            MalformedBody: A field has another type than documented.
        """
        answer = decode(_ANSWER, data)
        pieces: list[_Piece] = [answer, *(answer.outputs or ()), *(answer.results or ()), *(answer.generations or ())]
        text = sum(len(piece.text or piece.output_text or "") for piece in pieces)
        text += len(text_of(answer.generation) or answer.completion or "")
        if text:
            out.append(TextDelta(text))
        reason = next(
            (found for piece in pieces if (found := piece.stop_reason or piece.finish_reason or piece.completion_reason)), ""
        )
        self.stop_reason = self.stop_reason or reason
        self._input_tokens = max(
            self._input_tokens, token_count(answer.prompt_token_count), token_count(answer.input_text_token_count)
        )
        self._output_tokens = max(
            self._output_tokens,
            token_count(answer.generation_token_count),
            token_count(answer.total_output_text_token_count),
            sum(token_count(piece.token_count) for piece in answer.results or ()),
        )
        if not text and not reason:
            names = [name for name in decode(requests.FIELDS, data) if name != _METRICS]
            if names and _KNOWN.isdisjoint(names):
                out.append(UnknownEvent(f"answer:{short(names[0])}"))

    @property
    def usage(self) -> TokenUsage | None:
        """The figures that the answer itself has; None for none."""
        if not self._input_tokens and not self._output_tokens:
            return None
        return TokenUsage(input_tokens=self._input_tokens, output_tokens=self._output_tokens)


_KNOWN: Final = _QUIET | frozenset(_Answer.__struct_encode_fields__)


class _Request(requests.Request, rename="camel"):
    prompt: msgspec.Raw = requests.NOTHING
    input_text: msgspec.Raw = requests.NOTHING
    input: msgspec.Raw = requests.NOTHING


_REQUEST: Final = msgspec.json.Decoder(_Request)


def prompt_of(body: bytes) -> str | None:
    """Return the prompt of a request of these models; None when it has none.

    Raises:
        MalformedBody: The body is no JSON object.
    """
    request = decode(_REQUEST, body)
    if starts_with(request.prompt, b'"'):
        return text_of(request.prompt)
    return text_of(request.input_text)
