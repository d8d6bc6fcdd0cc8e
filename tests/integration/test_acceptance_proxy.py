"""Lines of the acceptance list of Coder's proxy that have no place in another story, over a real daemon."""

import ssl
from pathlib import Path

import pytest
import trustme

from tests.integration.conftest import DaemonMaker
from tests.support.clients import Wire
from tests.support.fake_provider import FakeProvider

HOST, OTHER = "api.anthropic.com", "files.example.com"


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({}, id="minimal"),
        pytest.param({"metrics": {"dialects": ["coder", "coder_legacy"]}}, id="metrics"),
        pytest.param({"egress": {"allowed_private_cidrs": ["10.0.0.0/8", "fd00::/8"]}}, id="CIDRs"),
    ],
)
def test_construction_succeeds_with_minimal_metrics_cidrs(own_daemon: DaemonMaker, config: dict[str, object]) -> None:
    daemon = own_daemon(config=config)
    with Wire(daemon) as wire:
        assert wire.connect(f"{HOST}:443").status == 200
        wire.start_tls(HOST, daemon.ca_file)
    legacy = "coder_aibridgeproxyd_connect_sessions"
    assert (legacy in daemon.metrics().types) == ("metrics" in config)


def test_certificate_cache_a_provider_host_shows_one_leaf_and_another_host_its_own(
    own_daemon: DaemonMaker, provider: FakeProvider
) -> None:
    daemon = own_daemon()

    def shown(host: str, roots: Path) -> bytes:
        with Wire(daemon) as wire:
            assert wire.connect(f"{host}:443").status == 200
            wire.start_tls(host, roots)
            certificate: bytes | None = wire.socket.getpeercert(binary_form=True)  # type: ignore[attr-defined]
            assert certificate
            return certificate

    assert shown(HOST, daemon.ca_file) == shown(HOST, daemon.ca_file)
    # What the client sees of another host is that host's: our CA vouches for nothing there.
    shown(OTHER, provider.ca_file)
    with pytest.raises(ssl.SSLCertVerificationError):
        shown(OTHER, daemon.ca_file)


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
