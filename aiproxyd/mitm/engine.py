"""mitmproxy as a library: its addons decide about CONNECTs, its layers carry decrypted connections that need them.

Not a proxy of its own: it has no listener (`front` accepts), resolves and dials nothing (`egress` does), and has none of mitmproxy's
default addons; those serve pages, scripts, files and credentials that a daemon must not.
"""
# mypy: disallow-untyped-calls=False

import logging
import time
from collections.abc import Iterable
from typing import NamedTuple

from mitmproxy import connection as mitm
from mitmproxy import http
from mitmproxy.net.http.http1 import assemble_response

from aiproxyd.mitm.connect import AUTHORITY, VERDICT, ConnectAddon, refusal
from aiproxyd.mitm.hooks import HookTable
from aiproxyd.mitm.host import AddonHost
from aiproxyd.model.authority import Authority, parse_authority
from aiproxyd.model.head import Headers
from aiproxyd.model.verdict import Action, Verdict

log = logging.getLogger(__name__)


class Decision(NamedTuple):
    """What is to happen with a CONNECT, and the bytes of the answer when it is refused."""

    verdict: Verdict
    response: bytes | None
    """A whole HTTP/1.1 response for REFUSE; None otherwise. The client's connection may be used again after it."""
    authority: Authority | None
    """The destination; None when the request named none."""


class Engine:
    """The addons of a worker, and mitmproxy's machinery for them."""

    def __init__(self, connect: ConnectAddon, *, addons: Iterable[object] = ()) -> None:
        """Prepare; nothing runs before `start`.

        Args:
            connect: The addon that gives a CONNECT its verdict.
            addons: Further mitmproxy addons, called after it.
        """
        self._connect = connect
        self._addons = tuple(addons)
        self._host: AddonHost | None = None
        self._hooks: HookTable | None = None

    async def start(self) -> None:
        """Load the addons. Call once, on the loop that will serve."""
        self._host = AddonHost(self._connect, *self._addons)
        self._hooks = HookTable(self._host.addons)
        await self._host.running()

    async def close(self) -> None:
        """Tell the addons that it is over."""
        if self._host is not None:
            host, self._host = self._host, None
            await host.done()

    async def decide(
        self,
        authority_text: str,
        headers: Headers,
        client: tuple[str, int],
        *,
        method: str = "CONNECT",
    ) -> Decision:
        """Return what the addons' `http_connect` hooks say about a CONNECT.

        Fails closed: when a hook raises, takes too long or leaves no verdict, the decision is to refuse with 503.

        Args:
            authority_text: The request target of a CONNECT; the authority of a plain request in absolute form.
            headers: Header fields of the request.
            client: Address and port of the client.
            method: Another method than CONNECT marks a plain `http://` request to be forwarded.
        """
        flow = _connect_flow(authority_text, headers, client, method)
        assert self._hooks is not None, "the engine is not started"
        try:
            pending = self._hooks.run("http_connect", flow)
            if pending is not None:
                await pending
        except Exception:
            # The hook boundary: what a policy raises is never a yes.
            log.exception("a CONNECT is refused because an addon failed")
            return self._failed(flow)
        return self._decision(flow)

    def _decision(self, flow: http.HTTPFlow) -> Decision:
        verdict = flow.metadata.get(VERDICT)
        authority = flow.metadata.get(AUTHORITY)
        response = flow.response
        if response is not None and not 200 <= response.status_code < 300:
            if not isinstance(verdict, Verdict) or verdict.action is not Action.REFUSE:
                verdict = Verdict(Action.REFUSE, "addon", status_code=response.status_code, message="refused by an addon")
            return Decision(verdict, assemble_response(response), authority)
        if flow.error is not None or not isinstance(verdict, Verdict) or verdict.action is Action.REFUSE or authority is None:
            # Killed by an addon, nobody's verdict, or a refusal whose answer somebody took away.
            return self._failed(flow)
        return Decision(verdict, None, authority)

    def _failed(self, flow: http.HTTPFlow) -> Decision:
        message = "this proxy met an error of its own and refuses what it cannot decide"
        verdict = Verdict(Action.REFUSE, "internal", status_code=503, message=message)
        response = assemble_response(refusal(verdict, realm=self._connect.settings.realm))
        return Decision(verdict, response, flow.metadata.get(AUTHORITY))


def _connect_flow(authority_text: str, headers: Headers, client: tuple[str, int], method: str) -> http.HTTPFlow:
    try:
        host, port = parse_authority(authority_text, default_port=None if method == "CONNECT" else 80)
    except ValueError:
        host, port = "", 0  # the connect addon refuses it
    at = time.time()
    flow = http.HTTPFlow(
        mitm.Client(peername=client, sockname=("", 0), timestamp_start=at, state=mitm.ConnectionState.OPEN),
        mitm.Server(address=(host, port)),
        live=True,
    )
    flow.request = http.Request(
        host=host,
        port=port,
        method=method.encode("latin-1", "replace"),
        scheme=b"",
        authority=authority_text.encode("utf-8", "surrogateescape"),
        path=b"",
        http_version=b"HTTP/1.1",
        headers=http.Headers([(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]),
        content=b"",
        trailers=None,
        timestamp_start=at,
        timestamp_end=at,
    )
    return flow
