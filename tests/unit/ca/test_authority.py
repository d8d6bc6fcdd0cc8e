import datetime as dt
import ipaddress
import multiprocessing
import os
import socket
import ssl
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from aiproxyd.ca.authority import CertificateAuthority
from aiproxyd.ca.files import CERTIFICATE_NAME, KEY_NAME
from aiproxyd.config.schema import Config
from aiproxyd.exceptions import CertificateError

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    key,
    *,
    name: str = "own root",
    issuer: tuple[x509.Certificate, object] | None = None,
    is_ca: bool | None = True,
    cert_sign: bool | None = True,
    start: dt.datetime = NOW - DAY,
    end: dt.datetime = NOW + 30 * DAY,
    subject_key: bool = True,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(issuer[0].subject if issuer else _name(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )
    if is_ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    if cert_sign is not None:
        usage = dict.fromkeys(
            ["content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"],
            False,
        )
        builder = builder.add_extension(
            x509.KeyUsage(digital_signature=True, key_cert_sign=cert_sign, crl_sign=False, **usage), critical=True
        )
    if subject_key:
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    if issuer:
        own = issuer[0].extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False)
    signer = issuer[1] if issuer else key
    return builder.sign(signer, None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256())


def _write(folder: Path, certificates: Sequence[x509.Certificate], key, *, password: bytes | None = None) -> tuple[Path, Path]:
    certificate_file, key_file = folder / "own.pem", folder / "own.key"
    certificate_file.write_bytes(b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates))
    protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection))
    key_file.chmod(0o600)
    return certificate_file, key_file


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _handshake(server_chain: bytes, server_key: bytes, trust: bytes, host: str, folder: Path) -> None:
    """Make a TLS handshake in memory; raises what the client raises."""
    (folder / "chain.pem").write_bytes(server_chain)
    (folder / "leaf.key").write_bytes(server_key)
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(folder / "chain.pem", folder / "leaf.key")
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # As strict as Python 3.13's default context, without partial chains: only a root is an anchor.
    client_context.verify_flags = ssl.VerifyFlags.VERIFY_X509_STRICT | ssl.VerifyFlags.VERIFY_X509_TRUSTED_FIRST
    client_context.load_verify_locations(cadata=trust.decode())
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=host)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(6):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
    assert client.getpeercert()


