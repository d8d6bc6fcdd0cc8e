"""The Responses API over a WebSocket: turns are `response.create` messages, answers the events of a stream, one a message.

Facts:
- A connection answers one turn at a time in each lane (`stream_id`), in order; events of a lane repeat its name.
- A turn with `generate: false` only warms the provider up: no output, and no prompt of anybody.
- `response.steer` queues input for a response that runs. It may end as `incomplete: steered`, and the provider begins its successor
  by itself: that successor is a turn, whose prompt is what was queued.
- An `error` message ends its turn; it may come before `response.created`, and then has the HTTP status a POST would have got.

Source:
    https://developers.openai.com/api/docs/guides/websocket-mode
    https://developers.openai.com/api/reference/resources/responses/websocket-events
"""

from collections import OrderedDict
from typing import Final

import msgspec

from aiproxyd.exceptions import MalformedBody
from aiproxyd.model.head import RequestHead
from aiproxyd.providers import openai_responses, requests
from aiproxyd.providers.api import Api, RequestFacts
from aiproxyd.providers.conversations import Said, Turn, kind_of_cut, unmistakable
from aiproxyd.providers.decoding import decode, is_null, short, starts_with, text_of

MAX_STEERS: Final = 16
"""Queued inputs that are remembered on one connection, the newest; a tool steers one response at a time."""

MAX_STEER_BYTES: Final = 1 << 16
"""A larger queued input is not remembered; its successor is a turn without a prompt."""


class _ClientMessage(msgspec.Struct):
    type: str = ""
    stream_id: msgspec.Raw = requests.NOTHING
    previous_response_id: msgspec.Raw = requests.NOTHING
    input: msgspec.Raw = requests.NOTHING
    model: msgspec.Raw = requests.NOTHING
    response: msgspec.Raw = requests.NOTHING


class _Named(msgspec.Struct):
    id: msgspec.Raw = requests.NOTHING
    model: msgspec.Raw = requests.NOTHING
    previous_response_id: msgspec.Raw = requests.NOTHING


class _ServerMessage(msgspec.Struct):
    type: str = ""
    stream_id: msgspec.Raw = requests.NOTHING
    response: msgspec.Raw = requests.NOTHING
    status: msgspec.Raw = requests.NOTHING


class _Turn(msgspec.Struct):
    generate: msgspec.Raw = requests.NOTHING
    previous_response_id: msgspec.Raw = requests.NOTHING


_CLIENT: Final = msgspec.json.Decoder(_ClientMessage)
_SERVER: Final = msgspec.json.Decoder(_ServerMessage)
_NAMED: Final = msgspec.json.Decoder(_Named)
_TURN: Final = msgspec.json.Decoder(_Turn)
_INTEGER: Final = msgspec.json.Decoder(int)


class ResponsesConversation:
    """See `Conversation`."""

    __slots__ = ("_steers", "api")

    def __init__(self) -> None:
        self.api = TURN_API
        self._steers: OrderedDict[str, msgspec.Raw] = OrderedDict()
        """Queued inputs by the response that they steer."""

    def from_client(self, message: bytes, *, is_whole: bool) -> Turn | None:
        """See `Conversation.from_client`."""
        if not is_whole:
            if kind_of_cut(message) != "response.create":
                return None
            return Turn(b"", anomaly="the message is larger than what is read of one")
        said = unmistakable(_CLIENT, message)
        previous = text_of(said.previous_response_id) or ""
        if said.type == "response.steer":
            self._queue(previous, said.input)
        if said.type != "response.create":
            return None
        self._steers.pop(previous, None)
        is_nested = is_null(said.input) and is_null(said.model) and starts_with(said.response, b"{")
        return Turn(bytes(said.response) if is_nested else message, lane=short(text_of(said.stream_id) or ""))

    def from_server(self, message: bytes, *, is_whole: bool) -> Said:
        """See `Conversation.from_server`."""
        if not is_whole:
            return Said(kind_of_cut(message))
        said = unmistakable(_SERVER, message)
        lane = short(text_of(said.stream_id) or "")
        if said.type == "error":
            return Said("error", lane, lane, status_code=_status(said.status), is_refusal=True)
        if said.type != "response.created":
            return Said(said.type, lane, lane)
        response = decode(_NAMED, said.response) if starts_with(said.response, b"{") else _Named()
        return Said(
            said.type,
            lane,
            lane,
            response_id=text_of(response.id) or "",
            model=text_of(response.model) or "",
            previous_response_id=text_of(response.previous_response_id) or "",
        )

    def unasked(self, said: Said) -> Turn:
        """See `Conversation.unasked`."""
        body: dict[str, object] = {"model": said.model, "previous_response_id": said.previous_response_id}
        queued = self._steers.pop(said.previous_response_id, None)
        if queued is not None:
            body["input"] = queued
        return Turn(msgspec.json.encode(body), lane=said.lane)

    def _queue(self, previous: str, input_: msgspec.Raw) -> None:
        if previous and not is_null(input_) and len(input_) <= MAX_STEER_BYTES:
            self._steers[previous] = msgspec.Raw(bytes(input_))
            if len(self._steers) > MAX_STEERS:
                self._steers.popitem(last=False)


def read_turn(body: bytes, head: RequestHead) -> RequestFacts:
    """Return what a turn asks for. Total."""
    facts = openai_responses.API.read_request(body, head)
    metadata = facts.metadata | {"transport": "websocket"}
    try:
        turn = decode(_TURN, body)
    except MalformedBody:
        return msgspec.structs.replace(facts, streaming=True, metadata=metadata)
    if previous := text_of(turn.previous_response_id):
        metadata["previous_response_id"] = previous[: requests.MAX_HINT_CHARACTERS]
    if not starts_with(turn.generate, b"f"):
        return msgspec.structs.replace(facts, streaming=True, metadata=metadata)
    # Nobody is charged for what nobody answers: without reported usage there is nothing to estimate.
    return msgspec.structs.replace(
        facts, streaming=True, prompt=None, input_characters=0, metadata=metadata | {"warmup": "true"}
    )


def _status(raw: msgspec.Raw) -> int:
    try:
        status = decode(_INTEGER, raw)
    except MalformedBody:
        return 0
    return status if 400 <= status < 600 else 0


TURN_API: Final = Api(
    name=openai_responses.API.name,
    operation=openai_responses.API.operation,
    read_request=read_turn,
    stream_parser=openai_responses.message_parser,
    document_parser=openai_responses.API.document_parser,
    read_error=openai_responses.API.read_error,
)
