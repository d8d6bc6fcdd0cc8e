"""The body of one request: bytes in, what they say out. Tells nobody; `interception` does.

What cannot be read is an anomaly, and everything after it is ignored.
"""

from typing import Final

from aiproxyd.exceptions import WireError
from aiproxyd.mitm.decrypted import TapSettings
from aiproxyd.model.head import Headers, RequestHead
from aiproxyd.project import find_project
from aiproxyd.providers.api import Api, RequestFacts
from aiproxyd.purpose import purpose_of
from aiproxyd.wire.content_coding import ContentDecoder
from aiproxyd.wire.json_document import DocumentCollector

_NOTHING_KNOWN: Final = RequestFacts()


class RequestReading:
    """A request's body while it arrives, and its facts afterwards. Reading an attribute is always allowed."""

    __slots__ = ("_body", "_decoder", "anomaly", "facts", "origin", "received_bytes")

    def __init__(self, headers: Headers, max_body_bytes: int) -> None:
        """Begin before the first byte.

        Args:
            headers: Of the request.
            max_body_bytes: A larger body (decoded) is not read.
        """
        self._body: DocumentCollector | None = DocumentCollector(max_body_bytes)
        """None once the body was read or turned out unreadable."""
        self._decoder: ContentDecoder | None = None
        self.anomaly = ""
        """Why the body was not read."""
        self.facts = _NOTHING_KNOWN
        self.origin: dict[str, str] = {}
        """Why the request was sent, and where its tool works; by the keys of records."""
        self.received_bytes = 0
        """Content-coded."""
        try:
            self._decoder = decoder_for(headers)
        except WireError as exc:
            self.give_up(f"request body: {exc}")

    def feed(self, data: bytes) -> None:
        """Take in the next bytes, content-coded."""
        self.received_bytes += len(data)
        body = self._body
        if body is None:
            return
        try:
            if self._decoder is None:
                body.feed(data)
            else:
                for piece in self._decoder.feed(data):
                    body.feed(piece)
        except WireError as exc:
            self.give_up(f"request {exc}" if body.is_too_large else f"request body: {exc}")

    def close(self, api: Api, head: RequestHead, client: str, settings: TapSettings) -> None:
        """Read the whole body.

        Args:
            api: Whose request it is.
            head: Of the request.
            client: Name of who sent it.
            settings: What may be kept.
        """
        if self._body is None:
            return
        try:
            if self._decoder is not None:
                self._decoder.close()
            body = self._body.close()
        except WireError as exc:
            self.give_up(f"request body: {exc}")
            return
        self.forget()
        self.facts = api.read_request(body, head)
        self.origin = purpose_of(client, head.headers, self.facts, body)
        if settings.record_project:
            project = find_project(client, head.headers, body)
            if project is not None:
                self.origin |= project.as_metadata()

    def give_up(self, anomaly: str) -> None:
        """Read no more, for the reason `anomaly`."""
        self.anomaly = anomaly
        self.forget()

    def forget(self) -> None:
        """Let go what is held."""
        self._body = None
        self._decoder = None


def decoder_for(headers: Headers) -> ContentDecoder | None:
    """Return the decoder of a body's content codings; None when it has none.

    Raises:
        WireError: A coding is not known, or there are too many.
    """
    if "content-encoding" not in headers:
        return None
    decoder = ContentDecoder(headers.tokens("content-encoding"))
    return None if decoder.is_identity else decoder
