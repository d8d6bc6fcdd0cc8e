"""Limits of connections whose bytes we decrypt."""

import msgspec

from aiproxyd.config.schema import Config
from aiproxyd.mitm.hop_by_hop import GOVERNANCE_HEADERS, own_headers


class RelaySettings(msgspec.Struct, frozen=True):
    """Limits of decrypted connections."""

    client_tls_timeout_seconds: float = 15.0
    upstream_tls_timeout_seconds: float = 15.0
    head_timeout_seconds: float = 30.0
    """For a request head, from its first byte to its last."""
    idle_timeout_seconds: float = 3600.0
    max_head_bytes: int = 65536
    own_headers: frozenset[str] = GOVERNANCE_HEADERS
    """Lower-case names of request fields that are meant for this proxy, and removed."""

    @classmethod
    def of(cls, config: Config) -> "RelaySettings":
        """Return the settings that `config` holds."""
        return cls(
            client_tls_timeout_seconds=config.decrypt.client_tls_timeout_seconds,
            upstream_tls_timeout_seconds=config.egress.tls_timeout_seconds,
            head_timeout_seconds=config.decrypt.head_timeout_seconds,
            idle_timeout_seconds=config.decrypt.idle_timeout_seconds,
            max_head_bytes=config.decrypt.max_head_bytes,
            own_headers=own_headers(config),
        )
