"""What metrics and traces are told by the configuration, in their own terms. No reading of it."""

import msgspec


class MetricsSettings(msgspec.Struct, frozen=True):
    """Which metrics there are; `MetricsConfig` in the sink's terms."""

    dialects: frozenset[str] = frozenset()
    """Of `coder_legacy`, `bifrost` and `gen_ai`; Coder's own names are always there."""
    header_labels: tuple[str, ...] = ()
    header_label_values: int = 50
    per_user: bool = True
    exemplars: bool = True


class PushSettings(msgspec.Struct, frozen=True):
    """Where metrics are pushed to."""

    url: str
    interval_seconds: float
    job: str
    instance: str
    basic_user: str = ""
    basic_password: str = ""


class TracingSettings(msgspec.Struct, frozen=True):
    """Where spans go, and what is in them."""

    endpoint: str
    protocol: str = "grpc"
    """`grpc` or `http`."""
    headers: dict[str, str] = {}
    ca_file: str = ""
    service_name: str = "coder-ai-gateway"
    sample_ratio: float = 1.0
    capture_logs: bool = False
    content: bool = False
