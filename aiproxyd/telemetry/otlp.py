"""Sends spans to a collector over OTLP, by gRPC or by HTTP, from a thread of its own. Makes no span.

A collector that is away or overloaded is tried again, for so long; what it refuses is not. Spans wait in a queue of so many bytes,
and what comes while it is full is counted and gone: nothing waits for a collector.
"""

import enum
import os
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

import structlog

from aiproxyd.exceptions import ConfigError
from aiproxyd.telemetry.otlp_spans import Envelope
from aiproxyd.telemetry.settings import TracingSettings

# Control starts its workers with exec; gRPC's hooks for fork would only warn about that.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

_log = structlog.get_logger(__name__)

MAX_QUEUED_BYTES: Final = 16 << 20
"""About 8,000 requests; one has some 2 kB of spans without content."""

MAX_BATCH_BYTES: Final = 1 << 20
"""A collector takes messages of 4 MiB as it comes; one span alone may make a batch that is larger."""

SEND_INTERVAL_SECONDS: Final = 2.0
EXPORT_TIMEOUT_SECONDS: Final = 10.0
FIRST_RETRY_SECONDS: Final = 1.0
MAX_RETRY_SECONDS: Final = 30.0
"""For so long a batch is tried again; then the next one has its turn."""

CLOSE_SECONDS: Final = 2.0
"""For the last spans, when the daemon stops."""

_GRPC_METHOD: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

# What may succeed later, by https://opentelemetry.io/docs/specs/otlp/#failures.
_GRPC_RETRYABLE: Final = frozenset({"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"})
_HTTP_RETRYABLE: Final = frozenset({429, 502, 503, 504})


class Answer(enum.Enum):
    """What became of a batch."""

    ACCEPTED = enum.auto()
    REFUSED = enum.auto()
    """And would be again."""
    BUSY = enum.auto()
    """Or away; worth another try."""


class Exporter(Protocol):
    """Knows one form of the protocol."""

    def send(self, request: bytes, timeout_seconds: float) -> tuple[Answer, str]:
        """Send an `ExportTraceServiceRequest`; return what became of it and, where it was not accepted, why."""

    def close(self) -> None:
        """Let go of the collector; a `send` that is under way ends soon."""


class GrpcExporter:
    """OTLP/gRPC, unary."""

    def __init__(self, settings: TracingSettings) -> None:
        import grpc  # type: ignore[import-untyped]  # it has no annotations

        url = urlsplit(settings.endpoint)
        target = url.netloc if url.port else f"{url.netloc}:{443 if url.scheme == 'https' else 80}"
        if url.scheme == "https":
            roots = Path(settings.ca_file).read_bytes() if settings.ca_file else None
            self._channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(roots), _GRPC_OPTIONS)
        else:
            self._channel = grpc.insecure_channel(target, _GRPC_OPTIONS)
        self._error = grpc.RpcError
        # Bytes in, bytes out: they are encoded already, and of the answer nothing is of interest.
        self._export = self._channel.unary_unary(_GRPC_METHOD)
        self._headers = [(name.lower(), value) for name, value in settings.headers.items()]

    def send(self, request: bytes, timeout_seconds: float) -> tuple[Answer, str]:
        """See `Exporter`."""
        try:
            self._export(request, timeout=timeout_seconds, metadata=self._headers)
        except self._error as exc:
            code = exc.code().name
            return Answer.BUSY if code in _GRPC_RETRYABLE else Answer.REFUSED, f"{code}: {exc.details()}"
        except ValueError as exc:
            # So the library says that the channel is closed.
            return Answer.REFUSED, str(exc)
        return Answer.ACCEPTED, ""

    def close(self) -> None:
        """See `Exporter`."""
        self._channel.close()


# The proxy variables of the environment may well name this very proxy.
_GRPC_OPTIONS: Final = [("grpc.enable_http_proxy", 0)]


