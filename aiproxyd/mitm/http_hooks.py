"""Feeds the tap from mitmproxy's HTTP hooks, and takes off requests what must not reach an origin.

For connections that mitmproxy's layers carry: HTTP/2, `decrypt.engine: mitmproxy`, and everything in mitmdump. It translates and
delegates: what is recorded, the tap decides. Requests and responses are always streamed, so nothing is buffered here, and bodies
arrive after transfer coding and still content-coded.

Facts about mitmproxy 12.2.3: of the hooks `response` and `error`, exactly one ends a flow, but neither comes when a layer breaks or
the process ends, so `client_disconnected` ends what is left. A request whose answer came early may never see its `request` hook.
"""
# mypy: disallow-untyped-calls=False

from collections.abc import Iterator

from mitmproxy import connection as mitm
from mitmproxy import http

from aiproxyd.credentials import without_query_key, without_token
from aiproxyd.mitm.hop_by_hop import GOVERNANCE_HEADERS, without_hop_by_hop, without_own
from aiproxyd.mitm.safe_layers import ENDED_BY, UPGRADED
from aiproxyd.mitm.tap import AbortedBy, DecryptedConnection, RequestTap, Tap
from aiproxyd.model.head import Headers, RequestHead, ResponseHead

_ENDED_BY = {
    "client": AbortedBy.CLIENT,
    "proxy": AbortedBy.REFUSED,
    "unreachable": AbortedBy.UNREACHABLE,
    "upstream": AbortedBy.UPSTREAM,
}


class HttpHooks:
    """Lets a tap see the requests of decrypted connections."""

    name = "aiproxyd_http"

    def __init__(self, tap: Tap, own_headers: frozenset[str] = GOVERNANCE_HEADERS) -> None:
        """
        Args:
            tap: Sees the requests.
            own_headers: Lower-case names of request fields that are meant for this proxy; the tap sees them, no origin does.
        """
        self._own_headers = own_headers
        self.is_draining = False
        """Whether each response ends its connection."""
        self._tap = tap
        self._connections: dict[str, DecryptedConnection] = {}
        self._open: dict[str, dict[str, RequestTap]] = {}
        self._upgraded: dict[str, RequestTap] = {}
        """Who looks at a client connection after a 101."""

    def watch(self, client_id: str, connection: DecryptedConnection) -> None:
        """Tap the requests of a client connection until it ends.

        Args:
            client_id: mitmproxy's id of the client connection.
            connection: Who, where to, and of which provider.
        """
        self._connections[client_id] = connection
        self._open[client_id] = {}

    def renew(self, client_id: str, connection: DecryptedConnection) -> None:
        """Let further requests of a client connection be told as those of `connection`."""
        if client_id in self._connections:
            self._connections[client_id] = connection

    def forget(self, client_id: str, by: AbortedBy, detail: str = "") -> None:
        """End what is left of a client connection. May be called again."""
        self._connections.pop(client_id, None)
        for tapped in self._open.pop(client_id, {}).values():
            tapped.abort(by, detail)
        if client_id in self._upgraded:
            self._upgraded.pop(client_id).upgraded_end(by, detail)

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Clean the head, open the tap, stream the body."""
        request = flow.request
        request.headers.fields = without_hop_by_hop(request.headers.fields)
        request.stream = True
        headers = _headers(request.headers)
        if headers.has_any(self._own_headers):
            request.headers.fields = without_own(request.headers.fields, self._own_headers)
        connection = self._connections.get(flow.client_conn.id)
        if connection is None:
            return
        if flow.error is not None:
            flow.metadata[ENDED_BY] = "proxy"  # mitmproxy refuses this head; its `error` hook follows
        head = RequestHead(request.method, request.path, headers, request.http_version.removeprefix("HTTP/"))
        if connection.token:
            edit = without_token(head, connection.token)
            request.headers.fields = without_own(request.headers.fields, edit.remove)
            if edit.removes_query_key:
                request.path = without_query_key(request.path)
        tapped = self._open[flow.client_conn.id][flow.id] = self._tap.open(connection, head)

        def forward(data: bytes) -> Iterator[bytes]:
            if data:
                yield data  # forwarded when this goes on
                tapped.request_data(data)

        request.stream = forward

    def request(self, flow: http.HTTPFlow) -> None:
        """Note the end of the request; one that a hook answered instead of the provider is refused."""
        tapped = self._tapped(flow)
        if tapped is None:
            return
        if flow.response is not None and not flow.response.stream:
            self._close(flow)
            tapped.abort(AbortedBy.REFUSED, "answered by an addon", status_code=flow.response.status_code)
            return
        tapped.request_end()

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Note the head of the response, stream the body."""
        response = flow.response
        assert response is not None
        response.stream = True
        if self.is_draining and not response.is_http2 and response.status_code != 101:
            response.headers["connection"] = "close"
        tapped = self._tapped(flow)
        if tapped is None:
            return
        tapped.response_head(
            ResponseHead(response.status_code, _headers(response.headers), response.http_version.removeprefix("HTTP/"))
        )
        if tapped.is_upgraded:
            flow.metadata[UPGRADED] = self._upgraded[flow.client_conn.id] = tapped

        def forward(data: bytes) -> Iterator[bytes]:
            if data:
                yield data  # forwarded when this goes on
                tapped.response_data(data)

        response.stream = forward

    def response(self, flow: http.HTTPFlow) -> None:
        """Note the end of the response."""
        tapped = self._close(flow)
        if tapped is not None:
            tapped.response_end()

    def error(self, flow: http.HTTPFlow) -> None:
        """Note that the response will never be whole, and whose doing it is."""
        tapped = self._close(flow)
        if tapped is None:
            return
        tapped.abort(_ENDED_BY.get(flow.metadata.get(ENDED_BY, ""), AbortedBy.UPSTREAM), flow.error.msg if flow.error else "")

    def client_disconnected(self, client: mitm.Client) -> None:
        """End what is left."""
        self.forget(client.id, AbortedBy.CLIENT, "the client left")

    def _tapped(self, flow: http.HTTPFlow) -> RequestTap | None:
        return self._open.get(flow.client_conn.id, {}).get(flow.id)

    def _close(self, flow: http.HTTPFlow) -> RequestTap | None:
        return self._open.get(flow.client_conn.id, {}).pop(flow.id, None)


def _headers(headers: http.Headers) -> Headers:
    return Headers((name.decode("latin-1"), value.decode("latin-1").strip(" \t")) for name, value in headers.fields)
