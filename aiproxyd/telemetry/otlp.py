"""Sends spans to a collector over OTLP, by gRPC or by HTTP, from a thread of its own. Makes no span."""

import os
import threading
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiproxyd
from aiproxyd.exceptions import ConfigError
from aiproxyd.telemetry.settings import TracingSettings

# Control starts its workers with exec; gRPC's hooks for fork would only warn about that.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

MAX_QUEUED_SPANS: Final = 16_384
"""About 1,500 requests; a span takes some 3 kB. What comes while the queue is full has no trace."""

BATCH_SPANS: Final = 1_024
SEND_INTERVAL_MILLISECONDS: Final = 2_000
EXPORT_TIMEOUT_SECONDS: Final = 10
CLOSE_SECONDS: Final = 2.0
"""For the last spans, when the daemon stops."""


class _Provider(TracerProvider):
    """A provider that stops in time, whether the collector answers or not."""

    def __init__(self, exporter: SpanExporter, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._exporter = exporter

    def shutdown(self) -> None:
        """Send what is queued, for so long, and stop."""
        # The library would try its last batch again and again first.
        giving_up = threading.Timer(CLOSE_SECONDS, self._exporter.shutdown)
        giving_up.daemon = True
        giving_up.start()
        try:
            super().shutdown()
        finally:
            giving_up.cancel()


def create_provider(settings: TracingSettings) -> TracerProvider:
    """Return a provider whose spans go to the collector that `settings` name; a collector that is not there harms nothing.

    Raises:
        ConfigError: The file of the CA cannot be read.
    """
    exporter = create_exporter(settings)
    provider = _Provider(
        exporter,
        sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)),
        resource=Resource.create({"service.name": settings.service_name, "service.version": aiproxyd.__version__}),
        # Control stops what it started itself.
        shutdown_on_exit=False,
    )
    provider.add_span_processor(
        BatchSpanProcessor(
            exporter,
            max_queue_size=MAX_QUEUED_SPANS,
            max_export_batch_size=BATCH_SPANS,
            schedule_delay_millis=SEND_INTERVAL_MILLISECONDS,
        )
    )
    return provider


def create_exporter(settings: TracingSettings) -> SpanExporter:
    """Return the exporter for the protocol that `settings` name.

    Raises:
        ConfigError: The file of the CA cannot be read.
    """
    if settings.ca_file and not os.access(settings.ca_file, os.R_OK):
        raise ConfigError(f"tracing.ca_file: {settings.ca_file} cannot be read")
    url = urlsplit(settings.endpoint)
    if settings.protocol == "grpc":
        import grpc  # type: ignore[import-untyped]  # it has no annotations
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        is_secure = url.scheme == "https"
        roots = Path(settings.ca_file).read_bytes() if settings.ca_file else None
        return GrpcExporter(
            endpoint=settings.endpoint,
            insecure=not is_secure,
            credentials=grpc.ssl_channel_credentials(roots) if is_secure else None,
            headers={name.lower(): value for name, value in settings.headers.items()},
            timeout=EXPORT_TIMEOUT_SECONDS,
        )
    import requests
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

    session = requests.Session()
    # The proxy variables of the environment may well name this very proxy.
    session.trust_env = False
    return HttpExporter(
        endpoint=settings.endpoint if url.path.strip("/") else settings.endpoint.rstrip("/") + "/v1/traces",
        certificate_file=settings.ca_file or None,
        headers=settings.headers,
        timeout=EXPORT_TIMEOUT_SECONDS,
        session=session,
    )