class HttpExporter:
    """OTLP/HTTP with binary protobuf."""

    def __init__(self, settings: TracingSettings) -> None:
        import httpx

        url = urlsplit(settings.endpoint)
        self._url = settings.endpoint if url.path.strip("/") else settings.endpoint.rstrip("/") + "/v1/traces"
        self._error = httpx.HTTPError
        self._client = httpx.Client(
            headers={"content-type": "application/x-protobuf", **settings.headers},
            verify=ssl.create_default_context(cafile=settings.ca_file) if settings.ca_file else True,
            # See _GRPC_OPTIONS.
            trust_env=False,
        )

    def send(self, request: bytes, timeout_seconds: float) -> tuple[Answer, str]:
        """See `Exporter`."""
        try:
            status = self._client.post(self._url, content=request, timeout=timeout_seconds).status_code
        except self._error as exc:
            return Answer.BUSY, str(exc) or type(exc).__name__
        except RuntimeError as exc:
            # So the library says that the client is closed.
            return Answer.REFUSED, str(exc)
        if status < 300:
            return Answer.ACCEPTED, ""
        return Answer.BUSY if status in _HTTP_RETRYABLE else Answer.REFUSED, f"status {status}"

    def close(self) -> None:
        """See `Exporter`."""
        self._client.close()


def create_exporter(settings: TracingSettings) -> Exporter:
    """Return the exporter for the protocol that `settings` name.

    Raises:
        ConfigError: The file of the CA cannot be read.
    """
    if settings.ca_file and not os.access(settings.ca_file, os.R_OK):
        raise ConfigError(f"tracing.ca_file: {settings.ca_file} cannot be read")
    try:
        return GrpcExporter(settings) if settings.protocol == "grpc" else HttpExporter(settings)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(f"tracing.ca_file: {settings.ca_file} cannot be used: {exc}") from exc


class Sender:
    """Queues spans and sends them from a thread; it stops in time, whether the collector answers or not."""

    def __init__(
        self,
        exporter: Exporter,
        envelope: Envelope,
        *,
        count: Callable[[str, int], None] = lambda _result, _spans: None,
        interval_seconds: float = SEND_INTERVAL_SECONDS,
    ) -> None:
        """Start the thread.

        Args:
            exporter: Where to; closed at the end.
            envelope: Around the spans.
            count: Called with `sent`, `dropped` (the queue was full) or `failed` (not accepted) and a number of spans, from any
                thread.
            interval_seconds: How long spans wait for more of them.
        """
        self._exporter = exporter
        self._envelope = envelope
        self._count = count
        self._interval_seconds = interval_seconds
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name="otlp", daemon=True)
        self._thread.start()

    def put(self, spans: Sequence[bytes]) -> None:
        """Take the spans of a request, all of them or none. Never waits."""
        size = sum(map(len, spans))
        with self._lock:
            has_room = self._queued_bytes + size <= MAX_QUEUED_BYTES
            if has_room:
                self._queue += spans
                self._queued_bytes += size
        if not has_room:
            self._count("dropped", len(spans))
        elif self._queued_bytes >= MAX_BATCH_BYTES:
            self._wake.set()

    def close(self) -> None:
        """Send what is queued, for `CLOSE_SECONDS`, and stop."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(CLOSE_SECONDS)
        self._exporter.close()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        is_last = False
        while not is_last:
            self._wake.wait(self._interval_seconds)
            self._wake.clear()
            # Asked before the queue is emptied, so that what came before the end is sent.
            is_last = self._stopping.is_set()
            while batch := self._take():
                self._send(batch)

    def _take(self) -> list[bytes]:
        """Return the oldest spans, a batch of them."""
        batch: list[bytes] = []
        size = 0
        with self._lock:
            while self._queue and (not batch or size + len(self._queue[0]) <= MAX_BATCH_BYTES):
                span = self._queue.popleft()
                size += len(span)
                batch.append(span)
            self._queued_bytes -= size
        return batch

    def _send(self, batch: Sequence[bytes]) -> None:
        request = self._envelope.export_request(batch)
        retry_seconds = FIRST_RETRY_SECONDS
        until = time.monotonic() + MAX_RETRY_SECONDS
        while True:
            timeout_seconds = CLOSE_SECONDS if self._stopping.is_set() else EXPORT_TIMEOUT_SECONDS
            answer, reason = self._exporter.send(request, timeout_seconds)
            self._note(reason)
            if answer is not Answer.BUSY or time.monotonic() > until or self._stopping.wait(retry_seconds):
                break
            retry_seconds *= 2
        self._count("sent" if answer is Answer.ACCEPTED else "failed", len(batch))

    def _note(self, trouble: str) -> None:
        """Log when the collector begins to be in trouble, and when that is over."""
        if trouble and not self._trouble:
            _log.warning("the collector does not take spans", error=trouble)
        elif self._trouble and not trouble:
            _log.info("the collector takes spans again")
        self._trouble = trouble
