"""Where bytes that were already forwarded are looked at. Knows no mitmproxy, no socket and no event loop.

Whoever carries a decrypted connection (the relay below HTTP, or the hooks of mitmproxy's HTTP layers) opens a `RequestTap` a
request and feeds it heads and body bytes, after transfer coding and still content-coded, and after it has forwarded them.

After the 101 of a WebSocket whose turns are read, the same `RequestTap` is fed the bytes of both directions: `mitm.websocket`.

Observing fails open: no method raises and none blocks. A fault of ours inside is caught here, in the one place of this floor
where that is allowed; the request is then not looked at any more and ends as `parse_failed`, and its bytes go on.
"""

from collections.abc import Callable, Mapping
from typing import Final, Protocol

import msgspec
import structlog

from aiproxyd import clients
from aiproxyd.classify import find_endpoint
from aiproxyd.mitm.decrypted import STATUS_OF_ABORT, AbortedBy, DecryptedConnection, TapSettings
from aiproxyd.mitm.interception import Interception
from aiproxyd.mitm.report import Reporter
from aiproxyd.mitm.websocket import WebSocketObserver
from aiproxyd.model.endpoint import PASSTHROUGH, Endpoint
from aiproxyd.model.head import RequestHead, ResponseHead
from aiproxyd.model.observation import PassthroughEnded, PassthroughStarted
from aiproxyd.providers.api import Api
from aiproxyd.providers.apis import APIS
from aiproxyd.providers.conversation_apis import CONVERSATIONS
from aiproxyd.providers.conversations import Conversation

__all__ = ["AbortedBy", "DecryptedConnection", "RequestTap", "Tap", "TapSettings"]

_log = structlog.get_logger(__name__)


class _Observer(Protocol):
    """What looks at one request. It may raise; each method is called at most as often and in the order HTTP allows."""

    @property
    def id(self) -> str: ...

    def request_data(self, data: bytes) -> None: ...

    def request_end(self) -> None: ...

    def response_head(self, head: ResponseHead, at: float | None) -> None: ...

    def response_data(self, data: bytes, at: float | None) -> None: ...

    @property
    def is_midstream(self) -> bool: ...

    def held(self, seconds: float) -> None: ...

    def end(self, aborted_by: AbortedBy | None, detail: str, status_code: int, at: float | None) -> None: ...

    def end_unread(self, anomaly: str, aborted_by: AbortedBy | None, status_code: int) -> None: ...

    @property
    def request_model(self) -> str: ...

    def carried(self, attempts: int, credential_hint: str, remark: str) -> None: ...


