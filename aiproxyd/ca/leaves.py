"""Leaves of the hosts that are decrypted: one key for the life of the process, one certificate a host, renewed in time.

Not thread-safe: it belongs to a worker's event loop. A miss signs on the spot, which costs about 0.1 ms with an EC CA and 0.4 ms
with RSA; single flight is not needed because nothing is awaited.
"""

import datetime as dt
from collections import OrderedDict
from collections.abc import Callable

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from aiproxyd.ca.authority import CertificateAuthority

# A chain is about 1 KiB of PEM, so the cache stays below 8 MiB. Providers have some tens of hosts; patterns may have more.
MAX_LEAVES = 4096

# Of a leaf's life; what is left then is time enough for any connection that begins with it.
_RENEW_AFTER = 2 / 3


def _clock() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class _Leaf(msgspec.Struct, frozen=True):
    pem_chain: bytes
    renew_at: dt.datetime


class LeafStore:
    """Leaves by host, made when they are asked for."""

    def __init__(self, ca: CertificateAuthority, leaf_days: int, *, clock: Callable[[], dt.datetime] = _clock) -> None:
        """
        Args:
            ca: Signs.
            leaf_days: How many days a leaf is valid.
            clock: The time, in UTC.
        """
        self._ca = ca
        self._leaf_days = leaf_days
        self._clock = clock
        # Its own, so that handshakes never touch the CA's key.
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._public_key = self._key.public_key()
        self._chain_pem = ca.chain_pem
        self._leaves: OrderedDict[str, _Leaf] = OrderedDict()
        self.key_pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        """The one private key of every leaf, unencrypted PEM. Not to be written anywhere."""

    def __len__(self) -> int:
        return len(self._leaves)

    def pem_chain(self, host: str) -> bytes:
        """Return the leaf of `host` and the chain below its root, in PEM.

        The same object is returned until the leaf is renewed, so that a TLS context made from it can be kept beside it.

        Args:
            host: A lower-case host name or IP address, without brackets.
        """
        now = self._clock()
        leaf = self._leaves.get(host)
        if leaf is None or now >= leaf.renew_at:
            certificate = self._ca.issue(host, self._public_key, days=self._leaf_days, now=now)
            life = certificate.not_valid_after_utc - now
            pem = certificate.public_bytes(serialization.Encoding.PEM) + self._chain_pem
            leaf = self._leaves[host] = _Leaf(pem, now + life * _RENEW_AFTER)
            if len(self._leaves) > MAX_LEAVES:
                self._leaves.popitem(last=False)
        self._leaves.move_to_end(host)
        return leaf.pem_chain
