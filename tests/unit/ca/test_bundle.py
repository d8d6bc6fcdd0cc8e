import stat
from pathlib import Path

import certifi
import pytest

import aiproxyd.ca.bundle
from aiproxyd.ca.authority import CertificateAuthority
from aiproxyd.ca.bundle import bundle_of, certificates_in, client_files, system_roots
from aiproxyd.config.schema import Config
from aiproxyd.exceptions import CertificateError
from tests.support.certificates import pem


def _block(text: str) -> bytes:
    return pem("CERTIFICATE", text).rstrip()


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the system trust two roots, one of them twice."""
    file = tmp_path / "roots.crt"
    file.write_bytes(b"# Root One\n" + _block("one") + b"\n# Two\n" + _block("two") + b"\n" + _block("one") + b"\n")
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    return file


def test_certificates_are_taken_once_and_keys_and_prose_are_left_out() -> None:
    key = pem("PRIVATE KEY", "secret")
    content = b"hello\n" + _block("a") + b"\n" + key + _block("b") + b"\n" + _block("a")
    assert certificates_in(content) == _block("a") + b"\n" + _block("b") + b"\n"
    assert certificates_in(key) == b""


def test_a_bundle_is_ours_and_the_systems(roots: Path) -> None:
    assert bundle_of(_block("ours")) == b"".join(_block(name) + b"\n" for name in ("ours", "one", "two"))


def test_the_real_system_or_certifi_has_roots() -> None:
    assert system_roots().count(b"BEGIN CERTIFICATE") > 20


def test_certifi_stands_in_for_a_system_without_roots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nothing = aiproxyd.ca.bundle.ssl.DefaultVerifyPaths(None, None, "", str(tmp_path / "none"), "", "")
    monkeypatch.setattr(aiproxyd.ca.bundle.ssl, "get_default_verify_paths", lambda: nothing)
    (tmp_path / "empty").touch()
    monkeypatch.setattr(aiproxyd.ca.bundle, "_KNOWN_FILES", (str(tmp_path / "empty"),))
    assert system_roots() == Path(certifi.where()).read_bytes()


def test_clients_get_our_certificate_and_a_bundle(tmp_path: Path, roots: Path) -> None:
    config = Config(data_dir=tmp_path / "state")
    files = client_files(config)
    ca = CertificateAuthority.of(config)
    assert files.certificates == ca.certificate_file
    assert files.bundle.read_bytes() == bundle_of(ca.trust_pem)
    assert files.bundle.read_bytes().count(b"BEGIN CERTIFICATE") == 3
    assert stat.S_IMODE(files.bundle.stat().st_mode) == 0o644


def test_a_bundle_is_written_again_only_when_something_changed(tmp_path: Path, roots: Path) -> None:
    config = Config(data_dir=tmp_path / "state")
    bundle = client_files(config).bundle
    before = bundle.stat()
    client_files(config)
    assert bundle.stat().st_ino == before.st_ino
    roots.write_bytes(_block("three"))
    client_files(config)
    assert _block("three") in bundle.read_bytes()
    assert _block("one") not in bundle.read_bytes()
    CertificateAuthority.create(tmp_path / "state" / "ca", replace=True)
    client_files(config)
    assert bundle.read_bytes() == bundle_of(CertificateAuthority.of(config).trust_pem)


def test_our_own_bundle_is_no_source_of_roots(tmp_path: Path, roots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(data_dir=tmp_path / "state")
    bundle = client_files(config).bundle
    old = CertificateAuthority.of(config).trust_pem
    # A shell that has pasted our exports.
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    CertificateAuthority.create(tmp_path / "state" / "ca", replace=True)
    client_files(config)
    assert old not in bundle.read_bytes()


def test_an_operators_key_is_in_no_file_that_clients_get(tmp_path: Path, roots: Path) -> None:
    ca = CertificateAuthority.create(tmp_path / "own")
    both = tmp_path / "both.pem"
    both.write_bytes(ca.key_file.read_bytes() + ca.certificate_file.read_bytes())
    both.chmod(0o600)
    config = Config.model_validate({"data_dir": tmp_path / "state", "ca": {"cert_file": both, "key_file": both}})
    files = client_files(config)
    assert files.certificates.read_bytes() == ca.trust_pem
    assert b"PRIVATE" not in files.bundle.read_bytes()


def test_files_that_cannot_be_used_are_sentences(tmp_path: Path, roots: Path) -> None:
    own = {"cert_file": tmp_path / "missing.pem", "key_file": tmp_path / "missing.pem"}
    with pytest.raises(CertificateError, match=r"missing\.pem cannot be read: No such file"):
        client_files(Config.model_validate({"data_dir": tmp_path, "ca": own}))
    (tmp_path / "missing.pem").write_text("x")
    with pytest.raises(CertificateError, match="holds no PEM certificate"):
        client_files(Config.model_validate({"data_dir": tmp_path, "ca": own}))
    (tmp_path / "missing.pem").write_bytes(_block("x"))
    (tmp_path / "file").touch()
    with pytest.raises(CertificateError, match="cannot be written: Not a directory"):
        client_files(Config.model_validate({"data_dir": tmp_path / "file", "ca": own}))