class RequestTap:
    """One decrypted request and its response. Every method is total, and after the end every method does nothing.

    `response_head` may come before `request_end`. Exactly one of `response_end` and `abort` counts: the first.
    """

    __slots__ = (
        "_anomaly",
        "_is_over",
        "_is_request_over",
        "_key_hint",
        "_observer",
        "_upgrade",
        "_upgraded",
        "endpoint",
        "id",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        observer: _Observer | None,
        upgrade: Callable[[ResponseHead, str], WebSocketObserver] | None = None,
    ) -> None:
        """Return the tap of a request.

        Args:
            endpoint: What the request names; one without an API is a passthrough.
            observer: None when there is nothing to tell.
            upgrade: Gives who looks at what follows a 101, told the mask of the key of ours in use; None when nobody does.
        """
        self.endpoint = endpoint
        self.id = observer.id if observer is not None else ""
        """The interception's or the passthrough's UUID; empty when nothing is told of it."""
        self._observer = observer
        self._anomaly = ""
        """The fault of ours after which nothing more is looked at."""
        self._is_request_over = False
        self._is_over = observer is None
        self._upgrade = upgrade
        self._upgraded: WebSocketObserver | None = None
        self._key_hint = ""

    def held(self, seconds: float) -> None:
        """Take note of how long the request's or the response's first bytes were held before they were forwarded."""
        if self._observer is not None:
            self._observer.held(seconds)

    @property
    def is_midstream(self) -> bool:
        """Whether the next bytes of the response may be taken in a little later, with others: a stream, behind its first output."""
        return self._observer is not None and self._observer.is_midstream

    @property
    def is_over(self) -> bool:
        """Whether the end was told."""
        return self._is_over

    def request_data(self, data: bytes) -> None:
        """Take in the next bytes of the request's body."""
        if self._is_over or self._is_request_over or self._anomaly or self._observer is None:
            return
        try:
            self._observer.request_data(data)
        except Exception as exc:
            self._fail(exc)

    def request_end(self) -> None:
        """Take note that the request's body is whole; a request without a body is whole at once."""
        if self._is_over or self._is_request_over or self._anomaly or self._observer is None:
            return
        self._is_request_over = True
        try:
            self._observer.request_end()
        except Exception as exc:
            self._fail(exc)

    def response_head(self, head: ResponseHead, at: float | None = None) -> None:
        """Take note of the final response's head; interim ones (100, 103) are none of ours.

        A 101 ends the request: what follows is another protocol, which `is_upgraded` tells whether anybody reads.

        Args:
            head: The response's.
            at: When it came, by the reporter's monotonic clock; None is now.
        """
        if self._is_over or self._observer is None:
            return
        if not self._anomaly:
            try:
                self._observer.response_head(head, at)
            except Exception as exc:
                self._fail(exc)
        if head.status_code == 101:
            self.response_end(at)
            if self._upgrade is not None and (head.headers.first("upgrade") or "").lower() == "websocket":
                try:
                    self._upgraded = self._upgrade(head, self._key_hint)
                except Exception as exc:
                    self._fail(exc)

    def response_data(self, data: bytes, at: float | None = None) -> None:
        """Take in the next bytes of the response's body, which came `at`, as with `response_head`."""
        if self._is_over or self._anomaly or self._observer is None:
            return
        try:
            self._observer.response_data(data, at)
        except Exception as exc:
            self._fail(exc)

    def response_end(self, at: float | None = None) -> None:
        """Take note that the response is whole by HTTP's framing, since `at`, as with `response_head`."""
        self._end(None, "", 0, at)

    def abort(self, by: AbortedBy, detail: str = "", *, status_code: int = 0) -> None:
        """Take note that the response will never be whole.

        Args:
            by: Who ended it.
            detail: A sentence for the record.
            status_code: What the client got from us instead of an answer; 0 for the usual one of `by`.
        """
        self._end(by, detail, status_code)

    def lose_sight(self, anomaly: str) -> None:
        """Take note that HTTP cannot be followed any more: the bytes go on, and nobody knows to what they belong.

        Args:
            anomaly: A sentence for the record; the request ends as `parse_failed`.
        """
        if not self._is_over:
            self._anomaly = self._anomaly or anomaly
            self._end(None, "", 0)

    @property
    def request_model(self) -> str:
        """The model that the request names; empty before its end, and where there is none."""
        return self._observer.request_model if self._observer is not None else ""

    def carried(self, attempts: int, credential_hint: str, remark: str = "") -> None:
        """Take note of what was done to have it answered. The last call counts.

        Args:
            attempts: How often it was sent, with one key after the other.
            credential_hint: The mask of the key of ours that was used last; empty where there was none.
            remark: Why it was not sent again although it might have been; a sentence.
        """
        self._key_hint = credential_hint
        if self._observer is not None:
            self._observer.carried(attempts, credential_hint, remark)

    @property
    def is_upgraded(self) -> bool:
        """Whether the bytes that follow the 101 are wanted."""
        return self._upgraded is not None

    def upgraded_request_data(self, data: bytes) -> None:
        """Take in the client's next bytes after a 101, before they are forwarded."""
        if self._upgraded is not None:
            try:
                self._upgraded.request_data(data)
            except Exception as exc:
                self._fail_upgraded(exc)

    def upgraded_response_data(self, data: bytes) -> None:
        """Take in the provider's next bytes after a 101, after they were forwarded."""
        if self._upgraded is not None:
            try:
                self._upgraded.response_data(data)
            except Exception as exc:
                self._fail_upgraded(exc)

    def upgraded_end(self, by: AbortedBy, detail: str = "") -> None:
        """Take note that the connection is over. Only the first call counts."""
        upgraded, self._upgraded = self._upgraded, None
        if upgraded is not None:
            try:
                upgraded.end(by, detail)
            except Exception as exc:
                self._upgraded = upgraded
                self._fail_upgraded(exc)

    def _fail_upgraded(self, exc: Exception) -> None:
        """Look at nothing more of this connection, and end its turns as not understood."""
        self._fail(exc)
        upgraded, self._upgraded = self._upgraded, None
        if upgraded is not None:
            try:
                upgraded.end_unread(self._anomaly)
            except Exception as again:
                self._fail(again)

    def _end(self, aborted_by: AbortedBy | None, detail: str, status_code: int, at: float | None = None) -> None:
        if self._is_over or self._observer is None:
            return
        self._is_over = True
        observer, self._observer = self._observer, None
        if not self._anomaly:
            try:
                observer.end(aborted_by, detail, status_code, at)
            except Exception as exc:
                self._fail(exc)
            else:
                return
        try:
            observer.end_unread(self._anomaly, aborted_by, status_code)
        except Exception as exc:
            self._fail(exc)

    def _fail(self, exc: Exception) -> None:
        self._anomaly = _place_of(exc)
        _log.error("the tap failed; the request is forwarded unobserved", interception_id=self.id, error=self._anomaly)


