"""The control process: owns configuration, CA, store, metrics, admin server and listening sockets, and runs the workers.

It never sees a client's byte. When it dies the workers finish their streams; what they recorded waits in the journal for the
next control process.
"""

import asyncio
import contextlib
import gc
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import structlog
from prometheus_client import CollectorRegistry

from aiproxyd.api.access import AdminToken, Role, digest_of
from aiproxyd.api.app import create_app
from aiproxyd.api.live import LiveFeed
from aiproxyd.api.server import AdminServer
from aiproxyd.api.state import ProviderFact
from aiproxyd.beat import next_beat
from aiproxyd.ca.authority import CertificateAuthority
from aiproxyd.channel import Configure, KeyMarked
from aiproxyd.classify import ProviderStatus, ProviderTable
from aiproxyd.config.keys import problems_of, read_keys, upstream_rules
from aiproxyd.config.providers import provider_table
from aiproxyd.config.schema import AuthMode, Config, keeping_restart_fields, restart_fields_changed
from aiproxyd.data_folder import own_folder, sole_control
from aiproxyd.exceptions import AiproxydError
from aiproxyd.fold import Fold, LiveSink
from aiproxyd.housekeeping import keep_statistics, prune
from aiproxyd.identity.sources import RemoteSources, Sources
from aiproxyd.identity.users import ensure_first_user
from aiproxyd.journal.daemon_id import daemon_id_of
from aiproxyd.journal.segments import has_live_worker, journal_bytes, segments_in
from aiproxyd.listeners import name_of, open_listeners
from aiproxyd.mitm.network_files import check_files
from aiproxyd.model.credential import ProviderKeys
from aiproxyd.model.principal import id_of_name
from aiproxyd.reloader import Reloader
from aiproxyd.revocations import watch_revocations
from aiproxyd.service_manager import ServiceManager
from aiproxyd.storage.store import Store
from aiproxyd.supervisor import Supervisor
from aiproxyd.telemetry.exposed import LabelledRegistry
from aiproxyd.telemetry.families import create_registry
from aiproxyd.telemetry.interception_log import InterceptionLog
from aiproxyd.telemetry.logs import configure_logging, secrets, write_line
from aiproxyd.telemetry.metrics import MetricsSink
from aiproxyd.telemetry.prices import PriceBook
from aiproxyd.telemetry.rotating_file import RotatingFile
from aiproxyd.telemetry.troubles import TroubleLog
from aiproxyd.telemetry.worker_processes import WorkerProcesses
from aiproxyd.upstream import Upstreams

log = structlog.get_logger("aiproxyd.control")

# How often the journal's size and the store's health are looked at.
WATCH_INTERVAL_SECONDS = 1.0

# After the workers are gone, how long the store may take to catch up before the rest waits for the next start.
CATCH_UP_SECONDS = 20.0


