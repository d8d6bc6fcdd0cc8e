"""Lines of the acceptance list of Coder's proxy that have no place in another story, over a real daemon."""

import ssl
from pathlib import Path

import pytest
import trustme

from tests.integration.conftest import DaemonMaker
from tests.support.clients import Wire
from tests.support.origins import Origin

HOST, OTHER = "api.anthropic.com", "echo.example.com"


@pytest.mark.parametrize(
    "config",
    [{}, {"metrics": {"dialects": ["coder_legacy"]}}, {"egress": {"allowed_private_cidrs": ["10.0.0.0/8", "fd00::/8"]}}],
)
def test_construction_succeeds_minimal_metrics_cidrs(own_daemon: DaemonMaker, config: dict[str, object]) -> None:
    daemon = own_daemon(config=config)
    with Wire(daemon) as wire:
        assert wire.connect(f"{HOST}:443").status == 200
    legacy = "coder_aibridgeproxyd_connect_sessions_total"
    assert (legacy in daemon.metrics().types or legacy.removesuffix("_total") in daemon.metrics().types) == (
        "metrics" in config
    )


def test_certificate_cache_a_provider_host_gets_cached_another_host_does_not(
    own_daemon: DaemonMaker, origins: dict[str, Origin]
) -> None:
    daemon = own_daemon(config={"egress": {"hosts": {OTHER: f"127.0.0.1:{origins[OTHER].port}"}}})

    def leaf() -> bytes:
        with Wire(daemon) as wire:
            assert wire.connect(f"{HOST}:443").status == 200
            wire.start_tls(HOST, daemon.ca_file)
            certificate: bytes | None = wire.socket.getpeercert(binary_form=True)
            assert certificate
            return certificate

    assert leaf() == leaf()
    with Wire(daemon) as wire:
        assert wire.connect(f"{OTHER}:443").status == 200
        # Bytes go through as they are: no handshake of ours is in the way, so nothing was made for this host.
        wire.send(b"no handshake")
        assert wire.read_exactly(12) == b"no handshake"


def test_ca_endpoint_a_compound_pem_yields_the_certificate_only(own_daemon: DaemonMaker, tmp_path: Path) -> None:
    authority = trustme.CA()
    compound = tmp_path / "compound.pem"
    compound.write_bytes(b"# a note\n" + authority.private_key_pem.bytes() + authority.cert_pem.bytes())
    compound.chmod(0o600)
    daemon = own_daemon(config={"ca": {"cert_file": str(compound), "key_file": str(compound)}})
    status, served = daemon.get("/ca-cert.pem")
    assert status == 200
    assert b"PRIVATE" not in served
    assert b"note" not in served
    assert ssl.PEM_cert_to_DER_cert(served.decode()) == ssl.PEM_cert_to_DER_cert(authority.cert_pem.bytes().decode())
    assert served.count(b"-----BEGIN") == 1
