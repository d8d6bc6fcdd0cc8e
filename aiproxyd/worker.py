"""One worker process: the data plane on sockets it inherited, with mitmproxy's addons for its policy.

It never touches the database, never serves a page, never waits for anything but the network. It is told what to do over the
channel, appends what it sees to its journal, and outlives control only to finish its streams.

Started by the supervisor as `python -m aiproxyd.worker --id UUID --channel FD --listen proxy:FD,tls:FD,gateway:FD`; not for people.
"""

import argparse
import asyncio
import contextlib
import functools
import gc
import itertools
import os
import resource
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import NamedTuple

import structlog
import uvloop
from pydantic import ValidationError

from aiproxyd import sigv4
from aiproxyd.breaker import BreakerState
from aiproxyd.ca.authority import CertificateAuthority
from aiproxyd.ca.leaves import LeafStore
from aiproxyd.channel import (
    Accepted,
    Adopt,
    Answer,
    Channel,
    Configure,
    Drain,
    Forget,
    Holding,
    KeyMarked,
    Propose,
    Ready,
    Rejected,
    Revoked,
)
from aiproxyd.config.keys import problems_of, upstream_rules
from aiproxyd.config.providers import base_url_authorities, provider_table
from aiproxyd.config.schema import AuthMode, Config
from aiproxyd.exceptions import AiproxydError
from aiproxyd.identity.networks import NetworkTable
from aiproxyd.identity.remote import RemoteIdentity
from aiproxyd.journal.writer import JournalWriter
from aiproxyd.key_pool import KeyMark
from aiproxyd.mitm.connect import ConnectAddon, ConnectSettings
from aiproxyd.mitm.decrypted import TapSettings
from aiproxyd.mitm.egress import Egress, EgressSettings
from aiproxyd.mitm.engine import Engine, EngineSettings
from aiproxyd.mitm.front import Front, FrontSettings
from aiproxyd.mitm.journal_guard import JournalGuard
from aiproxyd.mitm.network_files import listener_context_of
from aiproxyd.mitm.report import Reporter
from aiproxyd.mitm.tap import Tap
from aiproxyd.mitm.tls import ClientContexts, UpstreamTls
from aiproxyd.model.credential import ProviderKeys
from aiproxyd.model.observation import BreakerChanged, WorkerStarted
from aiproxyd.telemetry.logs import configure_logging, secrets
from aiproxyd.upstream import UpstreamRules, Upstreams

# How often control hears whose sessions are in use, where that changes.
SESSIONS_SECONDS = 1.0

log = structlog.get_logger("aiproxyd.worker")

# A batch of observations is written this long after its first one, unless something asks for it at once.
FLUSH_DELAY_SECONDS = 0.005


class _Prepared(NamedTuple):
    """All that a new configuration changes, built before anything of it is used."""

    revision: int
    config: Config
    keys: Mapping[str, ProviderKeys]
    generation: int
    upstreams: Mapping[str, UpstreamRules]
    connect: ConnectSettings
    tap: TapSettings
    egress: EgressSettings
    front: FrontSettings
    engine: EngineSettings
    listener_context: ssl.SSLContext | None


