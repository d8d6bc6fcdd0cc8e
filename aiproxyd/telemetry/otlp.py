"""Sends spans to a collector over OTLP, by gRPC or by HTTP, from a thread of its own. Makes no span."""

import os
import threading
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from aiproxyd.exceptions import ConfigError
from aiproxyd.telemetry.settings import TracingSettings

# Control starts its workers with exec; gRPC's hooks for fork would only warn about that.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

MAX_QUEUED_SPANS: Final = 16_384
"""About 1,500 requests; a span takes some 3 kB. What comes while the queue is full has no trace."""

BATCH_SPANS: Final = 1_024
SEND_INTERVAL_MILLISECONDS: Final = 2_000
EXPORT_TIMEOUT_SECONDS: Final = 10
CLOSE_SECONDS: Final = 2.0
"""For the last spans, when the daemon stops."""


class Sender(BatchSpanProcessor):
    """Queues spans and sends them from a thread; it stops in time, whether the collector answers or not."""

    def __init__(self, exporter: SpanExporter) -> None:
        super().__init__(
            exporter,
            max_queue_size=MAX_QUEUED_SPANS,
            max_export_batch_size=BATCH_SPANS,
            schedule_delay_millis=SEND_INTERVAL_MILLISECONDS,
        )
        self._exporter = exporter

    def shutdown(self) -> None:
        """Send what is queued, for so long, and stop."""
        # The library would try its last batch again and again first.
        giving_up = threading.Timer(CLOSE_SECONDS, self._exporter.shutdown)
        giving_up.daemon = True
        giving_up.start()
        try:
            super().shutdown()  # type: ignore[no-untyped-call]  # it has no annotations
        finally:
            giving_up.cancel()


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
