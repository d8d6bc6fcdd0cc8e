"""OpenAI's embeddings (`POST /v1/embeddings`), also as Azure and the compatible servers have them.

Facts:
- The answer is one object whose `data` is megabytes of numbers; only `usage` and `model` say anything to us.
- `usage.prompt_tokens` is the input; servers that tell only `total_tokens` mean the same. There is no output.
- What is embedded is nobody's prompt: none is recorded.

Source:
    https://developers.openai.com/api/reference/resources/embeddings
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from aiproxyd.exceptions import MalformedBody
from aiproxyd.model.events import ProviderErrorReported, ResponseEnded, ResponseStarted, StreamEvent, UsageReported
from aiproxyd.model.head import RequestHead
from aiproxyd.model.usage import TokenUsage, token_count
from aiproxyd.providers import errors, requests
from aiproxyd.providers.api import Api, RequestFacts, ResponseParser
from aiproxyd.providers.decoding import Count, decode, is_null, text_of
from aiproxyd.providers.members_body import MembersBody


class _Usage(msgspec.Struct):
    prompt_tokens: Count = None
    total_tokens: Count = None


_USAGE: Final = msgspec.json.Decoder(_Usage | None)
_REQUEST: Final = msgspec.json.Decoder(requests.Request)
_MEMBERS: Final = ("id", "model", "usage", "error", "object")


def _read_members(members: Mapping[str, bytes]) -> list[StreamEvent]:
    error = members.get("error", b"null")
    if not is_null(msgspec.Raw(error)):
        return [errors.decoded_error(error), ResponseEnded("error", complete=False)]
    if not members.keys() & {"model", "usage", "object"}:
        raise MalformedBody("the document is no list of embeddings")
    out: list[StreamEvent] = [ResponseStarted(_text(members, "id"), _text(members, "model"))]
    usage = decode(_USAGE, members.get("usage", b"null"))
    tokens = 0 if usage is None else token_count(usage.prompt_tokens) or token_count(usage.total_tokens)
    if tokens:
        out.append(UsageReported(TokenUsage(input_tokens=tokens), final=True))
    out.append(ResponseEnded())
    return out


def _text(members: Mapping[str, bytes], name: str) -> str:
    return text_of(msgspec.Raw(members.get(name, b"null"))) or ""


def _read_request(body: bytes, head: RequestHead) -> RequestFacts:  # noqa: ARG001 (all of this API is in the body)
    return requests.read(body, _REQUEST, lambda _: (None, ""), lambda _: ("", {}))


def _read_error(status_code: int, body: bytes) -> ProviderErrorReported:
    return errors.read_error(status_code, body, provider_type="openai")


def _parser(max_bytes: int) -> ResponseParser:
    return MembersBody(max_bytes, _MEMBERS, _read_members)


API: Final = Api(
    name="openai.embeddings",
    operation="embeddings",
    read_request=_read_request,
    stream_parser=_parser,
    document_parser=_parser,
    read_error=_read_error,
)
