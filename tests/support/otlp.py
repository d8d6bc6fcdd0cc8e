"""A collector that decodes what it gets over OTLP, by gRPC or by HTTP, on the loopback interface."""

import contextlib
import gzip
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import trustme
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class Received:
    """Every span that arrived."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.keeps = True
        """Whether anything is remembered; a benchmark's collector only decodes."""
        self._arrived = threading.Condition()

    def take(self, request: Any, headers: dict[str, str]) -> None:
        """Take one export."""
        if not self.keeps:
            return
        with self._arrived:
            self.headers.append(headers)
            for resource_spans in request.resource_spans:
                self.resources.append(attributes_of(resource_spans.resource))
                for scope_spans in resource_spans.scope_spans:
                    self.spans += scope_spans.spans
            self._arrived.notify_all()

    def wait_for(self, name: str, timeout_seconds: float = 60.0) -> Any:
        """Return the first span of this name, once it is there."""
        with self._arrived:
            found = self._arrived.wait_for(
                lambda: next((span for span in self.spans if span.name == name), None), timeout_seconds
            )
            assert found is not None, [span.name for span in self.spans]
            return found


def attributes_of(holder: Any) -> dict[str, Any]:
    """Return decoded attributes as a dictionary."""
    return {attribute.key: _value(attribute.value) for attribute in holder.attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None


class _Servicer(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, received: Received) -> None:
        self._received = received

    def Export(self, request: Any, context: Any) -> Any:
        self._received.take(request, dict(context.invocation_metadata()))
        return trace_service_pb2.ExportTraceServiceResponse()


@contextlib.contextmanager
def grpc_collector(certificate: trustme.LeafCert | None = None) -> Iterator[tuple[str, Received]]:
    """Yield the endpoint of a gRPC collector and what it receives.

    Args:
        certificate: Of localhost, for TLS.
    """
    received = Received()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Servicer(received), server)
    if certificate is None:
        endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    else:
        pair = (certificate.private_key_pem.bytes(), b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
        endpoint = f"https://localhost:{port}"
    server.start()
    try:
        yield endpoint, received
    finally:
        server.stop(None).wait()


@contextlib.contextmanager
def http_collector() -> Iterator[tuple[str, Received]]:
    """Yield the endpoint of an HTTP collector and what it receives."""
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            is_known = self.path == "/v1/traces" and self.headers["content-type"] == "application/x-protobuf"
            if is_known:
                request = trace_service_pb2.ExportTraceServiceRequest.FromString(body)
                received.take(request, {name.lower(): value for name, value in self.headers.items()})
            self.send_response(200 if is_known else 404)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