class _Passthrough:
    """The observer of a decrypted request that is counted and not read."""

    __slots__ = ("_provider", "_reporter", "_status_code", "id")

    is_midstream: Final = False

    def __init__(self, reporter: Reporter, connection: DecryptedConnection, head: RequestHead, endpoint: Endpoint) -> None:
        self.id = reporter.new_id()
        self._reporter = reporter
        self._provider = connection.provider.name
        self._status_code = 0
        reporter.tell(
            PassthroughStarted(
                at=reporter.now(),
                request_id=self.id,
                provider=self._provider,
                method=head.method,
                route=endpoint.route,
                host=connection.authority.host,
                trace_parent=clients.trace_parent(head.headers),
            )
        )
        reporter.flush()

    def request_data(self, data: bytes) -> None:
        pass

    def request_end(self) -> None:
        pass

    def response_head(self, head: ResponseHead, at: float | None) -> None:  # noqa: ARG002 (counted, not timed)
        self._status_code = head.status_code

    def response_data(self, data: bytes, at: float | None) -> None:
        pass

    def held(self, seconds: float) -> None:
        pass

    @property
    def request_model(self) -> str:
        return ""

    def carried(self, attempts: int, credential_hint: str, remark: str) -> None:
        pass

    def end(
        self,
        aborted_by: AbortedBy | None,
        detail: str,  # noqa: ARG002 (counted, not told)
        status_code: int,
        at: float | None = None,  # noqa: ARG002
    ) -> None:
        if aborted_by is not None:
            self._status_code = self._status_code or status_code or STATUS_OF_ABORT[aborted_by]
        self._reporter.tell(
            PassthroughEnded(
                at=self._reporter.now(), request_id=self.id, provider=self._provider, status_code=self._status_code
            )
        )

    def end_unread(self, anomaly: str, aborted_by: AbortedBy | None, status_code: int) -> None:
        self.end(aborted_by, anomaly, status_code)


class Tap:
    """Opens the tap of each decrypted request. `settings` may be replaced; requests that are open keep theirs."""

    __slots__ = ("_apis", "_conversations", "_reporter", "settings")

    def __init__(
        self,
        reporter: Reporter,
        settings: TapSettings,
        *,
        apis: Mapping[str, Api] = APIS,
        conversations: Mapping[str, Callable[[], Conversation]] = CONVERSATIONS,
    ) -> None:
        self._reporter = reporter
        self._apis: Final = apis
        self._conversations: Final = conversations
        self.settings = settings

    def open(self, connection: DecryptedConnection, head: RequestHead, at: float | None = None) -> RequestTap:
        """Return the tap of the request that begins with `head`, to be called before anything of it leaves for the provider.

        What it tells is on disk when it returns (or when the reporter is released, where it was held). An endpoint whose API
        nobody reads is a passthrough.

        Args:
            connection: That it came over.
            head: The request's.
            at: When it came, by the reporter's monotonic clock. Who says so also tells, by `held`, when it left. None is now,
                and what `open` takes is told.
        """
        endpoint = PASSTHROUGH
        began = self._reporter.monotonic() if at is None else at
        try:
            endpoint = find_endpoint(connection.provider, head.method, head.path)
            api = self._apis.get(endpoint.api)
            if api is None:
                observer = _Passthrough(self._reporter, connection, head, endpoint)
                return RequestTap(endpoint, observer, self._upgrade_of(connection, head, endpoint))
            interception = Interception(
                self._reporter, self.settings, api=api, connection=connection, head=head, endpoint=endpoint, started_at=began
            )
            if at is None:
                interception.held(self._reporter.monotonic() - began)
            return RequestTap(endpoint, interception)
        except Exception as exc:
            _log.error("the tap failed; the request is forwarded unobserved", error=_place_of(exc))
            return RequestTap(endpoint, None)

    def _upgrade_of(
        self, connection: DecryptedConnection, head: RequestHead, endpoint: Endpoint
    ) -> Callable[[ResponseHead, str], WebSocketObserver] | None:
        conversation = self._conversations.get(endpoint.websocket)
        if conversation is None:
            return None

        def upgrade(response: ResponseHead, key_hint: str) -> WebSocketObserver:
            return WebSocketObserver(
                self._reporter,
                self.settings,
                conversation=conversation(),
                connection=msgspec.structs.replace(connection, key_hint=key_hint) if key_hint else connection,
                head=head,
                endpoint=endpoint,
                response=response,
            )

        return upgrade


def unseen() -> RequestTap:
    """Return the tap of a request of which nothing is told."""
    return RequestTap(PASSTHROUGH, None)


def _place_of(exc: Exception) -> str:
    """Return the kind of a fault and where it happened. Its text may hold what the bytes held, and stays out of logs."""
    traceback = exc.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    place = ""
    if traceback is not None:
        code = traceback.tb_frame.f_code
        place = f" in {code.co_qualname}, line {traceback.tb_lineno}"
    return f"internal error: {type(exc).__name__}{place}"