class Control:
    """The whole daemon but for the workers' insides."""

    def __init__(self, config: Config, *, config_path: Path | None, environ: Mapping[str, str]) -> None:
        self.config = config
        self.first_user: tuple[str, str | None] = ("", None)
        """Name and, when it is known, token of the user whose lines are printed at start."""
        self._config_path = config_path
        self._environ = environ
        self.live = LiveFeed()
        """What happens, for those who look on."""
        self._keys: dict[str, ProviderKeys] = {}
        self._generation = 0
        self._upstreams = Upstreams()
        """As the workers have them, to know the state of every key."""
        self._service_manager = ServiceManager(environ)
        self._stop_requests = 0
        self._stop = asyncio.Event()

    async def run(self, announce: Callable[["Control"], None]) -> None:
        """Start everything, call `announce`, and serve until `request_stop`.

        Raises:
            AiproxydError: Something could not start; what had started is stopped again.
        """
        async with contextlib.AsyncExitStack() as stack:
            await self._start(stack)
            # What is loaded now stays: looking at it again whenever rows pile up was a seventh of writing them.
            gc.collect()
            gc.freeze()
            announce(self)
            self._service_manager.ready(self._status)
            await self._stop.wait()
            self._service_manager.stopping()
            log.info("stopping", drain_timeout_seconds=self.config.drain_timeout_seconds)
        log.info("stopped")

    def request_stop(self) -> None:
        """Drain and stop; a second request closes what is still open."""
        self._stop_requests += 1
        self._stop.set()
        if self._stop_requests > 1:
            asyncio.ensure_future(self._supervisor.stop(0))  # noqa: RUF006  (the first stop waits for the same workers)

    def _say_figures(self) -> None:
        """Tell how much is alive, here and in each worker, for who looks for a leak."""
        log.info("figures", tasks=len(asyncio.all_tasks()), objects=len(gc.get_objects()))
        for pid in self._supervisor.pids:
            os.kill(pid, signal.SIGUSR1)

    @property
    def listen(self) -> list[str]:
        """Where the proxy listens, with the ports that were assigned for 0."""
        return [name_of(socket_) for socket_ in self._listeners.proxy]

    @property
    def listen_tls(self) -> list[str]:
        """Where the proxy listens for clients that speak TLS with it."""
        return [name_of(socket_) for socket_ in self._listeners.tls]

    @property
    def listen_gateway(self) -> list[str]:
        """Where clients are served that are given a base URL."""
        return [name_of(socket_) for socket_ in self._listeners.gateway]

    @property
    def admin_listen(self) -> str:
        """Where the admin server listens."""
        return name_of(self._listeners.admin[0])

    @property
    def ca_file(self) -> Path:
        """The certificate that clients are to trust."""
        return self._ca.certificate_file

    @property
    def worker_count(self) -> int:
        """How many workers accept connections."""
        return self._supervisor.ready_workers

    @property
    def _status(self) -> str:
        return f"serving on {', '.join((*self.listen, *self.listen_tls, *self.listen_gateway))}"

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        config = self.config
        self._keys = read_keys(config, self._environ)
        self._hide_secrets()
        check_files(config)
        own_folder(config.data_dir)
        stack.enter_context(sole_control(config.data_dir))
        journal = config.data_dir / "journal"
        own_folder(journal)
        self._ca = CertificateAuthority.of(config)
        self._prices = PriceBook(config.pricing.to_overrides())
        self._store = await Store.open(config.store_url, daemon_id=daemon_id_of(journal), pricer=self._prices)
        stack.push_async_callback(self._store.close)
        await self._store.adopt_positions([segment.name for segment in segments_in(journal)])
        self.first_user = await ensure_first_user(self._store, config)
        self._table = provider_table(config, problems_of(self._keys))
        _warn_about(self._table)

        self._listeners = await open_listeners(
            proxy=config.listen,
            tls=config.listen_tls.listen,
            gateway=config.listen_gateway,
            admin=config.admin.listen,
            environ=os.environ,
            is_held=lambda: has_live_worker(journal),
        )
        stack.callback(self._listeners.close)

        registry = create_registry()
        self._metrics = MetricsSink(registry, self._prices, config.metrics.to_settings())
        self._identity = Sources(config.auth, self._store, self._metrics.identity_asked)
        stack.push_async_callback(self._identity.close)
        self._metrics.set_ca_expiry(self._ca.certificate.not_valid_after_utc.timestamp())
        self._upstreams.replace(upstream_rules(config, self._keys), generation=self._generation)
        self._metrics.upstreams.set_key_pools(self._upstreams.key_counts(time.monotonic()))
        self._metrics.reload_attempted(time.time())
        self._metrics.set_providers(self._table)
        self._metrics.reload_succeeded(time.time())
        sinks: list[LiveSink] = [self._metrics, TroubleLog(), self.live]
        if config.tracing.enabled:
            sinks.append(self._start_tracing(stack))
        if config.logging.structured_interceptions != "off":
            sinks.append(self._start_interception_log(stack))
        self._fold = Fold(journal, self._store, sinks, await self._store.positions())
        self._fold.on_store_write = self._metrics.store_written
        self._fold.on_store_error = self._metrics.store_failed
        labels = config.metrics.labels
        self._metrics_registry = LabelledRegistry(registry, labels) if labels else registry
        self._start_pushing(stack)

        self._reloader = Reloader(
            path=self._config_path,
            environ=self._environ,
            current=lambda: self.config,
            use=self._use,
            times=self._metrics,
            around=lambda: self._service_manager.reloading(self._status),
        )
        admin = AdminServer(create_app(self), self._listeners.admin[0])
        await admin.start()
        stack.push_async_callback(admin.stop)
        # Before that, or it would wait for answers that have no end.
        stack.callback(self.live.close)

        self._supervisor = Supervisor(
            listen={"proxy": self._listeners.proxy, "tls": self._listeners.tls, "gateway": self._listeners.gateway},
            configuration=_for_workers(config, self._keys, self._generation),
            identify=self._identity.identify,
            key_marked=self._key_marked,
        )
        registry.register(WorkerProcesses(lambda: self._supervisor.pids_by_slot))
        stack.push_async_callback(self._finish)
        self._fold.start()
        await self._supervisor.start(config.workers or len(os.sched_getaffinity(0)))
        kept = (
            keep_statistics(self._store),
            prune(self._store, self._ages),
            watch_revocations(self._store, self._configured_tokens, self._supervisor.revoke),
            self._identity.watch(self._supervisor.sessions, self._supervisor.revoke),
        )
        for endless in (self._watch(journal), self._reloader.watch(), *kept):
            stack.callback(asyncio.ensure_future(endless).cancel)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.request_stop)
        loop.add_signal_handler(signal.SIGHUP, self._reloader.request)
        loop.add_signal_handler(signal.SIGUSR1, self._say_figures)

    def _start_tracing(self, stack: contextlib.AsyncExitStack) -> LiveSink:
        # Imports that most daemons do not need, and megabytes of them.
        from aiproxyd.telemetry.otlp import Sender, create_exporter
        from aiproxyd.telemetry.traces import TraceSink, envelope

        settings = self.config.tracing.to_settings()
        sender = Sender(create_exporter(settings), envelope(settings), count=self._metrics.spans_left)
        stack.push_async_callback(asyncio.to_thread, sender.close)
        return TraceSink(sender.put, settings)

    def _start_pushing(self, stack: contextlib.AsyncExitStack) -> None:
        settings = self.config.metrics.push.to_settings(platform.node())
        if settings is not None:
            from aiproxyd.telemetry.push import Pusher

            pusher = Pusher(self._metrics_registry, settings, count=self._metrics.pushed)
            stack.push_async_callback(pusher.close)
            stack.callback(asyncio.ensure_future(pusher.run()).cancel)

    def _start_interception_log(self, stack: contextlib.AsyncExitStack) -> LiveSink:
        settings = self.config.logging
        if settings.structured_interceptions == "stderr":
            human = settings.format == "human" or (settings.format == "auto" and sys.stderr.isatty())
            return InterceptionLog(lambda line: write_line(sys.stderr, line), human=human)
        file = RotatingFile(
            Path(settings.structured_interceptions),
            max_bytes=settings.structured_interceptions_max_bytes,
            files=settings.structured_interceptions_files,
        )
        stack.enter_context(file)
        return InterceptionLog(file.write, human=settings.format == "human")

    async def _finish(self) -> None:
        """Drain the workers and fold what they wrote last."""
        for socket_ in self._listeners.of_workers:
            # Ours too, or the kernel would go on queueing clients that nobody accepts.
            socket_.close()
        await self._supervisor.stop(0 if self._stop_requests > 1 else self.config.drain_timeout_seconds)
        await self._fold.finish(CATCH_UP_SECONDS)
        with contextlib.suppress(FileNotFoundError):
            (self.config.data_dir / "run.json").unlink()

    # The admin server asks for these.

    @property
    def metrics_registry(self) -> CollectorRegistry:
        """Every metric of the daemon."""
        return self._metrics_registry

    @property
    def tokens(self) -> list[AdminToken]:
        """Who may ask the admin server; nobody needs a token while there is none."""
        admin = self.config.admin
        own = [AdminToken("admin", digest_of(admin.token.get_secret_value()), Role.ADMIN)] if admin.token else []
        return own + [AdminToken(token.name, token.token_sha256, Role(token.role)) for token in admin.tokens]

    @property
    def store(self) -> Store:
        """The records."""
        return self._store

    @property
    def proxy_listen(self) -> list[str]:
        """Where the proxy listens, with the ports that were assigned for 0; without TLS, if it does so at all."""
        return self.listen or self.listen_tls

    @property
    def configured_users(self) -> list[tuple[str, tuple[str, ...]]]:
        """Name and groups of the users of the configuration."""
        return [(user.name, user.groups) for user in self.config.auth.users]

    @property
    def asks_for_users(self) -> bool:
        """Whether the proxy wants credentials."""
        return self.config.auth.mode is not AuthMode.OFF

    def providers(self) -> list[ProviderFact]:
        """Every provider of the configuration, and whether it is in use."""
        keys = self._upstreams.key_counts(time.monotonic())
        return [
            ProviderFact(
                name=provider.name,
                type=provider.type,
                status=str(provider.status),
                reason=provider.reason,
                hosts=provider.hosts(self.config.egress.allowed_ports),
                keys={state.value: count for state, count in keys.get(provider.name, {}).items()},
            )
            for provider in self._table.providers
        ]

    def _configured_tokens(self) -> list[tuple[str, str]]:
        return [(id_of_name(user.name), user.token_sha256) for user in self.config.auth.users]

    def users_changed(self) -> None:
        """Let the workers ask again whose a token is."""
        self._supervisor.forget_answers()

    @property
    def metrics_credentials(self) -> tuple[str, ...]:
        """Values of `Authorization` that open `/metrics` besides the admin token."""
        return self.config.metrics.credentials()

    def ca_pem(self) -> bytes:
        """The certificate that clients are to trust."""
        return self._ca.trust_pem

    def readiness(self) -> dict[str, tuple[bool, str]]:
        """Every condition of readiness, with a word about its state."""
        ready = self._supervisor.ready_workers
        enabled = sum(provider.status is ProviderStatus.ENABLED for provider in self._table.providers)
        stopping = self._stop.is_set()
        return {
            "store": (not self._fold.store_error, self._fold.store_error or "reachable"),
            "providers": (True, f"{enabled} of {len(self._table.providers)} enabled"),
            "workers": (ready > 0 and not stopping, "draining" if stopping else f"{ready} ready"),
            "journal": (not self._journal_exceeded, "over its limit" if self._journal_exceeded else "within its limit"),
        }

    # Reload.

    async def reload(self) -> str:
        """Read the configuration again and use it, or keep the old one and return what is wrong."""
        return await self._reloader.reload()

    async def _use(self, config: Config) -> None:
        """Use another configuration whole.

        Raises:
            AiproxydError: Something of it cannot be used; then nothing of it is.
        """
        check_files(config)
        changed = restart_fields_changed(self.config, config)
        # A worker that starts later would otherwise sign with another CA, or write where nobody reads.
        config = keeping_restart_fields(self.config, config)
        keys = await asyncio.to_thread(read_keys, config, self._environ)
        table, rules = provider_table(config, problems_of(keys)), upstream_rules(config, keys)
        overrides = config.pricing.to_overrides()
        generation = self._generation + 1
        remote = RemoteSources(config.auth)
        try:
            await self._supervisor.configure(_for_workers(config, keys, generation))
        except AiproxydError:
            await remote.close()
            raise
        # From here on nothing may fail: the workers use it already.
        self.config, self._keys, self._generation = config, keys, generation
        for name in changed:
            log.warning("a changed setting needs a restart", setting=name)
        configure_logging(config.logging.format, config.logging.level)
        self._hide_secrets()
        self._upstreams.replace(rules, generation=generation)
        self._metrics.upstreams.set_key_pools(self._upstreams.key_counts(time.monotonic()))
        remote = self._identity.replace(config.auth, remote)
        self._prices.replace_overrides(overrides)
        self._supervisor.forget_answers()
        self._table = table
        _warn_about(table)
        self._metrics.set_providers(table)
        await remote.close()

    def _hide_secrets(self) -> None:
        """Keep what the configuration holds in confidence out of the log."""
        metrics, tracing = self.config.metrics, self.config.tracing
        held = (
            self.config.admin.token,
            self.config.store.url,
            metrics.token,
            metrics.basic_password,
            metrics.push.basic_password,
            *tracing.headers.values(),
            self.config.egress.upstream_proxy,
        )
        keys = [secret for each in self._keys.values() for key in each.keys for secret in key.secrets]
        secrets.replace([*(secret.get_secret_value() for secret in held if secret is not None), *keys])

    def _key_marked(self, marked: KeyMarked) -> None:
        """Take note of what a worker learnt about a key; the others are told already."""
        now = time.monotonic()
        self._upstreams.mark(marked.provider, marked.mark, generation=marked.generation, now=now)
        self._metrics.upstreams.set_key_pools(self._upstreams.key_counts(now))

    # Watching.

    _journal_exceeded = False

    def _ages(self) -> dict[str, float]:
        # Of the configuration as it is then: a reload puts another one in its place.
        return self.config.recording.ages()

    async def _watch(self, journal: Path) -> None:
        """Keep run.json, the journal limit and the gauges of control's own state up to date."""
        written: list[int] | None = None
        while True:
            size = journal_bytes(journal)
            self._journal_exceeded = size > self.config.recording.journal_max_bytes
            self._metrics.set_journal(size, self._fold.lag_seconds)
            self._metrics.upstreams.set_key_pools(self._upstreams.key_counts(time.monotonic()))
            self._metrics.set_workers(self._supervisor.ready_workers, self._supervisor.restarts)
            workers = self._supervisor.pids
            if workers != written:
                try:
                    self._describe_run(workers)
                except OSError as exc:
                    # The gauges and the readiness matter more, on a full disk above all.
                    log.error("run.json cannot be written", error=exc.strerror or str(exc))
                else:
                    written = workers
            await next_beat(WATCH_INTERVAL_SECONDS)

    def _describe_run(self, workers: list[int]) -> None:
        """Write run.json. Of what it says only the workers change."""
        described = {
            "pid": os.getpid(),
            "listen": self.listen,
            "listen_tls": self.listen_tls,
            "listen_gateway": self.listen_gateway,
            "admin": self.admin_listen,
            "workers": workers,
        }
        _replace(self.config.data_dir / "run.json", json.dumps(described) + "\n")


def _for_workers(config: Config, keys: Mapping[str, ProviderKeys], generation: int) -> Configure:
    return Configure(config=msgspec.Raw(config.for_workers()), keys=dict(keys), generation=generation)


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)


def _warn_about(table: ProviderTable) -> None:
    for provider in table.providers:
        if provider.status in {ProviderStatus.ERROR, ProviderStatus.PROXY_EXCLUDED}:
            log.warning("a provider is not in use", provider=provider.name, status=provider.status, reason=provider.reason)
