"""The turns of one WebSocket: both directions' bytes in, one interception a turn out. Answers nothing, and keeps no message.

The handshake is a passthrough request of its own, whose answer is the 101. A turn is an interception like any other, with the
handshake's head for its headers and 200 for its status, or that of the error message that refused it. So requests and responses, and
requests and outcomes, add up for turns as they do for requests.

Messages of the client are looked at before they are forwarded, those of the provider after: a turn is on disk before the provider
can know of it.

It is not total: what it raises beside `WireError` is a fault of ours, and `tap` stands between it and the bytes.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from aiproxyd.exceptions import MalformedBody, WireError
from aiproxyd.mitm.decrypted import AbortedBy, DecryptedConnection, TapSettings
from aiproxyd.mitm.interception import Interception
from aiproxyd.mitm.report import Reporter
from aiproxyd.model.endpoint import Endpoint
from aiproxyd.model.head import Headers, RequestHead, ResponseHead
from aiproxyd.model.observation import UnknownEventsSeen
from aiproxyd.providers.conversations import Conversation, Said, Turn
from aiproxyd.wire.websocket import Message, MessageFollower, agreed_compression

MAX_OPEN_TURNS: Final = 128
"""Turns of one connection whose answer is not over; clients that run several at once stay below 20."""

# Of the handshake alone: they would make all turns look like tries of one, or like compressed.
_NOT_OF_A_TURN: Final = ("x-client-request-id", "x-request-id", "idempotency-key", "content-encoding", "content-length")

_STREAM: Final = Headers([("content-type", "text/event-stream")])


class WebSocketObserver:
    """The observer of what follows a 101."""

    def __init__(
        self,
        reporter: Reporter,
        settings: TapSettings,
        *,
        conversation: Conversation,
        connection: DecryptedConnection,
        head: RequestHead,
        endpoint: Endpoint,
        response: ResponseHead,
    ) -> None:
        """Begin with the handshake's two heads."""
        self._reporter = reporter
        self._settings = settings
        self._conversation = conversation
        self._connection = connection
        target = f"{head.path}?{head.query}" if head.query else head.path
        headers = Headers([field for field in head.headers if field[0] not in _NOT_OF_A_TURN])
        self._head = RequestHead(head.method, target, headers, head.version)
        self._endpoint = Endpoint(route=endpoint.route, api=conversation.api.name, methods=endpoint.methods)
        self._pending: dict[str, deque[Interception]] = {}
        """Turns that nothing was said about yet, by lane."""
        self._active: dict[str, Interception] = {}
        """Turns that are being answered, by what tells them apart."""
        self._open = 0
        self._counted: set[str] = set()
        self._client: MessageFollower | None = None
        """None once the messages cannot be read any more."""
        self._server: MessageFollower | None = None
        try:
            compression = agreed_compression(response.headers)
        except MalformedBody:
            self._count("websocket:unknown_extension")
            return
        self._client = MessageFollower(
            max_message_bytes=settings.max_request_body_bytes,
            deflate=compression.deflate,
            takeover=compression.client_takeover,
        )
        self._server = MessageFollower(
            max_message_bytes=settings.max_response_body_bytes,
            deflate=compression.deflate,
            takeover=compression.server_takeover,
        )

    def request_data(self, data: bytes) -> None:
        """Take in the client's next bytes, before they are forwarded."""
        self._follow(self._client, data, self._from_client, AbortedBy.CLIENT)

    def response_data(self, data: bytes) -> None:
        """Take in the provider's next bytes."""
        self._follow(self._server, data, self._from_server, AbortedBy.UPSTREAM)

    def end(self, by: AbortedBy, detail: str) -> None:
        """End what is open: the connection is over."""
        self._client = self._server = None
        for turn in self._turns():
            turn.end(by, detail, 0)
        self._forget()

    def end_unread(self, anomaly: str) -> None:
        """End what is open as not understood."""
        self._client = self._server = None
        for turn in self._turns():
            turn.end_unread(anomaly, None, 200)
        self._forget()

    def _follow(self, follower: MessageFollower | None, data: bytes, read: Callable[[Message], None], side: AbortedBy) -> None:
        if follower is None:
            return
        try:
            for message in follower.feed(data):
                if message.is_text:
                    read(message)
            # A fault that came after whole messages is told by the next call.
            follower.feed(b"")
        except WireError as exc:
            self._count("websocket:malformed")
            self.end_unread(f"the WebSocket cannot be followed: {exc}")
            return
        if follower.is_closed:
            self.end(side, "the connection was closed by a close frame")

    def _from_client(self, message: Message) -> None:
        try:
            turn = self._conversation.from_client(message.data, is_whole=message.is_whole)
        except MalformedBody:
            self._count("websocket:unreadable_message")
            return
        if turn is not None:
            self._begin(turn)

    def _begin(self, turn: Turn) -> Interception | None:
        if self._open >= MAX_OPEN_TURNS:
            self._count("websocket:too_many_turns")
            return None
        interception = Interception(
            self._reporter,
            self._settings,
            api=self._conversation.api,
            connection=self._connection,
            head=self._head,
            endpoint=self._endpoint,
            started_at=self._reporter.monotonic(),
        )
        # Kept before anything is read: a fault of ours must find it and end it.
        self._pending.setdefault(turn.lane, deque()).append(interception)
        self._open += 1
        if turn.anomaly:
            interception.request_unread(turn.anomaly)
        else:
            interception.request_data(turn.body)
        interception.request_end()
        return interception

    def _from_server(self, message: Message) -> None:
        try:
            said = self._conversation.from_server(message.data, is_whole=message.is_whole)
        except MalformedBody:
            self._count("websocket:unreadable_message")
            return
        key = said.turn
        turn = self._active.get(key)
        if said.starts and (turn is None or said.response_id != turn.response_id):
            if turn is not None:
                self._end(key, turn)
            turn = self._answered(said)
        elif turn is None:
            turn = self._meant(said)
        if turn is None:
            return
        if message.is_whole:
            turn.response_data(message.data)
        else:
            turn.response_unread("a message is larger than what is read of one")
        if said.ends or turn.is_answered:
            self._end(key, turn)

    def _answered(self, said: Said) -> Interception | None:
        """Return the turn whose answer begins; the provider may have begun it by itself."""
        if not self._pending.get(said.lane) and self._begin(self._conversation.unasked(said)) is None:
            return None
        turn = self._take(said.lane)
        self._active[said.turn] = turn
        turn.response_head(ResponseHead(200, _STREAM))
        return turn

    def _meant(self, said: Said) -> Interception | None:
        """Return the turn that a message without an own one belongs to: the refused one, or the only one."""
        if said.is_refusal:
            # An error may leave its lane away.
            lane = said.lane if self._pending.get(said.lane) or len(self._pending) != 1 else next(iter(self._pending))
            if self._pending.get(lane):
                turn = self._take(lane)
                self._active[said.turn] = turn
                turn.response_head(ResponseHead(said.status_code or 200, _STREAM))
                return turn
        if (said.is_refusal or said.ends) and not said.response_id and len(self._active) == 1:
            (key,) = self._active
            turn = self._active[said.turn] = self._active.pop(key)
            return turn
        return None

    def _take(self, lane: str) -> Interception:
        waiting = self._pending[lane]
        turn = waiting.popleft()
        if not waiting:
            del self._pending[lane]
        return turn

    def _end(self, key: str, turn: Interception) -> None:
        turn.end(None, "", 0)
        del self._active[key]
        self._open -= 1

    def _turns(self) -> list[Interception]:
        return [*self._active.values(), *(turn for waiting in self._pending.values() for turn in waiting)]

    def _forget(self) -> None:
        # Not before each is told: a fault on the way leaves the rest to `end_unread`, which an ended turn ignores.
        self._active.clear()
        self._pending.clear()
        self._open = 0

    def _count(self, kind: str) -> None:
        """Count something that is not understood, once a connection."""
        if kind not in self._counted:
            self._counted.add(kind)
            self._reporter.tell(
                UnknownEventsSeen(
                    at=self._reporter.now(),
                    provider=self._connection.provider.name,
                    api=self._conversation.api.name,
                    counts={kind: 1},
                )
            )
