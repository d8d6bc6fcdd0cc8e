"""Google's embeddings: `embedContent` and `batchEmbedContents`.

Facts:
- The answer is one object whose bulk is numbers. Newer models tell a `usageMetadata`; without it the figures are estimated.
- The model is named by the path. What is embedded is nobody's prompt: none is recorded.

Source:
    https://ai.google.dev/api/embeddings
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from aiproxyd.exceptions import MalformedBody
from aiproxyd.model.events import ProviderErrorReported, ResponseEnded, StreamEvent, UsageReported
from aiproxyd.model.head import RequestHead
from aiproxyd.providers import errors, requests
from aiproxyd.providers.api import Api, RequestFacts, ResponseParser
from aiproxyd.providers.decoding import decode, is_null
from aiproxyd.providers.google_usage import UsageMetadata, token_usage
from aiproxyd.providers.members_body import MembersBody
from aiproxyd.providers.paths import model_of

_MEMBERS: Final = ("usageMetadata", "error")
_USAGE: Final = msgspec.json.Decoder(UsageMetadata | None)


def _read_members(members: Mapping[str, bytes]) -> list[StreamEvent]:
    error = members.get("error", b"null")
    if not is_null(msgspec.Raw(error)):
        return [errors.decoded_error(error), ResponseEnded("error", complete=False)]
    usage = decode(_USAGE, members.get("usageMetadata", b"null"))
    found = token_usage(usage) if usage is not None else None
    out: list[StreamEvent] = [] if found is None else [UsageReported(found, final=True)]
    out.append(ResponseEnded())
    return out


def _read_request(body: bytes, head: RequestHead) -> RequestFacts:
    model = model_of(head.path)
    characters = requests.input_characters(body)
    try:
        decode(requests.FIELDS, body)
    except MalformedBody as exc:
        return RequestFacts(request_model=model, anomaly=f"request body: {exc}", input_characters=characters)
    return RequestFacts(request_model=model, input_characters=characters)


def _read_error(status_code: int, body: bytes) -> ProviderErrorReported:
    return errors.read_error(status_code, body, provider_type="google")


def _parser(max_bytes: int) -> ResponseParser:
    return MembersBody(max_bytes, _MEMBERS, _read_members)


API: Final = Api(
    name="google.embed_content",
    operation="embeddings",
    read_request=_read_request,
    stream_parser=_parser,
    document_parser=_parser,
    read_error=_read_error,
)
