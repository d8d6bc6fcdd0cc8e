import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

import aiproxyd.ca.leaves
from aiproxyd.ca.authority import CertificateAuthority
from aiproxyd.ca.leaves import LeafStore

START = dt.datetime.now(dt.UTC)


class _Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> dt.datetime:
        return self.now


@pytest.fixture
def ca(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority.create(tmp_path / "ca")


def test_every_leaf_has_the_one_key(ca: CertificateAuthority) -> None:
    store = LeafStore(ca, 7)
    key = serialization.load_pem_private_key(store.key_pem, None)
    for host in ("a.example", "b.example"):
        leaf = x509.load_pem_x509_certificate(store.pem_chain(host))
        assert leaf.public_key() == key.public_key()
        leaf.verify_directly_issued_by(ca.certificate)
    assert key.public_key() != ca.certificate.public_key()
    assert LeafStore(ca, 7).key_pem != store.key_pem


def test_a_leaf_is_the_same_object_until_it_is_renewed(ca: CertificateAuthority) -> None:
    clock = _Clock()
    store = LeafStore(ca, 6, clock=clock)
    first = store.pem_chain("a.example")
    clock.now += dt.timedelta(days=3)
    assert store.pem_chain("a.example") is first
    clock.now += dt.timedelta(days=2)
    second = store.pem_chain("a.example")
    assert second is not first
    leaf = x509.load_pem_x509_certificate(second)
    assert leaf.not_valid_after_utc == (clock.now + dt.timedelta(days=6)).replace(microsecond=0)
    assert len(store) == 1


def test_a_clock_that_is_set_back_keeps_the_leaf(ca: CertificateAuthority) -> None:
    clock = _Clock()
    store = LeafStore(ca, 7, clock=clock)
    first = store.pem_chain("a.example")
    clock.now -= dt.timedelta(minutes=30)
    assert store.pem_chain("a.example") is first


def test_the_cache_is_bounded_and_keeps_what_is_used(ca: CertificateAuthority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiproxyd.ca.leaves, "MAX_LEAVES", 3)
    store = LeafStore(ca, 7)
    kept = store.pem_chain("kept.example")
    for number in range(10):
        store.pem_chain(f"{number}.example")
        assert store.pem_chain("kept.example") is kept
        assert len(store) <= 3


def test_a_root_is_not_sent(ca: CertificateAuthority) -> None:
    assert LeafStore(ca, 7).pem_chain("a.example").count(b"BEGIN CERTIFICATE") == 1