class Worker:
    """Everything of one worker process."""

    def __init__(self, channel: Channel, sockets: Mapping[str, list[socket.socket]], worker_id: str) -> None:
        self._channel = channel
        self._sockets = sockets
        self._worker_id = worker_id
        self._stopping: asyncio.Task[None] | None = None
        self._is_closing = False
        self._fault: BaseException | None = None
        """What broke the worker, when it was its own doing."""
        self._prepared: _Prepared | None = None
        """A proposal that was accepted and not adopted yet."""
        self._proposed = 0
        """The last proposal."""
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Serve until control says to drain, or is gone."""
        first = await self._channel.receive()
        if not isinstance(first, Configure):
            return  # control died before it could say anything
        config = Config.model_validate_json(bytes(first.config))
        configure_logging(config.logging.format, config.logging.level, facts={"worker": os.getpid()})
        self._journal = JournalWriter(
            config.data_dir / "journal", self._worker_id, max_journal_bytes=config.recording.journal_max_bytes
        )
        try:
            await self._start(config, first)
            self._channel.send(Ready())
            endless = [self._start_task(self._converse()), self._start_task(self._tell_sessions())]
            await self._over.wait()
            for task in endless:
                task.cancel()
            if self._fault is not None:
                raise self._fault
            await self._engine.close()
            self._egress.close()
        finally:
            self._journal.flush()
            self._journal.close()

    async def _start(self, config: Config, configure: Configure) -> None:
        loop = asyncio.get_running_loop()
        if _needs_botocore(configure):
            sigv4.load()  # no client is connected yet
        self._upstreams = Upstreams(on_mark=self._tell_mark)
        self._use_keys(configure.keys, upstream_rules(config, configure.keys), configure.generation)
        reporter = Reporter(
            self._journal,
            schedule=lambda flush: loop.call_later(FLUSH_DELAY_SECONDS, self._flush, flush),
            soon=loop.call_soon,
        )
        reporter.tell(WorkerStarted(at=reporter.now(), worker_id=self._worker_id, pid=os.getpid()))
        reporter.flush()
        self._config = config
        self._identity = RemoteIdentity(self._channel, cache_seconds=config.auth.cache_seconds)
        self._connect = ConnectAddon(self._identity, _connect_settings(config, configure.keys))
        self._guard = JournalGuard(self._journal, refuse=config.recording.on_journal_failure == "refuse")
        self._tap = Tap(reporter, TapSettings.of(config))
        self._egress = Egress(_egress_settings(config))
        leaves = LeafStore(CertificateAuthority.of(config), config.ca.leaf_days)
        upstream_tls = UpstreamTls(trust=config.egress.trust, trusted_ca_file=config.egress.trusted_ca_file)
        self._engine = Engine(
            self._connect,
            tap=self._tap,
            leaves=leaves,
            reporter=reporter,
            redial=functools.partial(self._egress.dial, decrypts=True),
            addons=[self._guard],
            settings=EngineSettings.of(config),
        )
        self._front = Front(
            self._sockets.get("proxy", ()),
            tls_sockets=self._sockets.get("tls", ()),
            listener_context=listener_context_of(config),
            gateway_sockets=self._sockets.get("gateway", ()),
            authenticator=self._gateway_authenticator(config),
            is_refusing=self._guard.is_refusing,
            engine=self._engine,
            egress=self._egress,
            reporter=reporter,
            tap=self._tap,
            client_contexts=ClientContexts(leaves),
            upstream_tls=upstream_tls,
            providers=self._connect.settings.providers,
            settings=FrontSettings.of(config),
            upstreams=self._upstreams,
        )
        await self._engine.start()
        loop.add_signal_handler(signal.SIGTERM, self._drain, config.drain_timeout_seconds)
        # Ctrl-C reaches the whole group; control passes on what it means.
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        loop.add_signal_handler(signal.SIGUSR1, self._say_figures)
        # What is loaded now stays: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        self._front.start()

    def _say_figures(self) -> None:
        """Tell how much is alive, for who looks for a leak."""
        log.info("figures", connections=len(self._front), tasks=len(asyncio.all_tasks()), objects=len(gc.get_objects()))

    def _flush(self, flush: Callable[[], None]) -> None:
        """Write what was told; when that fails and the operator wants nothing unrecorded, end what is decrypted."""
        flush()
        if self._journal.is_failing and self._guard.refuse:
            self._front.end_decrypted()
            self._engine.retire(lambda _connection: False)

    async def _converse(self) -> None:
        while (message := await self._channel.receive()) is not None:
            match message:
                case Answer():
                    self._identity.answered(message)
                case Forget():
                    self._identity.forget()
                case Revoked(holders=holders):
                    self._front.revoke(frozenset(holders))
                    self._engine.revoke(frozenset(holders))
                case Propose(revision=revision):
                    self._proposed = revision
                    if _needs_botocore(message.configuration):
                        self._start_task(self._load_and_propose(revision, message.configuration))
                    else:
                        self._propose(revision, message.configuration)
                case Adopt(revision=revision):
                    if self._prepared is not None and self._prepared.revision == revision:
                        self._adopt(self._prepared)
                    self._prepared = None
                case Configure():
                    # To a worker that began while others were asked: it has hardly a client.
                    prepared = self._prepare(0, message)
                    if prepared is not None:
                        self._adopt(prepared)
                case KeyMarked(provider=provider, mark=mark, generation=generation):
                    self._upstreams.mark(provider, mark, generation=generation, now=time.monotonic())
                case Drain(timeout_seconds=timeout_seconds):
                    self._drain(timeout_seconds)
        log.warning("control is gone; finishing streams")
        self._identity.lose_control()
        self._drain(self._config.drain_timeout_seconds)

    def _propose(self, revision: int, configure: Configure) -> None:
        """Prepare what control proposes, and answer."""
        self._prepared = self._prepare(revision, configure)
        if self._prepared is not None:
            self._channel.send(Accepted(revision=revision))

    async def _load_and_propose(self, revision: int, configure: Configure) -> None:
        """The same, once what takes its time to import is there; nothing waits for it but this proposal."""
        try:
            await asyncio.to_thread(sigv4.load)
        except AiproxydError as exc:
            self._channel.send(Rejected(revision=revision, reason=str(exc)))
            return
        if revision == self._proposed:  # else another one came meanwhile
            self._propose(revision, configure)

    async def _tell_sessions(self) -> None:
        """Let control know whose sessions are in use, so that it goes on asking for those and no others. Endless."""
        # Most daemons never meet one, and a look goes through everything that is open.
        await self._identity.met_session.wait()
        told: frozenset[str] = frozenset()
        while True:
            await asyncio.sleep(SESSIONS_SECONDS)
            sessions = frozenset(self._front.sessions() | self._engine.sessions())
            if sessions != told:
                told = sessions
                self._channel.send(Holding(sessions=sessions))

    def _use_keys(self, keys: Mapping[str, ProviderKeys], rules: Mapping[str, UpstreamRules], generation: int) -> None:
        """Use the keys and rules of a configuration, and keep the keys out of the log."""
        secrets.replace([secret for each in keys.values() for key in each.keys for secret in key.secrets])
        for provider, line in self._upstreams.replace(rules, generation=generation):
            # Or it would be shown as open for ever.
            reporter = self._front.reporter
            reporter.tell(
                BreakerChanged(
                    at=reporter.now(),
                    provider=provider,
                    endpoint=line.endpoint,
                    model=line.model,
                    state=str(BreakerState.CLOSED),
                )
            )

    def _tell_mark(self, provider: str, mark: KeyMark) -> None:
        """Let the other workers know that a key is not to be used, so that they do not find out by a failure."""
        self._channel.send(KeyMarked(provider=provider, generation=self._upstreams.generation, mark=mark))

    def _prepare(self, revision: int, configure: Configure) -> _Prepared | None:
        """Return all that a configuration changes, or None after having said why it cannot be used. Changes nothing."""
        try:
            config = Config.model_validate_json(bytes(configure.config))
            return _Prepared(
                revision,
                config,
                configure.keys,
                configure.generation,
                upstreams=upstream_rules(config, configure.keys),
                connect=_connect_settings(config, configure.keys),
                tap=TapSettings.of(config),
                egress=_egress_settings(config),
                front=FrontSettings.of(config),
                engine=EngineSettings.of(config),
                listener_context=listener_context_of(config),
            )
        except ValidationError as exc:
            mistakes = [f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in exc.errors(include_url=False)]
            self._channel.send(Rejected(revision=revision, reason="; ".join(mistakes)))
        except AiproxydError as exc:
            self._channel.send(Rejected(revision=revision, reason=str(exc)))
        return None

    def _adopt(self, prepared: _Prepared) -> None:
        """Use what was prepared. Assignments alone: everybody else uses it already, so it must not fail."""
        config = prepared.config
        self._config = config
        configure_logging(config.logging.format, config.logging.level, facts={"worker": os.getpid()})
        self._use_keys(prepared.keys, prepared.upstreams, prepared.generation)
        self._connect.settings = prepared.connect
        self._tap.settings = prepared.tap
        self._egress.settings = prepared.egress
        self._front.settings = prepared.front
        self._front.listener_context = prepared.listener_context
        self._front.authenticator = self._gateway_authenticator(config)
        self._front.replace_providers(prepared.connect.providers)
        self._engine.settings = prepared.engine
        self._engine.retire(self._front.forwards, self._front.as_of_now)
        self._guard.refuse = config.recording.on_journal_failure == "refuse"
        self._identity.cache_seconds = config.auth.cache_seconds

    def _gateway_authenticator(self, config: Config) -> RemoteIdentity | None:
        """Return who knows the clients of the reverse listener; nobody is asked where no client is."""
        return None if config.auth.mode is AuthMode.OFF else self._identity

    def _drain(self, timeout_seconds: float) -> None:
        """Stop accepting, finish, and end; asked again, close at once."""
        if self._stopping is None:
            self._stopping = self._start_task(self._finish(timeout_seconds))
        elif not self._is_closing:
            self._is_closing = True
            self._stopping.cancel()
            self._stopping = self._start_task(self._finish(0))

    def _start_task(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run what the worker cannot be without: when it fails, the worker ends, and its successor begins with a clean state."""
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.critical("the worker ends because of a fault of its own", exc_info=fault)
            self._fault = self._fault or fault
            self._over.set()

    async def _finish(self, timeout_seconds: float) -> None:
        self._front.drain()
        self._engine.drain()
        for socket_ in itertools.chain.from_iterable(self._sockets.values()):
            # Without this the kernel would go on queueing clients that nobody accepts.
            socket_.close()
        await self._front.wait(timeout_seconds)
        await self._front.close()
        self._over.set()


