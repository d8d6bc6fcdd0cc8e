"""The addons of `addons/*.py`, for people who run plain mitmdump: one process, no control, no admin server.

The same classes as in the daemon, composed for mitmproxy's own listener. What differs from the daemon:
- A TUNNEL verdict is mitmproxy's ignored tunnel (`TCPLayer(ignore=True)`): no hooks and no flow, but it costs more than a splice, and
  a client that closes its half loses the reply.
- Authentication knows the users of the configuration alone, not those of `aiproxyd user add`.
- A blocked or unreachable destination is answered with 502, whatever the reason.
- Observations go to the journal in `data_dir`; a daemon on the same folder reads them in.

Fails closed: mitmproxy logs what a hook raises and goes on, so the hooks here that may refuse catch everything themselves.
"""
# mypy: disallow-untyped-calls=False

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Mapping

import msgspec
from mitmproxy import addonmanager, ctx, http
from mitmproxy import connection as mitm
from mitmproxy.proxy import layer
from mitmproxy.proxy.layers import tcp
from mitmproxy.proxy.server_hooks import ServerConnectionHookData

from aiproxyd.ca.authority import CertificateAuthority
from aiproxyd.ca.leaves import LeafStore
from aiproxyd.config.keys import upstream_rules
from aiproxyd.config.loader import load
from aiproxyd.config.providers import base_url_authorities, provider_table
from aiproxyd.config.schema import Config
from aiproxyd.exceptions import AiproxydError
from aiproxyd.identity.networks import NetworkTable
from aiproxyd.identity.users import Identity
from aiproxyd.journal.writer import JournalWriter
from aiproxyd.mitm import safe_layers
from aiproxyd.mitm.connect import AUTHORITY, VERDICT, ConnectAddon, ConnectSettings
from aiproxyd.mitm.decrypted import AbortedBy, DecryptedConnection, TapSettings
from aiproxyd.mitm.egress import Egress, EgressSettings
from aiproxyd.mitm.hop_by_hop import own_headers
from aiproxyd.mitm.http_hooks import HttpHooks
from aiproxyd.mitm.journal_guard import JournalGuard
from aiproxyd.mitm.layer_tls import LayerTls, LayerTlsSettings
from aiproxyd.mitm.report import Journal, Reporter
from aiproxyd.mitm.show_events import shown
from aiproxyd.mitm.tap import Tap
from aiproxyd.model.authority import Authority
from aiproxyd.model.observation import ConnectDecided, Observation, WorkerStarted
from aiproxyd.model.principal import ANONYMOUS, Principal
from aiproxyd.model.verdict import Action, Verdict
from aiproxyd.providers.apis import APIS

log = logging.getLogger(__name__)

# A batch of observations is written this long after its first one.
_FLUSH_DELAY_SECONDS = 0.005


def full(environ: Mapping[str, str] = os.environ) -> list[object]:
    """Return the addons of a whole proxy: verdict, TLS with our leaves, tap, journal."""
    config = load(None, environ)
    journal = _journal(config)
    reporter = _reporter(journal)
    if config.auth.mode.value != "off" and not config.auth.users:
        log.warning("auth.users is empty, so nobody can authenticate; name users or set AIPROXYD_AUTH__MODE=off")
    connect = ConnectAddon(Identity(config.auth.users, _NoStore()), _connect_settings(config))
    guard = JournalGuard(journal, refuse=config.recording.on_journal_failure == "refuse")
    tap = Tap(reporter, TapSettings.of(config))
    return [connect, guard, *_decrypting(config, connect, reporter, tap, refuses=True), _Recording(journal, reporter)]


def observe(environ: Mapping[str, str] = os.environ) -> list[object]:
    """Return the addons that record AI traffic and refuse nothing."""
    config = load(None, environ)
    journal = _journal(config)
    reporter = _reporter(journal)
    connect = ConnectAddon(_Nobody(), msgspec.structs.replace(_connect_settings(config), auth_mode="off"))
    tap = Tap(reporter, TapSettings.of(config))
    return [connect, *_decrypting(config, connect, reporter, tap, refuses=False), _Recording(journal, reporter)]


def enforce(environ: Mapping[str, str] = os.environ) -> list[object]:
    """Return the addons that decide who may connect where; what may pass is tunnelled, nothing is decrypted or recorded."""
    config = load(None, environ)
    connect = ConnectAddon(Identity(config.auth.users, _NoStore()), _connect_settings(config))
    reporter = Reporter(_Nowhere())
    connections = Connections(connect, Egress(_egress_settings(config)), reporter, http_hooks=None, tls=None)
    return [connect, connections]


