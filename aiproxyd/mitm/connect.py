"""The verdict on a CONNECT, as mitmproxy's `http_connect` hook: authority, port, credentials, provider, in this order.

Runs in the daemon (through `Engine.decide`) and in plain mitmdump alike. Not the place where answers of the identity service are
remembered, and not where addresses are checked.

Fails closed, by itself: mitmproxy logs what a hook raises and lets the connection pass, so nothing may be raised from here.
"""

import base64
import binascii
import logging
from typing import Protocol

import msgspec
from mitmproxy import http

from aiproxyd.classify import ProviderTable
from aiproxyd.exceptions import AiproxydError
from aiproxyd.identity.networks import NetworkTable
from aiproxyd.model.authority import Authority, parse_authority
from aiproxyd.model.principal import ANONYMOUS, Principal
from aiproxyd.model.verdict import Action, Verdict
from aiproxyd.policy import decide, needs_credentials

log = logging.getLogger(__name__)

VERDICT = "aiproxyd.verdict"
"""Key of the `Verdict` in the metadata of a CONNECT's flow."""

AUTHORITY = "aiproxyd.authority"
"""Key of the `Authority` in the metadata of a CONNECT's flow; absent when the text named none."""

# A Basic credential of 4 KiB holds any token we make (under 100 bytes) and any JWT that proxies accept in practice.
MAX_CREDENTIAL_BYTES = 8192

NO_NETWORKS = NetworkTable()

_HOW_TO_AUTHENTICATE = (
    "set the proxy to http://USER:TOKEN@HOST:PORT (the token is the password; `aiproxyd user add NAME` makes one, "
    "`aiproxyd env` prints the lines to paste)"
)


class Authenticator(Protocol):
    """Who knows whose a credential is."""

    async def authenticate(self, credential: str) -> Principal | None:
        """Return whose credential it is, or None when it is nobody's.

        Raises:
            AiproxydError: Nobody could be asked; the caller refuses.
        """


class ConnectSettings(msgspec.Struct, frozen=True):
    """All that a verdict depends on besides the CONNECT itself. Swapped whole at a reload."""

    providers: ProviderTable
    auth_mode: str = "required"
    """`required`, `decrypted` or `off`."""
    realm: str = "AI Gateway Proxy"
    """Realm of the 407 challenge; no quotes, backslashes or line ends."""
    allowed_ports: frozenset[int] = frozenset({80, 443})
    networks: NetworkTable = NO_NETWORKS
    """Users of clients that send no credentials."""