def _leaf(ca: CertificateAuthority, host: str, **more: object) -> tuple[x509.Certificate, bytes, bytes]:
    key = _key()
    leaf = ca.issue(host, key.public_key(), days=7, **more)
    chain = leaf.public_bytes(serialization.Encoding.PEM) + ca.chain_pem
    return (
        leaf,
        chain,
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def _extension(certificate: x509.Certificate, kind):
    return certificate.extensions.get_extension_for_class(kind)


def test_a_new_ca_has_the_constraints_of_one(tmp_path: Path) -> None:
    ca = CertificateAuthority.create(tmp_path / "ca")
    certificate = ca.certificate
    constraints = _extension(certificate, x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    usage = _extension(certificate, x509.KeyUsage)
    assert usage.critical
    assert (usage.value.key_cert_sign, usage.value.crl_sign, usage.value.digital_signature) == (True, True, False)
    own = _extension(certificate, x509.SubjectKeyIdentifier).value
    assert _extension(certificate, x509.AuthorityKeyIdentifier).value.key_identifier == own.key_identifier
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    assert certificate.public_key().curve.name == "secp256r1"
    assert certificate.serial_number.bit_length() > 64
    assert certificate.subject == certificate.issuer
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert names[0].value == f"aiproxyd CA {socket.gethostname()}"[:64].strip()
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert dt.timedelta(days=3650) <= life < dt.timedelta(days=3651)
    assert certificate.not_valid_before_utc < dt.datetime.now(dt.UTC) - dt.timedelta(minutes=59)


def test_a_long_host_name_does_not_break_the_ca(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "h" * 64)
    assert CertificateAuthority.create(tmp_path / "ca").certificate


def test_the_key_is_closed_to_others_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        CertificateAuthority.create(tmp_path / "state" / "ca")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "state" / "ca").iterdir()}
    assert modes == {CERTIFICATE_NAME: 0o644, KEY_NAME: 0o600, ".lock": 0o600}
    assert stat.S_IMODE((tmp_path / "state" / "ca").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_a_ca_is_made_once(tmp_path: Path) -> None:
    first = CertificateAuthority.create(tmp_path)
    assert CertificateAuthority.create(tmp_path).certificate == first.certificate
    replaced = CertificateAuthority.create(tmp_path, replace=True)
    assert replaced.certificate != first.certificate
    assert CertificateAuthority.create(tmp_path).certificate == replaced.certificate


def _create(folder: str, results) -> None:
    results.put(CertificateAuthority.create(Path(folder)).fingerprint)


def test_many_first_starts_at_once_get_the_same_ca(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    starts = [context.Process(target=_create, args=(str(tmp_path / "ca"), results)) for _ in range(4)]
    for start in starts:
        start.start()
    fingerprints = {results.get() for _ in starts}
    for start in starts:
        start.join()
    assert fingerprints == {CertificateAuthority.create(tmp_path / "ca").fingerprint}


def test_a_key_without_a_certificate_is_a_ca_that_was_never_finished(tmp_path: Path) -> None:
    old = CertificateAuthority.create(tmp_path)
    old.certificate_file.unlink()
    assert CertificateAuthority.create(tmp_path).certificate != old.certificate


def test_a_certificate_without_its_key_is_not_replaced_in_silence(tmp_path: Path) -> None:
    ca = CertificateAuthority.create(tmp_path)
    ca.key_file.unlink()
    with pytest.raises(CertificateError, match=r"ca-key\.pem does not exist"):
        CertificateAuthority.create(tmp_path)


def test_a_folder_that_cannot_be_used_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CertificateError, match="cannot be used: Not a directory"):
        CertificateAuthority.create(tmp_path / "file")


def test_the_configuration_says_whose_ca_it_is(tmp_path: Path) -> None:
    own = CertificateAuthority.of(Config(data_dir=tmp_path / "state"))
    assert own.certificate_file == tmp_path / "state" / "ca" / CERTIFICATE_NAME
    key = _key()
    certificate_file, key_file = _write(tmp_path, [_certificate(key)], key)
    config = Config.model_validate({"data_dir": tmp_path, "ca": {"cert_file": certificate_file, "key_file": key_file}})
    assert CertificateAuthority.of(config).certificate_file == certificate_file


def test_a_leaf_is_a_short_lived_server_certificate(tmp_path: Path) -> None:
    ca = CertificateAuthority.create(tmp_path)
    leaf, _, _ = _leaf(ca, "api.anthropic.com", now=NOW)
    assert _extension(leaf, x509.BasicConstraints).value.ca is False
    names = _extension(leaf, x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == ["api.anthropic.com"]
    assert list(_extension(leaf, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    usage = _extension(leaf, x509.KeyUsage).value
    assert (usage.digital_signature, usage.key_cert_sign) == (True, False)
    authority = _extension(leaf, x509.AuthorityKeyIdentifier).value
    assert authority.key_identifier == _extension(ca.certificate, x509.SubjectKeyIdentifier).value.key_identifier
    assert _extension(leaf, x509.SubjectKeyIdentifier).value == x509.SubjectKeyIdentifier.from_public_key(leaf.public_key())
    assert leaf.not_valid_after_utc == (NOW + 7 * DAY).replace(microsecond=0)
    assert leaf.not_valid_before_utc >= ca.certificate.not_valid_before_utc
    assert leaf.public_key() != ca.certificate.public_key()


def test_two_leaves_have_different_serial_numbers(tmp_path: Path) -> None:
    ca = CertificateAuthority.create(tmp_path)
    assert _leaf(ca, "a.example")[0].serial_number != _leaf(ca, "a.example")[0].serial_number


def test_a_leaf_begins_an_hour_ago_for_clocks_that_are_late(tmp_path: Path) -> None:
    key = _key()
    ca = CertificateAuthority.load(*_write(tmp_path, [_certificate(key)], key))
    leaf, _, _ = _leaf(ca, "a.example", now=NOW)
    assert leaf.not_valid_before_utc == (NOW - dt.timedelta(hours=1)).replace(microsecond=0)


def test_a_leaf_does_not_outlive_its_ca(tmp_path: Path) -> None:
    key = _key()
    ca = CertificateAuthority.load(*_write(tmp_path, [_certificate(key, end=NOW + DAY)], key))
    assert _leaf(ca, "a.example")[0].not_valid_after_utc == ca.certificate.not_valid_after_utc


@pytest.mark.parametrize(
    "host", ["api.openai.com", "127.0.0.1", "2001:db8::1", "a_b.example", "x" * 60 + "." + "y" * 60 + ".example"]
)
def test_strict_clients_accept_a_leaf_of_any_host(tmp_path: Path, host: str) -> None:
    ca = CertificateAuthority.create(tmp_path / "ca")
    leaf, chain, key = _leaf(ca, host)
    _handshake(chain, key, ca.trust_pem, host, tmp_path)
    names = _extension(leaf, x509.SubjectAlternativeName)
    if ":" in host or host[0].isdigit():
        assert names.value.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address(host)]
    assert names.critical is (len(host) > 64)


def test_a_leaf_is_good_for_no_other_host(tmp_path: Path) -> None:
    ca = CertificateAuthority.create(tmp_path / "ca")
    _, chain, key = _leaf(ca, "api.openai.com")
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        _handshake(chain, key, ca.trust_pem, "api.anthropic.com", tmp_path)


@pytest.mark.parametrize("with_root", [True, False])
@pytest.mark.parametrize(
    "make_key",
    [
        lambda: rsa.generate_private_key(65537, 2048),
        _key,
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: ec.generate_private_key(ec.SECP521R1()),
    ],
    ids=["rsa", "p256", "p384", "p521"],
)
def test_an_operators_intermediate_signs_leaves_that_lead_to_its_root(tmp_path: Path, make_key, with_root: bool) -> None:
    root_key, key = _key(), make_key()
    root = _certificate(root_key, name="root")
    intermediate = _certificate(key, name="intermediate", issuer=(root, root_key))
    ca = CertificateAuthority.load(*_write(tmp_path, [intermediate, root] if with_root else [intermediate], key))
    _, chain, leaf_key = _leaf(ca, "api.openai.com")
    # The root itself is never sent.
    assert chain.count(b"BEGIN CERTIFICATE") == 2
    root_pem = root.public_bytes(serialization.Encoding.PEM)
    _handshake(chain, leaf_key, root_pem, "api.openai.com", tmp_path)
    assert (root_pem in ca.trust_pem) is with_root


def test_a_ca_without_a_key_identifier_signs_all_the_same(tmp_path: Path) -> None:
    key = _key()
    ca = CertificateAuthority.load(*_write(tmp_path, [_certificate(key, subject_key=False)], key))
    leaf, _, _ = _leaf(ca, "a.example")
    leaf.verify_directly_issued_by(ca.certificate)
    assert _extension(leaf, x509.AuthorityKeyIdentifier).value.key_identifier


def test_one_file_may_hold_key_and_certificate_and_only_certificates_are_handed_out(tmp_path: Path) -> None:
    key = _key()
    certificate_file, key_file = _write(tmp_path, [_certificate(key)], key)
    both = tmp_path / "both.pem"
    both.write_bytes(key_file.read_bytes() + certificate_file.read_bytes())
    both.chmod(0o600)
    ca = CertificateAuthority.load(both, both)
    assert ca.trust_pem == certificate_file.read_bytes()
    assert b"PRIVATE" not in ca.trust_pem
    assert ca.chain_pem == b""


@pytest.mark.parametrize("mode", [0o650, 0o604, 0o644, 0o660, 0o601, 0o620])
def test_a_key_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    key = _key()
    certificate_file, key_file = _write(tmp_path, [_certificate(key)], key)
    key_file.chmod(mode)
    with pytest.raises(
        CertificateError, match=rf"own\.key is open to others than its owner and group \(mode 0{mode:o}\); chmod 600 it"
    ):
        CertificateAuthority.load(certificate_file, key_file)


def test_an_encrypted_key_is_refused(tmp_path: Path) -> None:
    key = _key()
    files = _write(tmp_path, [_certificate(key)], key, password=b"secret")
    with pytest.raises(CertificateError, match="is encrypted; the daemon cannot ask for its password"):
        CertificateAuthority.load(*files)


@pytest.mark.parametrize(
    ("certificate", "message"),
    [
        ({"is_ca": False}, r"the CA certificate in .*own\.pem is no CA certificate"),
        ({"is_ca": None}, "is no CA certificate"),
        ({"cert_sign": False}, "may not sign certificates"),
        ({"end": NOW - DAY / 2}, "expired on"),
        ({"start": NOW + DAY}, "is not valid before"),
    ],
)
def test_a_certificate_that_is_no_working_ca_is_refused(tmp_path: Path, certificate: dict[str, object], message: str) -> None:
    key = _key()
    with pytest.raises(CertificateError, match=message):
        CertificateAuthority.load(*_write(tmp_path, [_certificate(key, **certificate)], key))


def test_a_ca_without_key_usage_may_sign(tmp_path: Path) -> None:
    key = _key()
    assert CertificateAuthority.load(*_write(tmp_path, [_certificate(key, cert_sign=None)], key))


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    files = _write(tmp_path, [_certificate(_key())], _key())
    with pytest.raises(CertificateError, match="is not that of the first certificate in"):
        CertificateAuthority.load(*files)


def test_a_chain_out_of_order_or_expired_is_refused(tmp_path: Path) -> None:
    root_key, key = _key(), _key()
    root = _certificate(root_key, name="root")
    intermediate = _certificate(key, name="intermediate", issuer=(root, root_key))
    with pytest.raises(CertificateError, match=r"certificate 2 in .* did not issue the one before it"):
        CertificateAuthority.load(*_write(tmp_path, [intermediate, _certificate(_key(), name="root")], key))
    old = _certificate(root_key, name="root", end=NOW - DAY / 2)
    with pytest.raises(CertificateError, match=r"certificate 2 in .* expired on"):
        CertificateAuthority.load(*_write(tmp_path, [intermediate, old], key))


@pytest.mark.parametrize(
    "make_key",
    [
        lambda: rsa.generate_private_key(65537, 1024),
        ed25519.Ed25519PrivateKey.generate,
        lambda: ec.generate_private_key(ec.SECP256K1()),
    ],
    ids=["rsa1024", "ed25519", "secp256k1"],
)
def test_keys_that_clients_do_not_take_are_refused(tmp_path: Path, make_key) -> None:
    key = make_key()
    with pytest.raises(CertificateError, match="is neither RSA of at least 2048 bits nor EC on P-256, P-384 or P-521"):
        CertificateAuthority.load(*_write(tmp_path, [_certificate(_key())], key))


def test_files_that_hold_something_else_are_refused(tmp_path: Path) -> None:
    key = _key()
    certificate_file, key_file = _write(tmp_path, [_certificate(key)], key)
    with pytest.raises(CertificateError, match="nothing does not exist"):
        CertificateAuthority.load(tmp_path / "nothing", key_file)
    with pytest.raises(CertificateError, match=r"the CA key file .*nothing does not exist"):
        CertificateAuthority.load(certificate_file, tmp_path / "nothing")
    with pytest.raises(CertificateError, match="holds no PEM certificate"):
        CertificateAuthority.load(key_file, key_file)
    (tmp_path / "bad.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(CertificateError, match="holds a certificate that cannot be read"):
        CertificateAuthority.load(tmp_path / "bad.pem", key_file)
    (tmp_path / "bad.key").write_text("not a key")
    (tmp_path / "bad.key").chmod(0o600)
    with pytest.raises(CertificateError, match="holds no PEM private key that can be read"):
        CertificateAuthority.load(certificate_file, tmp_path / "bad.key")
    (tmp_path / "huge.pem").write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(CertificateError, match="is larger than 1048576 bytes"):
        CertificateAuthority.load(tmp_path / "huge.pem", key_file)
    with pytest.raises(CertificateError, match="cannot be read: Is a directory"):
        CertificateAuthority.load(tmp_path, key_file)
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(CertificateError, match="is no file"):
        CertificateAuthority.load(certificate_file, tmp_path / "fifo")


def test_the_fingerprint_is_as_other_tools_print_it(tmp_path: Path) -> None:
    ca = CertificateAuthority.create(tmp_path)
    assert ca.fingerprint == ca.certificate.fingerprint(hashes.SHA256()).hex(":").upper()
    assert len(ca.fingerprint) == 95