def show_events(environ: Mapping[str, str] = os.environ, write: Callable[[str], object] = sys.stdout.write) -> list[object]:
    """Return the addons that print what AI providers answer, event by event, and keep nothing."""
    config = load(None, environ)
    reporter = Reporter(_Nowhere())
    connect = ConnectAddon(_Nobody(), msgspec.structs.replace(_connect_settings(config), auth_mode="off"))
    tap = Tap(reporter, TapSettings.of(config), apis=shown(APIS, write))
    return [connect, *_decrypting(config, connect, reporter, tap, refuses=False)]


class _Known(msgspec.Struct, frozen=True):
    """What is known of a client connection after its CONNECT."""

    authority: Authority
    is_decrypted: bool


class Connections:
    """Carries out the verdicts in mitmproxy, for CONNECTs and for plain requests."""

    name = "aiproxyd_connections"

    def __init__(
        self,
        connect: ConnectAddon,
        egress: Egress,
        reporter: Reporter,
        *,
        http_hooks: HttpHooks | None,
        tls: LayerTls | None,
        refuses: bool = True,
    ) -> None:
        """Stand behind the connect addon.

        Args:
            connect: Asked for plain requests as well.
            egress: Which addresses may be dialled.
            reporter: Told of each verdict.
            http_hooks: Watch the decrypted connections; None tunnels them.
            tls: Speaks TLS for the decrypted connections.
            refuses: Whether a refusal is carried out; what would be refused is tunnelled otherwise.
        """
        self._connect = connect
        self._egress = egress
        self._reporter = reporter
        self._http_hooks = http_hooks
        self._tls = tls
        self._refuses = refuses
        self._known: dict[str, _Known] = {}

    def load(self, loader: addonmanager.Loader) -> None:
        """Put our layers in place, and have mitmproxy take what is decrypted for HTTP."""
        safe_layers.install()
        for name, kind, default, meaning in safe_layers.OPTIONS:
            loader.add_option(name, kind, default, meaning)
        ctx.options.update(rawtcp=False, http3=False)

    def http_connect(self, flow: http.HTTPFlow) -> None:
        """Remember what a connection is for."""
        verdict, authority = flow.metadata.get(VERDICT), flow.metadata.get(AUTHORITY)
        if not isinstance(verdict, Verdict) or authority is None or (verdict.action is Action.REFUSE and self._refuses):
            if flow.response is None:
                flow.kill()  # nobody decided
            return
        if verdict.action is Action.REFUSE:
            flow.response = None
        provider = self._connect.settings.providers.by_name(verdict.provider)
        is_decrypted = verdict.action is Action.DECRYPT and provider is not None and self._http_hooks is not None
        client_id = flow.client_conn.id
        self._known[client_id] = _Known(authority, is_decrypted)
        if is_decrypted and provider is not None and self._http_hooks is not None and self._tls is not None:
            principal = verdict.principal or ANONYMOUS
            self._http_hooks.watch(client_id, DecryptedConnection(client_id, authority, provider, principal))
            self._tls.watch(client_id, authority.host, provider.name)

    def http_connected(self, flow: http.HTTPFlow) -> None:
        """Tell of a CONNECT that was answered with 200."""
        self._tell(flow, 200)

    def http_connect_error(self, flow: http.HTTPFlow) -> None:
        """Tell of one that was not, and keep mitmproxy's page about addresses and errors of the system from the client."""
        verdict = flow.metadata.get(VERDICT)
        if flow.response is not None and isinstance(verdict, Verdict) and verdict.action is not Action.REFUSE:
            host = flow.request.pretty_host
            headers = {"Content-Type": "text/plain; charset=utf-8"}
            flow.response = http.Response.make(502, f"aiproxyd: {host} cannot be reached from this proxy\n".encode(), headers)
        self._tell(flow, flow.response.status_code if flow.response is not None else 502)
        # The connection may be used again, for something that nobody has decided about yet.
        client_id = flow.client_conn.id
        self._known.pop(client_id, None)
        if self._http_hooks is not None and self._tls is not None:
            self._http_hooks.forget(client_id, AbortedBy.UNREACHABLE)
            self._tls.forget(client_id)

    def next_layer(self, nextlayer: layer.NextLayer) -> None:
        """Leave a tunnel alone."""
        known = self._known.get(nextlayer.context.client.id)
        if known is not None and not known.is_decrypted:
            nextlayer.layer = tcp.TCPLayer(nextlayer.context, ignore=True)

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Have the same rules for a plain request as for a tunnel. Comes before what cleans its head."""
        if flow.client_conn.id in self._known or flow.error is not None:
            return
        await self._connect.http_connect(flow)
        verdict = flow.metadata.get(VERDICT)
        if not self._refuses:
            flow.response = None
        elif not isinstance(verdict, Verdict):
            flow.kill()
        self._tell(flow, flow.response.status_code if flow.response is not None else 200)

    async def server_connect(self, data: ServerConnectionHookData) -> None:
        """Connect to an address that was checked, and to no other; the name stays for TLS. Raises nothing."""
        known = self._known.get(data.client.id)
        try:
            authority = known.authority if known is not None else Authority(*(data.server.address or ("", 0)))
            async with asyncio.timeout(self._egress.settings.connect_timeout_seconds):
                candidates = await self._egress.candidates(authority, exempt=not self._refuses)
            host, port = candidates[0][4][:2]
            data.server.sni = data.server.sni or authority.host
            data.server.address = (str(host), int(port))
        except AiproxydError as exc:
            data.server.error = str(exc)
        except Exception:
            # The hook boundary: mitmproxy would log this and connect.
            log.exception("a destination is not connected to because it could not be checked")
            data.server.error = "the destination could not be checked"

    def client_disconnected(self, client: mitm.Client) -> None:
        """Forget a connection."""
        self._known.pop(client.id, None)

    def _tell(self, flow: http.HTTPFlow, status_code: int) -> None:
        verdict, authority = flow.metadata.get(VERDICT), flow.metadata.get(AUTHORITY)
        if not isinstance(verdict, Verdict):
            return
        host, port = authority or ("", 0)
        principal = verdict.principal
        self._reporter.tell(
            ConnectDecided(
                at=self._reporter.now(),
                action=verdict.action,
                reason=verdict.reason,
                status_code=status_code,
                host=host,
                port=port,
                provider=verdict.provider,
                principal_id=principal.id if principal is not None else "",
                principal_name=principal.name if principal is not None else "",
            )
        )


class _Recording:
    """Begins and ends the journal with mitmdump."""

    name = "aiproxyd_recording"

    def __init__(self, journal: JournalWriter, reporter: Reporter) -> None:
        self._journal = journal
        self._reporter = reporter

    def running(self) -> None:
        self._reporter.tell(WorkerStarted(at=self._reporter.now(), worker_id=self._journal.worker_id, pid=os.getpid()))
        self._reporter.flush()

    def done(self) -> None:
        self._journal.flush()
        self._journal.close()


class _Nobody:
    """Knows no credential; nobody asks it, because authentication is off."""

    async def authenticate(self, credential: str) -> Principal | None:  # noqa: ARG002
        return None


class _NoStore:
    """The users of the configuration are all there are."""

    async def find_principal(self, token_sha256: str) -> Principal | None:  # noqa: ARG002
        return None


class _Nowhere:
    """A journal of nothing."""

    def append(self, observation: Observation) -> None:
        pass

    def flush(self) -> None:
        pass


def _decrypting(
    config: Config, connect: ConnectAddon, reporter: Reporter, tap: Tap, *, refuses: bool
) -> tuple[Connections, HttpHooks, LayerTls]:
    http_hooks = HttpHooks(tap, own_headers(config))
    settings = LayerTlsSettings(
        http2=config.decrypt.http2, trust=config.egress.trust, trusted_ca_file=config.egress.trusted_ca_file
    )
    tls = LayerTls(LeafStore(CertificateAuthority.of(config), config.ca.leaf_days), settings, reporter)
    egress = Egress(_egress_settings(config))
    connections = Connections(connect, egress, reporter, http_hooks=http_hooks, tls=tls, refuses=refuses)
    return connections, http_hooks, tls


def _journal(config: Config) -> JournalWriter:
    worker_id = f"mitmdump-{os.getpid()}-{os.urandom(4).hex()}"
    return JournalWriter(config.data_dir / "journal", worker_id, max_journal_bytes=config.recording.journal_max_bytes)


def _reporter(journal: Journal) -> Reporter:
    return Reporter(journal, schedule=lambda flush: asyncio.get_running_loop().call_later(_FLUSH_DELAY_SECONDS, flush))


def _connect_settings(config: Config) -> ConnectSettings:
    return ConnectSettings(
        providers=provider_table(config, _beyond_mitmdump(config)),
        auth_mode=config.auth.mode.value,
        realm=config.auth.realm,
        allowed_ports=frozenset(config.egress.allowed_ports),
        networks=NetworkTable(config.auth.networks),
    )


def _beyond_mitmdump(config: Config) -> dict[str, str]:
    """Return which provider entries are not in use here, and why: plainly forwarded, their requests would go out with the wrong head."""
    return {
        name: "keys, byok, breaker, timeouts, target and actor_headers need the daemon (`aiproxyd run`)"
        for name, rules in upstream_rules(config, {}).items()
        if not rules.is_plain or next(entry for entry in config.providers if entry.name == name).keys
    }


def _egress_settings(config: Config) -> EgressSettings:
    return EgressSettings.of(config, exempt=base_url_authorities(config))
