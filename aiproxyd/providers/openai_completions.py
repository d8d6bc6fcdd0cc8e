"""OpenAI's legacy completions (`POST /v1/completions`): text in, text out. Also DeepSeek's and Mistral's fill-in-the-middle, and the
suggestions of Copilot in an editor.

Facts:
- A stream is chunks of unnamed events, then `data: [DONE]`, as in chat; a choice has `text`. Mistral's has a chat's `delta` or `message`.
- Usage is as in chat: in the last chunk, or nowhere.
- A request with `suffix` asks for what belongs between two pieces of code around a cursor. Nobody typed that as a prompt, and none is
  recorded.

Source:
    https://developers.openai.com/api/reference/resources/completions
    https://api-docs.deepseek.com/guides/fim_completion
    https://docs.mistral.ai/api/#tag/fim
"""

from typing import Final

import msgspec

from aiproxyd.exceptions import MalformedBody
from aiproxyd.model.events import (
    ProviderErrorReported,
    ResponseEnded,
    ResponseStarted,
    StreamEvent,
    TextDelta,
    UsageReported,
)
from aiproxyd.model.head import RequestHead
from aiproxyd.model.usage import TokenUsage
from aiproxyd.providers import errors, requests
from aiproxyd.providers.api import Api, RequestFacts
from aiproxyd.providers.bodies import DocumentBody, EventStreamBody
from aiproxyd.providers.decoding import decode, is_null, starts_with, text_of, unknown
from aiproxyd.providers.openai_usage import ChatUsage, chat_token_usage
from aiproxyd.wire.event_stream import ServerSentEvent


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Message | None = None
    message: _Message | None = None
    finish_reason: str | None = None


class _Completion(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: ChatUsage | None = None
    error: msgspec.Raw = requests.NOTHING
    object: msgspec.Raw = requests.NOTHING


_COMPLETION: Final = msgspec.json.Decoder(_Completion)


class _Reader:
    """One completion, streamed or not."""

    __slots__ = ("_ended", "_failed", "_finish_reason", "_is_final", "_is_started", "_usage")

    def __init__(self) -> None:
        self._is_started = False
        self._usage: TokenUsage | None = None
        self._is_final = False
        self._finish_reason = ""
        self._failed = False
        self._ended = False

    def read(self, event: ServerSentEvent, out: list[StreamEvent]) -> None:
        data = event.data
        if data.startswith(b"[DONE]"):
            self._end(out)
        elif data:
            if event.event not in {"message", "error"}:
                out.append(unknown("event", event.event))
            chunk = decode(_COMPLETION, data)
            if chunk.choices is None and is_null(chunk.error) and text_of(chunk.object) == "error":
                # Flat, as vLLM has it: the chunk itself is the error.
                chunk.error = msgspec.Raw(data)
            self._read(chunk, out)

    def finish(self, out: list[StreamEvent]) -> None:
        if self._finish_reason or self._failed:
            self._end(out)

    def read_document(self, body: bytes) -> list[StreamEvent]:
        completion = decode(_COMPLETION, body)
        if completion.choices is None and is_null(completion.error):
            raise MalformedBody("the document is no completion: it has no choices")
        out: list[StreamEvent] = []
        self._read(completion, out)
        self._end(out)
        return out

    def _read(self, chunk: _Completion, out: list[StreamEvent]) -> None:
        if not is_null(chunk.error):
            self._failed = True
            out.append(errors.decoded_error(chunk.error))
        if not self._is_started and (chunk.id or chunk.model):
            self._is_started = True
            out.append(ResponseStarted(chunk.id or "", chunk.model or ""))
        for choice in chunk.choices or ():
            message = choice.delta or choice.message
            text = choice.text or (message.content if message is not None else None)
            if text:
                out.append(TextDelta(len(text)))
            if choice.finish_reason:
                self._finish_reason = self._finish_reason or choice.finish_reason
        found = chat_token_usage(chunk.usage) if chunk.usage is not None else None
        if found is not None:
            self._usage = found
            self._is_final = bool(self._finish_reason)
            out.append(UsageReported(found, final=self._is_final))

    def _end(self, out: list[StreamEvent]) -> None:
        if self._ended:
            return
        self._ended = True
        if self._usage is not None and not self._is_final and not self._failed:
            out.append(UsageReported(self._usage, final=True))
        out.append(ResponseEnded(self._finish_reason or ("error" if self._failed else ""), complete=not self._failed))


class _Request(requests.Request):
    prompt: msgspec.Raw = requests.NOTHING
    suffix: msgspec.Raw = requests.NOTHING


_REQUEST: Final = msgspec.json.Decoder(_Request)


def _read_request(body: bytes, head: RequestHead) -> RequestFacts:  # noqa: ARG001 (all of this API is in the body)
    return requests.read(body, _REQUEST, _prompt, requests.session_candidates)


def _prompt(request: _Request) -> tuple[str | None, str]:
    """Return the prompt; of several, the last. One that comes as token numbers is nothing to read."""
    if not is_null(request.suffix):
        return None, ""
    prompt = request.prompt
    if starts_with(prompt, b"["):
        entries = decode(requests.ITEMS, prompt)
        prompt = entries[-1] if entries else requests.NOTHING
    return text_of(prompt) or None, ""


def _read_error(status_code: int, body: bytes) -> ProviderErrorReported:
    return errors.read_error(status_code, body, provider_type="openai")


API: Final = Api(
    name="openai.completions",
    operation="text_completion",
    read_request=_read_request,
    stream_parser=lambda max_event_bytes: EventStreamBody(max_event_bytes, _Reader()),
    document_parser=lambda max_body_bytes: DocumentBody(max_body_bytes, _Reader().read_document),
    read_error=_read_error,
)
