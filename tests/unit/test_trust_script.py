"""`certs/trust.sh`, as far as it goes without changing the machine."""

import shutil
import subprocess
from pathlib import Path

import pytest

from aiproxyd.ca.authority import CertificateAuthority
from aiproxyd.ca.leaves import LeafStore

SCRIPT = Path(__file__).parents[2] / "certs" / "trust.sh"

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


def _trust(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [(), ("install",), ("remove", "x"), ("install", "x", "y")])
def test_a_usage_mistake_shows_the_usage_and_has_status_2(arguments: tuple[str, ...]) -> None:
    done = _trust(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("usage: trust.sh install CERTIFICATE")
    assert done.stderr.splitlines()[-1].startswith("trust.sh: ")


def test_help_is_help() -> None:
    done = _trust("--help")
    assert done.returncode == 0
    assert "uninstall CERTIFICATE" in done.stdout


def test_what_belongs_in_no_trust_store_is_refused(tmp_path: Path) -> None:
    ca = CertificateAuthority.create(tmp_path / "ca")
    both, two = tmp_path / "both.pem", tmp_path / "two.pem"
    both.write_bytes(ca.trust_pem + ca.key_file.read_bytes())
    two.write_bytes(ca.trust_pem * 2)
    for file, sentence in (
        (tmp_path / "missing", "cannot be read"),
        (ca.key_file, "does not hold exactly one PEM certificate"),
        (two, "does not hold exactly one PEM certificate"),
        (both, "holds a private key"),
    ):
        done = _trust("install", file)
        assert done.returncode == 1
        assert sentence in done.stderr


@needs_openssl
def test_a_certificate_that_is_no_ca_is_refused(tmp_path: Path) -> None:
    leaf = tmp_path / "leaf.pem"
    leaf.write_bytes(LeafStore(CertificateAuthority.create(tmp_path / "ca"), 7).pem_chain("a.example"))
    assert "is no CA certificate" in _trust("install", leaf).stderr


@needs_openssl
@pytest.mark.skipif(
    not any(shutil.which(tool) for tool in ("update-ca-certificates", "update-ca-trust", "security")), reason="no trust store"
)
def test_a_ca_nobody_installed_is_not_trusted(tmp_path: Path) -> None:
    ca = CertificateAuthority.create(tmp_path / "ca")
    done = _trust("status", ca.certificate_file)
    assert (done.returncode, done.stdout) == (1, f"not trusted: {ca.certificate_file}\n")
