"""What an API's parsers look like from outside. Each module beside this one implements one API and registers in `apis`."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from aiproxyd.model.events import ProviderErrorReported, StreamEvent
from aiproxyd.model.head import RequestHead, ResponseHead
from aiproxyd.providers.samples import Samples


class RequestFacts(msgspec.Struct, frozen=True):
    """What a request's body says."""

    request_model: str = ""
    """Empty when the body names none."""
    streaming: bool = False
    asks_for_usage: bool = False
    """Whether it asks for figures that a stream would not have otherwise."""
    prompt: str | None = None
    """The last user prompt by the rules of its API; None when there is none. An empty string is a prompt that is empty."""
    correlating_tool_call_id: str = ""
    """The tool result this request answers with."""
    client_session_id: str = ""
    """A session id that is found in the body alone (`metadata.user_id`, `prompt_cache_key`, …), raw candidates only:
    `clients` decides whether it counts for the client that sent it."""
    anomaly: str = ""
    """What about the body was not as documented, though the rest of the facts stand."""
    input_characters: int = 0
    """Length of all text in the request, for estimates when no usage is reported."""
    metadata: dict[str, str] = {}


class ResponseParser(Protocol):
    """Bytes of one response body, content-decoded, to events. Any split of the body gives the same events.

    A parser is total: bytes give events or one `WireError`, after which it is spent. Unknown things become `UnknownEvent`.
    """

    @property
    def samples(self) -> Samples | None:
        """Redacted shapes of what it does not know, or misses, bounded in number and size; None where it keeps none."""

    def feed(self, data: bytes) -> list[StreamEvent]:
        """Return the events that `data` completes, oldest first.

        Raises:
            WireError: The bytes are not what the API documents; stop feeding, keep forwarding.
        """

    def close(self) -> list[StreamEvent]:
        """Return the events that only the end of the body completes.

        Raises:
            WireError: As `feed`; an unreadable document body is found here.
        """


class Api(msgspec.Struct, frozen=True):
    """One API: how its requests and responses are read."""

    name: str
    """`anthropic.messages`, `openai.chat_completions`, `openai.responses`, …."""
    operation: str
    """OpenTelemetry's `gen_ai.operation.name`: `chat`, `embeddings`, …."""
    read_request: Callable[[bytes, RequestHead], RequestFacts]
    """Total: a body that is not JSON gives facts with `anomaly` set."""
    stream_parser: Callable[[int], ResponseParser]
    """Given `max_event_bytes`, the parser of a streamed response."""
    document_parser: Callable[[int], ResponseParser]
    """Given `max_body_bytes`, the parser of a response in one document."""
    read_error: Callable[[int, bytes], ProviderErrorReported]
    """Given an error status and the body (maybe cut), the provider's own error. Total."""
    stream_types: tuple[str, ...] = ("text/event-stream",)
    """Content types that only a streamed response has."""
    streams_json: bool = False
    """Whether the response to a streaming request may be JSON all the same, as Google's arrays are."""
    read_head: Callable[[ResponseHead], list[StreamEvent]] | None = None
    """What the head of a successful response says by itself, where an API tells anything there. Total."""
