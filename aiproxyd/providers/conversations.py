"""What the messages of a WebSocket mean: which of them begin a turn, and to which turn an answer belongs. Not a parser of answers.

A turn is what a POST is elsewhere: one request and its response, and one record. Turns of one connection may wait for each other in
a lane, or run side by side in several.

Source:
    https://developers.openai.com/api/docs/guides/websocket-mode
    https://developers.openai.com/api/docs/guides/realtime-conversations
"""

import re
from typing import Final, Protocol

import msgspec

from aiproxyd.exceptions import MalformedBody
from aiproxyd.providers.api import Api
from aiproxyd.providers.decoding import decode

TERMINAL: Final = frozenset({"response.completed", "response.incomplete", "response.failed", "response.done"})
"""Kinds of a provider's last message of a turn."""

WHOLE: Final = frozenset(
    {"conversation.item.input_audio_transcription.completed", "conversation.item.input_audio_transcription.failed"}
)
"""Kinds of a provider's message that is a turn by itself: what another model made of the speaker's sound, and is charged for."""


class Turn(msgspec.Struct, frozen=True):
    """A turn that begins."""

    body: bytes
    """What `Api.read_request` of the conversation reads."""
    lane: str = ""
    """Where it waits for its answer; turns of one lane are answered in order."""
    anomaly: str = ""
    """Why there is no body to read."""


class Said(msgspec.Struct, frozen=True):
    """A message of the provider, as far as it says to which turn it belongs."""

    kind: str
    lane: str = ""
    """Where the turn waits that it begins, or refuses."""
    turn: str = ""
    """What tells the turn it belongs to from others that are being answered."""
    response_id: str = ""
    model: str = ""
    previous_response_id: str = ""
    status_code: int = 0
    """Of an error that has one."""
    is_refusal: bool = False
    """Whether it is an error that ends its turn."""

    @property
    def starts(self) -> bool:
        """Whether it is the first of an answer."""
        return self.kind == "response.created" or self.kind in WHOLE

    @property
    def ends(self) -> bool:
        """Whether it is the last of its turn."""
        return self.is_refusal or self.kind in TERMINAL or self.kind in WHOLE


class Conversation(Protocol):
    """The messages of one connection. Holds what one message says about a later turn, and nothing of an answer."""

    api: Api
    """How turns are read; its stream parser takes one message a call."""

    def from_client(self, message: bytes, *, is_whole: bool) -> Turn | None:
        """Return the turn that a message begins, or None.

        Args:
            message: JSON text; its first bytes alone when it exceeds a limit.
            is_whole: Whether `message` is all of it.

        Raises:
            MalformedBody: It is no JSON object.
        """

    def from_server(self, message: bytes, *, is_whole: bool) -> Said:
        """Return where a message belongs. As `from_client`."""

    def unasked(self, said: Said) -> Turn:
        """Return the turn that the provider began by itself with `said`."""


# Of a message above its limit only the first bytes are known. Implementations write the type first.
_TYPE: Final = re.compile(rb'"type"\s*:\s*"([^"\\]{1,100})"')


def kind_of_cut(message: bytes) -> str:
    """Return the type of a message of which only the first bytes are known.

    Raises:
        MalformedBody: They do not say it.
    """
    found = _TYPE.search(message)
    if found is None:
        raise MalformedBody("the first bytes of a large message do not say its type")
    return found[1].decode("utf-8", "replace")


def unmistakable[T](decoder: msgspec.json.Decoder[T], message: bytes) -> T:
    """Return what a message says, by `decoder`'s type.

    Raises:
        MalformedBody: It is no JSON object.
    """
    if not message.lstrip(b" \t\r\n\xef\xbb\xbf").startswith(b"{"):
        raise MalformedBody("the message is no JSON object")
    return decode(decoder, message)