class ConnectAddon:
    """Gives each CONNECT its verdict and, for a refusal, its answer."""

    name = "aiproxyd_connect"

    def __init__(self, authenticator: Authenticator, settings: ConnectSettings) -> None:
        self.settings = settings
        """The settings in use. Assign another one to change them all at once."""
        self._authenticator = authenticator

    async def http_connect(self, flow: http.HTTPFlow) -> None:
        """Set the flow's verdict, and its response when that is a refusal. Raises nothing."""
        if flow.response is not None and not 200 <= flow.response.status_code < 300:
            return  # an addon before this one refused already
        settings = self.settings
        try:
            verdict = await self._verdict(flow, settings)
        except AiproxydError as exc:
            log.warning("a CONNECT is refused because its credentials cannot be checked: %s", exc)
            verdict = _unavailable("identity_unavailable", "credentials cannot be checked right now; try again in a moment")
        except Exception:
            # The hook boundary: mitmproxy would log this and answer 200.
            log.exception("a CONNECT is refused because its verdict could not be worked out")
            verdict = _unavailable("internal", "this proxy met an error of its own and refuses what it cannot decide")
        flow.metadata[VERDICT] = verdict
        if verdict.action is Action.REFUSE:
            flow.response = refusal(verdict, realm=settings.realm)

    async def _verdict(self, flow: http.HTTPFlow, settings: ConnectSettings) -> Verdict:
        request = flow.request
        is_connect = request.method == "CONNECT"
        try:
            authority = authority_of(request)
        except ValueError as exc:
            return Verdict(Action.REFUSE, "authority", status_code=400, message=str(exc))
        flow.metadata[AUTHORITY] = authority

        verdict = decide(authority, principal=None, providers=settings.providers, allowed_ports=settings.allowed_ports)
        # The port comes before the credentials: it tells nothing, and a client with a wrong port need not be asked who it is.
        if verdict.reason == "port":
            return msgspec.structs.replace(verdict, principal=await self._whoever(flow, settings))
        principal: Principal | None = None
        fields = request.headers.get_all("proxy-authorization")
        if settings.auth_mode == "off":
            principal = self._by_network(flow, settings) or ANONYMOUS
        elif not fields and (by_network := self._by_network(flow, settings)) is not None:
            principal = by_network
        elif needs_credentials(authority, auth_mode=settings.auth_mode, providers=settings.providers):
            if not fields:
                return _challenge("missing_credentials", f"this proxy asks for credentials: {_HOW_TO_AUTHENTICATE}")
            token = token_of(fields[0]) if len(fields) == 1 else None
            if token is None:
                return _challenge("invalid_credentials", f"the proxy credentials cannot be read: {_HOW_TO_AUTHENTICATE}")
            principal = await self._authenticator.authenticate(token)
            if principal is None:
                return _challenge("invalid_credentials", f"the proxy token is unknown or revoked: {_HOW_TO_AUTHENTICATE}")
        if verdict.action is Action.DECRYPT and not is_connect:
            # It would pass unseen by the tap, and its key in clear text, also where the provider's base_url begins with http://.
            return Verdict(
                Action.REFUSE,
                "plain_http",
                principal=principal,
                provider=verdict.provider,
                status_code=403,
                message=f"{authority} belongs to the AI provider {verdict.provider!r}, and a plain http:// request to it would go "
                "unrecorded: use an https:// URL",
            )
        return msgspec.structs.replace(verdict, principal=principal) if principal is not None else verdict

    async def _whoever(self, flow: http.HTTPFlow, settings: ConnectSettings) -> Principal | None:
        """Return who it is that is refused whoever it is, for those who look on; None when that is not known."""
        fields = flow.request.headers.get_all("proxy-authorization")
        if settings.auth_mode == "off" or not fields:
            return self._by_network(flow, settings)
        token = token_of(fields[0]) if len(fields) == 1 else None
        try:
            return await self._authenticator.authenticate(token) if token is not None else None
        except AiproxydError:
            return None

    @staticmethod
    def _by_network(flow: http.HTTPFlow, settings: ConnectSettings) -> Principal | None:
        address = flow.client_conn.peername
        return settings.networks.principal_of(address[0]) if address else None


def authority_of(request: http.Request) -> Authority:
    """Return the destination that a CONNECT, or a request in absolute form, names.

    Raises:
        ValueError: It names none; the message quotes it.
    """
    default_port = None if request.method == "CONNECT" else 80
    # Not `request.authority`: it decodes IDNA, and a name must be compared as it is dialled.
    text = request.data.authority.decode("latin-1")
    if not text:
        host = request.data.host
        text = f"[{host}]:{request.port}" if ":" in host else f"{host}:{request.port}"
    return parse_authority(text, default_port=default_port)


def token_of(field: str) -> str | None:
    """Return the token in a `Proxy-Authorization` value, or None when there is none to be read.

    `Basic` (any user name; the token is the password, after the first colon) and `Bearer` are read, in any case of letters.
    """
    if len(field) > MAX_CREDENTIAL_BYTES:
        return None
    scheme, _, credential = field.strip().partition(" ")
    credential = credential.strip(" ")
    if not credential or " " in credential:
        return None
    match scheme.lower():
        case "bearer":
            return credential
        case "basic":
            try:
                _, _, token = base64.b64decode(credential, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                return None
            return token or None
        case _:
            return None


def refusal(verdict: Verdict, *, realm: str) -> http.Response:
    """Return the answer to a refused CONNECT: plain text, because some clients show it to their user as it is.

    The connection stays usable: many clients send their first CONNECT without credentials and repeat it on the same one.
    """
    headers = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
    if verdict.status_code == 407:
        headers["Proxy-Authenticate"] = f'Basic realm="{realm}"'
    elif verdict.status_code == 503:
        headers["Retry-After"] = "2"
    return http.Response.make(verdict.status_code, f"aiproxyd: {verdict.message}\n".encode(), headers)


def _challenge(reason: str, message: str) -> Verdict:
    return Verdict(Action.REFUSE, reason, status_code=407, message=message)


def _unavailable(reason: str, message: str) -> Verdict:
    return Verdict(Action.REFUSE, reason, status_code=503, message=message)
