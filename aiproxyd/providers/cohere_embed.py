"""Cohere's embeddings (`POST /v2/embed`, `/v1/embed`).

Facts: the answer is one object whose bulk is numbers; `meta.billed_units` has what is charged. What is embedded is nobody's prompt.

Source:
    https://docs.cohere.com/reference/embed
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from aiproxyd.exceptions import MalformedBody
from aiproxyd.model.events import ProviderErrorReported, ResponseEnded, ResponseStarted, StreamEvent, UsageReported
from aiproxyd.providers import errors, openai_embeddings
from aiproxyd.providers.api import Api, ResponseParser
from aiproxyd.providers.cohere_usage import Usage, token_usage
from aiproxyd.providers.decoding import decode, text_of
from aiproxyd.providers.members_body import MembersBody

_META: Final = msgspec.json.Decoder(Usage | None)


def _read_members(members: Mapping[str, bytes]) -> list[StreamEvent]:
    if not members:
        raise MalformedBody("the document is no list of embeddings")
    meta = decode(_META, members.get("meta", b"null"))
    found = token_usage(meta) if meta is not None else None
    out: list[StreamEvent] = [ResponseStarted(text_of(msgspec.Raw(members.get("id", b"null"))) or "")]
    if found is not None:
        out.append(UsageReported(found, final=True))
    out.append(ResponseEnded())
    return out


def _read_error(status_code: int, body: bytes) -> ProviderErrorReported:
    return errors.read_error(status_code, body, provider_type="cohere")


def _parser(max_bytes: int) -> ResponseParser:
    return MembersBody(max_bytes, ("id", "meta"), _read_members)


API: Final = Api(
    name="cohere.embed",
    operation="embeddings",
    read_request=openai_embeddings.API.read_request,
    stream_parser=_parser,
    document_parser=_parser,
    read_error=_read_error,
)
