"""The certificate authority: made once, or the operator's own, checked when it is loaded, and used only to sign.

Not a store of leaves (`leaves`) and not what clients trust besides (`bundle`).

Strategy for two files that must never disagree: whoever makes a CA holds the folder's lock, writes the key first and the
certificate last. A key alone is a CA that was never finished and that nobody trusts; it is replaced. Replacing removes the
certificate first, for the same reason.
"""

import datetime as dt
import ipaddress
import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from aiproxyd.ca.files import CERTIFICATE_NAME, KEY_NAME, locked, private_folder, write_whole
from aiproxyd.config.schema import Config
from aiproxyd.exceptions import CertificateError

# A client trusts it by hand, so renewing is work for people; ten years is what mkcert and mitmproxy take, too.
VALID_DAYS = 3650

# Clocks of clients that are late by less than this accept a certificate that was made just now.
CLOCK_SKEW = dt.timedelta(hours=1)

# A certificate file holds a handful of certificates of about 2 KiB.
MAX_FILE_BYTES = 1 << 20

# X.520's upper bound of a common name; a longer host stands in the alternative name alone.
_MAX_COMMON_NAME_CHARACTERS = 64

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class CertificateAuthority:
    """A CA or intermediate with its key. Immutable."""

    def __init__(
        self, certificates: Sequence[x509.Certificate], key: PrivateKey, *, certificate_file: Path, key_file: Path
    ) -> None:
        self.certificate = certificates[0]
        """The one whose key signs leaves."""
        self.chain = tuple(certificates[1:])
        """Its issuer, the issuer's issuer, and so on, as far as the file goes."""
        self.certificate_file = certificate_file
        self.key_file = key_file
        self._key = key
        self._hash = _hash_for(key)
        self._authority_key = _authority_key_identifier(self.certificate)

    @classmethod
    def of(cls, config: Config) -> "CertificateAuthority":
        """Return the CA that `config` names, or the one in `data_dir/ca`, which is made when there is none.

        Raises:
            CertificateError: It cannot be used; a sentence.
        """
        if config.ca.cert_file is not None and config.ca.key_file is not None:
            return cls.load(config.ca.cert_file, config.ca.key_file)
        return cls.create(config.data_dir / "ca")

    @classmethod
    def create(cls, folder: Path, *, replace: bool = False) -> "CertificateAuthority":
        """Return the CA in `folder`, made now when there is none. Any number of callers at once get the same one.

        Args:
            folder: Made with mode 0700 when it is missing.
            replace: Whether to make a new one in place of what is there.

        Raises:
            CertificateError: The folder cannot be written, or what is in it cannot be used.
        """
        certificate_file, key_file = folder / CERTIFICATE_NAME, folder / KEY_NAME
        try:
            private_folder(folder)
            with locked(folder):
                if replace:
                    certificate_file.unlink(missing_ok=True)
                if not certificate_file.exists():
                    certificate, key = _new_authority(dt.datetime.now(dt.UTC))
                    write_whole(key_file, _key_pem(key), mode=0o600)
                    write_whole(certificate_file, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)
                return cls.load(certificate_file, key_file)
        except OSError as exc:
            raise CertificateError(f"the CA folder {folder} cannot be used: {exc.strerror or exc}") from exc

    @classmethod
    def load(cls, certificate_file: Path, key_file: Path) -> "CertificateAuthority":
        """Return the CA in these files, checked.

        Args:
            certificate_file: PEM of the CA or intermediate, followed by its chain. Anything but certificates is skipped.
            key_file: PEM of its unencrypted private key, closed to group and others. May be the same file.

        Raises:
            CertificateError: A file is missing, unreadable or too open, or the two make no valid CA.
        """
        certificates = _load_certificates(certificate_file)
        key = _load_key(key_file)
        _check(certificates, key, certificate_file, key_file, now=dt.datetime.now(dt.UTC))
        return cls(certificates, key, certificate_file=certificate_file, key_file=key_file)

    @property
    def trust_pem(self) -> bytes:
        """What clients must trust: the certificate with its chain, in PEM, and nothing else."""
        return _pem((self.certificate, *self.chain))

    @property
    def chain_pem(self) -> bytes:
        """What follows a leaf in a handshake, in PEM: the chain without its root. Empty for a CA that is the root."""
        return _pem([certificate for certificate in (self.certificate, *self.chain) if not _is_root(certificate)])

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate: upper-case hex with colons, as other tools print it."""
        return self.certificate.fingerprint(hashes.SHA256()).hex(":").upper()

    def issue(
        self, host: str, public_key: ec.EllipticCurvePublicKey, *, days: int, now: dt.datetime | None = None
    ) -> x509.Certificate:
        """Return a leaf for a TLS server.

        Args:
            host: A lower-case host name or IP address, without brackets.
            public_key: The leaf's.
            days: How long it is valid, from `now`; cut to the CA's own end.
            now: The time; the clock's when absent.
        """
        now = now or dt.datetime.now(dt.UTC)
        subject, names = _names(host)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            # Leaves lie within the life of their CA; some validators insist.
            .not_valid_before(max(now - CLOCK_SKEW, self.certificate.not_valid_before_utc))
            .not_valid_after(min(now + dt.timedelta(days=days), self.certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_DIGITAL_SIGNATURE, critical=True)
            .add_extension(_SERVER_AUTH, critical=False)
            # RFC 5280 §4.2.1.6: critical when it is the only name.
            .add_extension(names, critical=not list(subject))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(self._authority_key, critical=False)
            .sign(self._key, self._hash)
        )


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        encipher_only=False,
        decipher_only=False,
    )


_DIGITAL_SIGNATURE = _usage(digital_signature=True)
_SERVER_AUTH = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])


def _new_authority(now: dt.datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = f"aiproxyd CA {socket.gethostname()}"[:_MAX_COMMON_NAME_CHARACTERS].strip()
    subject = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "aiproxyd"), x509.NameAttribute(NameOID.COMMON_NAME, name)]
    )
    own_key = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + dt.timedelta(days=VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True), critical=True)
        .add_extension(own_key, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own_key), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def _names(host: str) -> tuple[x509.Name, x509.SubjectAlternativeName]:
    try:
        name: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        name = x509.DNSName(host)
    common_name = [x509.NameAttribute(NameOID.COMMON_NAME, host)] if len(host) <= _MAX_COMMON_NAME_CHARACTERS else []
    return x509.Name(common_name), x509.SubjectAlternativeName([name])


def _load_certificates(file: Path) -> list[x509.Certificate]:
    content, _ = _read(file, "CA certificate")
    if b"-----BEGIN CERTIFICATE-----" not in content:
        raise CertificateError(f"the CA certificate file {file} holds no PEM certificate")
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as exc:
        raise CertificateError(f"the CA certificate file {file} holds a certificate that cannot be read: {exc}") from exc


def _load_key(file: Path) -> PrivateKey:
    content, mode = _read(file, "CA key")
    # A group may read it: that is how Kubernetes hands a secret to a process that is not root. Nobody else, and none may write.
    if mode & 0o037:
        raise CertificateError(
            f"the CA key file {file} is open to others than its owner and group (mode {mode:04o}); chmod 600 it"
        )
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except TypeError as exc:
        raise CertificateError(f"the CA key in {file} is encrypted; the daemon cannot ask for its password") from exc
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise CertificateError(f"the CA key file {file} holds no PEM private key that can be read") from exc
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1):
        return key
    raise CertificateError(f"the CA key in {file} is neither RSA of at least 2048 bits nor EC on P-256, P-384 or P-521")


def _read(file: Path, what: str) -> tuple[bytes, int]:
    """Return a file's content and permission bits, both of the same open file."""
    try:
        # Non-blocking, so that a FIFO in its place is an error and not a hang.
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as opened:
            status = os.fstat(opened.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise CertificateError(f"the {what} {file} is no file")
            content = opened.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as exc:
        raise CertificateError(f"the {what} file {file} does not exist") from exc
    except OSError as exc:
        raise CertificateError(f"the {what} file {file} cannot be read: {exc.strerror or exc}") from exc
    if len(content) > MAX_FILE_BYTES:
        raise CertificateError(f"the {what} file {file} is larger than {MAX_FILE_BYTES} bytes")
    return content, stat.S_IMODE(status.st_mode)


def _check(
    certificates: Sequence[x509.Certificate], key: PrivateKey, certificate_file: Path, key_file: Path, *, now: dt.datetime
) -> None:
    certificate = certificates[0]
    if _public_bytes(certificate.public_key()) != _public_bytes(key.public_key()):
        raise CertificateError(f"the key in {key_file} is not that of the first certificate in {certificate_file}")
    for place, one in enumerate(certificates):
        which = f"the CA certificate in {certificate_file}" if place == 0 else f"certificate {place + 1} in {certificate_file}"
        _check_is_authority(one, which)
        if now < one.not_valid_before_utc:
            raise CertificateError(f"{which} is not valid before {one.not_valid_before_utc:%Y-%m-%d %H:%M} UTC")
        if now > one.not_valid_after_utc:
            raise CertificateError(f"{which} expired on {one.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
        if place:
            try:
                certificates[place - 1].verify_directly_issued_by(one)
            except (ValueError, TypeError, InvalidSignature) as exc:
                raise CertificateError(
                    f"{which} did not issue the one before it; the file must hold the chain in order"
                ) from exc


def _check_is_authority(certificate: x509.Certificate, which: str) -> None:
    try:
        extensions = certificate.extensions
    except ValueError as exc:
        raise CertificateError(f"{which} has extensions that cannot be read: {exc}") from exc
    try:
        is_authority = extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_authority = False
    if not is_authority:
        raise CertificateError(f"{which} is no CA certificate (basicConstraints CA:TRUE is missing)")
    try:
        may_sign = extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        may_sign = True  # RFC 5280 §4.2.1.3: without the extension every use is allowed
    if not may_sign:
        raise CertificateError(f"{which} may not sign certificates (keyUsage keyCertSign is missing)")


def _public_bytes(key: object) -> bytes:
    # Certificates may hold kinds of key that have no such encoding; those match nothing.
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        return b""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _hash_for(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512:
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size > 256:
        return hashes.SHA384() if key.curve.key_size == 384 else hashes.SHA512()
    return hashes.SHA256()


def _authority_key_identifier(certificate: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        own = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(certificate.public_key())  # type: ignore[arg-type]  # RSA or EC, checked
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _is_root(certificate: x509.Certificate) -> bool:
    return certificate.subject == certificate.issuer


def _pem(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
