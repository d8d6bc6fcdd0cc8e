"""Certificates that are not trusted: by a client (ours), or by us (the provider's). Both are said aloud, neither is skipped."""

import socket
import ssl
import subprocess

import pytest

from tests.support.clients import Wire, decrypted
from tests.support.daemon import Daemon
from tests.support.fake_provider import FakeProvider

CLIENT_FAILURES = "coder_ai_gateway_proxy_client_tls_failures_total"


def test_a_client_that_does_not_trust_our_ca_is_counted_by_host_and_told_about_in_the_log(
    daemon: Daemon, provider: FakeProvider
) -> None:
    before = daemon.metrics().total(CLIENT_FAILURES)
    with Wire(daemon) as wire:
        wire.connect("api.anthropic.com:443")
        with pytest.raises(ssl.SSLCertVerificationError):
            # It trusts the real provider's roots only.
            wire.start_tls("api.anthropic.com", provider.ca_file)
    daemon.wait_for_metric(before + 1, CLIENT_FAILURES)
    series = daemon.metrics().series(CLIENT_FAILURES)
    assert {"unknown_ca"} <= {labels["reason"] for labels in series}
    # The log says what to do about it.
    daemon.wait_for_log("aiproxyd env")


def test_a_client_that_closes_in_the_handshake_is_counted(daemon: Daemon) -> None:
    before = daemon.metrics().total(CLIENT_FAILURES)
    with Wire(daemon) as wire:
        wire.connect("api.anthropic.com:443")
        wire.socket.shutdown(socket.SHUT_WR)
    daemon.wait_for_metric(before + 1, CLIENT_FAILURES)


def test_a_provider_whose_certificate_is_not_trusted_gives_502_and_is_never_spoken_to(
    own_daemon, provider: FakeProvider, engine: str
) -> None:
    seen = len(provider.ledger.entries())
    hosts = {"api.anthropic.com": f"127.0.0.1:{provider.untrusted_port}"}
    daemon: Daemon = own_daemon(config={"decrypt": {"engine": engine}, "egress": {"hosts": hosts}})
    status, text = 0, ""
    with Wire(daemon) as wire:
        answer = wire.connect("api.anthropic.com:443")
        if answer.status == 200:
            wire.start_tls("api.anthropic.com", daemon.ca_file)
            inner = wire.request("POST", "/v1/messages", "api.anthropic.com", b"{}", (("x-api-key", "sk-secret"),))
            assert inner is not None
            answer = inner
        status, text = answer.status, answer.body.decode()
    assert status == 502
    assert "certificate" in text
    assert len(provider.ledger.entries()) == seen


def test_a_certificate_for_another_name_gives_502(own_daemon, provider: FakeProvider, engine: str) -> None:
    hosts = {"api.elsewhere.example": f"127.0.0.1:{provider.port}"}
    entry = {"name": "elsewhere", "type": "openai-compat", "base_url": "https://api.elsewhere.example/v1"}
    daemon: Daemon = own_daemon(config={"decrypt": {"engine": engine}, "egress": {"hosts": hosts}, "providers": [entry]})
    with Wire(daemon) as wire:
        answer = wire.connect("api.elsewhere.example:443")
        if answer.status == 200:
            wire.start_tls("api.elsewhere.example", daemon.ca_file)
            inner = wire.request("POST", "/v1/chat/completions", "api.elsewhere.example", b"{}")
            assert inner is not None
            answer = inner
    assert answer.status == 502


def test_leaves_are_short_lived_and_do_not_share_the_ca_s_key(relay_daemon: Daemon) -> None:
    def public_key(pem: str) -> str:
        return subprocess.run(
            ["openssl", "x509", "-noout", "-pubkey"], input=pem, capture_output=True, text=True, check=True
        ).stdout

    with decrypted(relay_daemon, "api.anthropic.com") as wire:
        der = wire.socket.getpeercert(binary_form=True)  # type: ignore[attr-defined]
        facts = wire.socket.getpeercert()  # type: ignore[attr-defined]
    leaf = ssl.DER_cert_to_PEM_cert(der)
    assert public_key(leaf) != public_key(relay_daemon.ca_file.read_text())
    lifetime = ssl.cert_time_to_seconds(facts["notAfter"]) - ssl.cert_time_to_seconds(facts["notBefore"])
    assert lifetime < 15 * 86400


def test_an_own_intermediate_signs_and_its_chain_is_sent(own_daemon, provider: FakeProvider, tmp_path, engine: str) -> None:
    import trustme

    root = trustme.CA()
    intermediate = root.create_child_ca()
    cert_file, key_file, root_file = tmp_path / "ca.pem", tmp_path / "ca.key", tmp_path / "root.pem"
    cert_file.write_bytes(intermediate.cert_pem.bytes())
    key_file.write_bytes(intermediate.private_key_pem.bytes())
    key_file.chmod(0o600)
    root.cert_pem.write_to_path(root_file)
    daemon: Daemon = own_daemon(
        config={"decrypt": {"engine": engine}, "ca": {"cert_file": str(cert_file), "key_file": str(key_file)}}
    )
    with Wire(daemon) as wire:
        wire.connect("api.anthropic.com:443")
        wire.start_tls("api.anthropic.com", root_file)
        answer = wire.request("GET", "/v1/models", "api.anthropic.com")
    assert answer is not None
    assert answer.status == 200
