import os
import stat
from pathlib import Path

import pytest

from aiproxyd.ca.authority import CertificateAuthority
from aiproxyd.ca.bundle import bundle_of


def _ca(data_dir: Path) -> CertificateAuthority:
    return CertificateAuthority.load(data_dir / "ca" / "ca-cert.pem", data_dir / "ca" / "ca-key.pem")


def test_a_ca_is_made_and_shown(aiproxyd, data_dir: Path) -> None:
    made = aiproxyd("ca", "init")
    assert (made.status, made.err) == (0, "")
    ca = _ca(data_dir)
    shown = aiproxyd("ca", "show")
    assert shown.out == made.out
    rows = dict(
        line.split(maxsplit=1) if not line.startswith("valid") else (line[:11], line[13:]) for line in shown.out.splitlines()
    )
    assert rows["SHA-256"] == ca.fingerprint
    assert rows["certificate"] == str(data_dir / "ca" / "ca-cert.pem")
    assert rows["key"] == str(data_dir / "ca" / "ca-key.pem")
    assert "CN=aiproxyd CA" in rows["subject"]
    assert rows["valid until"].startswith(f"{ca.certificate.not_valid_after_utc:%Y-%m-%d}")


def test_a_ca_is_not_replaced_by_accident(aiproxyd, data_dir: Path) -> None:
    aiproxyd("ca", "init")
    before = _ca(data_dir).fingerprint
    again = aiproxyd("ca", "init")
    assert again.status == 1
    assert "is there already; --force replaces it" in again.err
    assert _ca(data_dir).fingerprint == before
    assert aiproxyd("ca", "init", "--force").status == 0
    assert _ca(data_dir).fingerprint != before


def test_there_is_nothing_to_make_beside_an_own_ca(aiproxyd, tmp_path: Path) -> None:
    own = CertificateAuthority.create(tmp_path / "own")
    file = tmp_path / "config.yaml"
    file.write_text("ca: {cert_file: own/ca-cert.pem, key_file: own/ca-key.pem}\n")
    refused = aiproxyd("ca", "init", "--config", str(file))
    assert refused.status == 2
    assert "so there is no CA to make" in refused.err
    assert own.fingerprint in aiproxyd("ca", "show", "--config", str(file)).out


@pytest.mark.parametrize("command", ["show", "export"])
def test_a_ca_that_is_not_there_is_not_made_by_looking(aiproxyd, data_dir: Path, command: str) -> None:
    done = aiproxyd("ca", command)
    assert done.status == 1
    assert "there is no CA in" in done.err
    assert not data_dir.exists()


def test_the_certificate_is_exported_and_never_the_key(aiproxyd, data_dir: Path, tmp_path: Path) -> None:
    aiproxyd("ca", "init")
    ca = _ca(data_dir)
    assert aiproxyd("ca", "export").out.encode() == ca.trust_pem
    assert aiproxyd("ca", "export", "--bundle").out.encode() == bundle_of(ca.trust_pem)
    output = tmp_path / "out.pem"
    assert aiproxyd("ca", "export", "--output", str(output)) == (0, "", "")
    assert output.read_bytes() == ca.trust_pem
    assert stat.S_IMODE(output.stat().st_mode) & 0o444 == 0o444 & ~_umask()


def _umask() -> int:
    before = os.umask(0)
    os.umask(before)
    return before


def test_a_file_is_not_overwritten_by_accident(aiproxyd, tmp_path: Path) -> None:
    aiproxyd("ca", "init")
    output = tmp_path / "out.pem"
    output.write_text("precious")
    refused = aiproxyd("ca", "export", "--output", str(output))
    assert refused.status == 1
    assert refused.err == f"aiproxyd: {output} is there already; --force overwrites it\n"
    assert output.read_text() == "precious"
    assert aiproxyd("ca", "export", "--output", str(output), "--force").status == 0
    assert "BEGIN CERTIFICATE" in output.read_text()


def test_a_folder_that_is_not_there_is_named(aiproxyd, tmp_path: Path) -> None:
    aiproxyd("ca", "init")
    done = aiproxyd("ca", "export", "--output", str(tmp_path / "no" / "out.pem"))
    assert done.status == 1
    assert done.err == f"aiproxyd: {tmp_path}/no/out.pem: No such file or directory\n"