def _needs_botocore(configure: Configure) -> bool:
    return not sigv4.is_loaded() and any(key.is_aws for each in configure.keys.values() for key in each.keys)


def _connect_settings(config: Config, keys: Mapping[str, ProviderKeys]) -> ConnectSettings:
    return ConnectSettings(
        providers=provider_table(config, problems_of(keys)),
        auth_mode=config.auth.mode.value,
        realm=config.auth.realm,
        allowed_ports=frozenset(config.egress.allowed_ports),
        networks=NetworkTable(config.auth.networks),
    )


def _egress_settings(config: Config) -> EgressSettings:
    return EgressSettings.of(config, exempt=base_url_authorities(config))


def main() -> int:
    """Run the worker that the arguments describe."""
    parser = argparse.ArgumentParser(prog="aiproxyd.worker")
    parser.add_argument("--id", required=True)
    parser.add_argument("--channel", type=int, required=True)
    parser.add_argument("--listen", required=True)
    arguments = parser.parse_args()
    sockets: dict[str, list[socket.socket]] = {}
    for listener in arguments.listen.split(","):
        kind, _, descriptor = listener.partition(":")
        sockets.setdefault(kind, []).append(socket.socket(fileno=int(descriptor)))
    _raise_descriptor_limit()

    async def serve() -> None:
        channel = await Channel.open(socket.socket(fileno=arguments.channel))
        await Worker(channel, sockets, arguments.id).run()

    try:
        uvloop.run(serve())
    except AiproxydError as exc:
        log.error("worker cannot start", error=str(exc))
        return 1
    return 0


def _raise_descriptor_limit() -> None:
    """Use all the descriptors we may have: a connection takes two, a tunnel under load six."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
