"""Users who are known elsewhere: a Coder deployment, an identity provider, a network. Real daemon, real TLS, real signatures."""

import time

import pytest

from tests.support.clients import Wire, decrypted, message
from tests.support.daemon import Daemon, eventually
from tests.support.identity_service import AUDIENCE, ISSUER, IdentityService, Signer

SESSION = "abcdefghij-0123456789abcdefghijkl"
HOST = "api.anthropic.com"
SIGNER = Signer("key-1", "ES256")

# A revocation reaches every worker within this, with the default settings.
REVOCATION_SECONDS = 5.0


@pytest.fixture
def service(tmp_path):
    with IdentityService(tmp_path) as service:
        service.keys = [SIGNER.public]
        yield service


@pytest.fixture
def daemon(own_daemon, service) -> Daemon:
    auth = {
        "coder": {"url": service.url, "ca_file": str(service.ca_file), "groups": True},
        "jwt": {
            "issuer": ISSUER,
            "audience": AUDIENCE,
            "jwks_url": f"{service.url}/keys",
            "jwks_ca_file": str(service.ca_file),
        },
    }
    return own_daemon(workers=2, config={"auth": auth})


def status_of(daemon: Daemon, token: str | None) -> int:
    with Wire(daemon) as wire:
        return wire.connect(f"{HOST}:443", user="whoever" if token else None, token=token).status


def ask(daemon: Daemon, model: str, **who: str) -> None:
    with Wire(daemon) as wire:
        assert wire.connect(f"{HOST}:443", **who).status == 200
        wire.start_tls(HOST, daemon.ca_file)
        assert wire.request("POST", "/v1/messages", HOST, message(model)).status == 200


def groups_of(daemon: Daemon) -> dict[str, list[str]]:
    import json

    users = json.loads(daemon.get("/api/v2/ai-gateway/users")[1])
    return {user["username"]: user["groups"] for user in users}


def test_a_coder_session_token_and_a_signed_token_are_their_users_in_the_records(daemon, service, model) -> None:
    id_ = service.add_user(SESSION, "carol", "eng")
    ask(daemon, model + "-coder", user="anything", token=SESSION)
    ask(daemon, model + "-jwt", user="anything", token=SIGNER.token("dave", groups=["ops", "oncall"]))
    ask(daemon, model + "-own", user="alice")
    initiators = [record["initiator"] for record in daemon.records(model, count=3)]
    assert [initiator["username"] for initiator in initiators] == ["carol", "dave", "alice"]
    assert initiators[0]["id"] == id_
    found = groups_of(daemon)
    assert (found["carol"], found["dave"]) == (["eng"], ["ops", "oncall"])
    # Each credential goes to as few as possible: the deployment saw its own.
    assert service.questions.count("/api/v2/users/me") <= 2
    assert daemon.metrics().total("coder_ai_gateway_identity_duration_seconds_count", source="jwt") >= 1


def test_what_nobody_knows_is_refused_and_a_token_of_ours_is_not_shown_to_the_deployment(daemon, service) -> None:
    for token in ("aip_" + "x" * 32, "unknown-session-token", SIGNER.token(iss="https://evil.example.com")):
        assert status_of(daemon, token) == 407
    assert service.questions.count("/api/v2/users/me") == 1


def test_a_session_that_ends_is_refused_by_every_worker_in_time(daemon, service) -> None:
    service.add_user(SESSION, "carol")
    for _ in range(10):
        assert status_of(daemon, SESSION) == 200
    del service.users[SESSION]
    began = time.monotonic()
    eventually(lambda: {status_of(daemon, SESSION) for _ in range(8)} == {407}, "every worker to refuse it", 30)
    assert time.monotonic() - began < REVOCATION_SECONDS + 2.0  # and what a loaded machine adds to the last round


@pytest.mark.parametrize("fault", ["down", "hangs", 500, b"<html>"], ids=str)
def test_an_identity_service_that_fails_lets_nobody_in_and_says_so(daemon, service, fault) -> None:
    service.add_user(SESSION, "carol")
    if fault == "down":
        service.stop()
    elif fault == "hangs":
        service.hangs = True
    else:
        service.answers_with = fault
    assert status_of(daemon, SESSION) == 503
    if fault != "hangs":
        assert status_of(daemon, SIGNER.token()) == 503
    reason = {"down": "unreachable", "hangs": "timeout", 500: "status", b"<html>": "malformed"}[fault]
    assert daemon.metrics().total("coder_ai_gateway_identity_errors_total", source="coder", reason=reason) >= 1
    assert SESSION not in daemon.log()
    # Who is known here works on.
    assert status_of(daemon, "alice-token") == 200


def test_machines_of_a_network_need_no_credentials_and_those_they_send_count_instead(own_daemon, model) -> None:
    networks = [
        {"network": "127.0.0.0/8", "user": "wide"},
        {"network": "127.0.0.1/32", "user": "build-machine", "groups": ["ci"]},
        {"network": "10.0.0.0/8", "user": "elsewhere"},
    ]
    daemon: Daemon = own_daemon(config={"auth": {"networks": networks}})
    with Wire(daemon) as wire:
        assert wire.connect(f"{HOST}:443", user=None).status == 200
        wire.start_tls(HOST, daemon.ca_file)
        assert wire.request("POST", "/v1/messages", HOST, message(model + "-none")).status == 200
    with decrypted(daemon, HOST) as wire:
        assert wire.request("POST", "/v1/messages", HOST, message(model + "-sent")).status == 200
    assert status_of(daemon, "wrong") == 407
    names = [record["initiator"]["username"] for record in daemon.records(model, count=2)]
    assert names == ["build-machine", "alice"]
    assert groups_of(daemon)["build-machine"] == ["ci"]
    daemon.write_config(auth={"networks": []})
    eventually(lambda: status_of(daemon, None) == 407, "the reload")
