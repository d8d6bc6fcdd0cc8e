"""A user who is revoked has nothing left that stands, and nobody else notices."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.integration.conftest import ENGINES, DaemonMaker
from tests.support.clients import Wire, message
from tests.support.daemon import eventually
from tests.support.fake_provider import FakeProvider
from tests.support.identity_service import IdentityService
from tests.support.origins import Origin

HOST = "api.anthropic.com"


# A revocation reaches every worker within this, with the default settings; and what a loaded machine adds.
REVOCATION_SECONDS = 5.0
MACHINE_SECONDS = 3.0


def is_over(receive: Callable[[], bytes]) -> bool:
    """Wait for the end of a connection, however it comes; False after the client's patience."""
    try:
        while receive():
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def ends(receivers: Mapping[str, Callable[[], bytes]]) -> dict[str, bool]:
    """Wait for the end of all of them at once."""
    over: dict[str, bool] = {}
    waiting = [
        threading.Thread(target=lambda name=name, receive=receive: over.update({name: is_over(receive)}))
        for name, receive in receivers.items()
    ]
    for thread in waiting:
        thread.start()
    for thread in waiting:
        thread.join(60)
    return over


@pytest.mark.parametrize("by", ["command line", "configuration"])
@pytest.mark.parametrize("engine", ENGINES)
def test_tunnels_and_decrypted_connections_end_by_themselves(
    own_daemon: DaemonMaker, provider: FakeProvider, origins: dict[str, Origin], model: str, engine: str, by: str
) -> None:
    hosts = {"echo.example.com": f"127.0.0.1:{origins['echo.example.com'].port}"}
    daemon = own_daemon(config={"decrypt": {"engine": engine}, "egress": {"hosts": hosts}})
    if by == "configuration":
        user, token = "bob", "bob-token"
    else:
        user = "carol"
        token = next(word for word in daemon.command("user", "add", user).stdout.split() if word.startswith("aip_"))
    with Wire(daemon) as tunnel, Wire(daemon) as idle, Wire(daemon) as busy, Wire(daemon) as of_alice:
        assert tunnel.connect("echo.example.com:443", user=user, token=token).status == 200
        assert of_alice.connect("echo.example.com:443").status == 200
        for wire in (idle, busy):
            assert wire.connect(f"{HOST}:443", user=user, token=token).status == 200
            wire.start_tls(HOST, daemon.ca_file)
        gate = provider.gate(model)
        busy.request("POST", "/v1/messages", HOST, message(f"{model}+gate={model}", stream=True), read=False)
        busy.read_head()
        if by == "configuration":
            users = [entry for entry in daemon.config["auth"]["users"] if entry["name"] != user]
            daemon.write_config(auth={"users": users})
            daemon.reload()
        else:
            daemon.command("user", "revoke", user)
        over = ends({"tunnel": tunnel.receive, "idle": idle.receive, "busy": busy.receive})
        assert over == {"tunnel": True, "idle": True, "busy": True}
        of_alice.send(b"still here")
        assert of_alice.read_exactly(10) == b"still here"
    gate.release(1000)
    with Wire(daemon) as wire:
        assert wire.connect(f"{HOST}:443", user=user, token=token).status == 407
    record = daemon.records(model, count=1)[0]
    assert record["outcome"] != "completed", json.dumps(record)


def test_a_revocation_is_seen_as_soon_when_the_store_was_not_written_to_for_a_while(
    own_daemon: DaemonMaker, origins: dict[str, Origin]
) -> None:
    daemon = own_daemon(config={"egress": {"hosts": {"echo.example.com": f"127.0.0.1:{origins['echo.example.com'].port}"}}})
    files = [daemon.store_file, daemon.store_file.with_name(f"{daemon.store_file.name}-wal")]
    for _ in range(2):
        token = next(word for word in daemon.command("user", "add", "carol").stdout.split() if word.startswith("aip_"))
        with Wire(daemon) as tunnel:
            assert tunnel.connect("echo.example.com:443", user="carol", token=token).status == 200
            # Long enough that control asked for the users after the last write and has no reason to ask again.
            eventually(lambda: max(file.stat().st_mtime for file in files) < time.time() - 15, "the store to be left alone", 60)
            began = time.monotonic()
            daemon.command("user", "revoke", "carol")
            assert is_over(tunnel.receive)
            assert time.monotonic() - began < REVOCATION_SECONDS + MACHINE_SECONDS


@pytest.mark.parametrize("path", [*ENGINES, "own keys"])
def test_a_coder_session_that_ends_takes_with_it_what_it_has_open_and_leaves_the_user_s_other_ones(
    own_daemon: DaemonMaker, provider: FakeProvider, origins: dict[str, Origin], model: str, path: str, tmp_path: Path
) -> None:
    ending, staying = "abcdefghij-0123456789abcdefghijkl", "zyxwvutsrq-0123456789abcdefghijkl"
    with IdentityService(tmp_path) as service, contextlib.ExitStack() as stack:
        for session in (ending, staying):
            service.add_user(session, "carol")
        entry = {"name": "claude", "type": "anthropic"} | ({"keys": ["sk-ant-ours"]} if path == "own keys" else {})
        daemon = own_daemon(
            workers=2,
            config={
                "auth": {"coder": {"url": service.url, "ca_file": str(service.ca_file)}},
                "decrypt": {"engine": path} if path in ENGINES else {},
                "egress": {"hosts": {"echo.example.com": f"127.0.0.1:{origins['echo.example.com'].port}"}},
                "listen_gateway": "127.0.0.1:0",
                "providers": [entry],
            },
        )
        gate = provider.gate(model)
        body = message(f"{model}+gate={model}", stream=True)

        def connected(session: str, host: str = HOST) -> Wire:
            wire = stack.enter_context(Wire(daemon))
            assert wire.connect(f"{host}:443", user="whoever", token=session).status == 200
            if host == HOST:
                wire.start_tls(HOST, daemon.ca_file)
            return wire

        tunnel, idle, busy = connected(ending, "echo.example.com"), connected(ending), connected(ending)
        others = connected(staying, "echo.example.com")
        busy.request("POST", "/v1/messages", HOST, body, read=False)
        busy.read_head()
        place = urlsplit(daemon.gateway_url)
        reverse = stack.enter_context(socket.create_connection((place.hostname, place.port), timeout=60))
        head = f"POST /claude/v1/messages HTTP/1.1\r\nHost: x\r\nX-Coder-AI-Governance-Token: {ending}\r\nX-Api-Key: sk-ant-mine\r\n"
        reverse.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert reverse.recv(12) == b"HTTP/1.1 200"
        # Longer than an answer about a session is good for: these are connections of those who do not come again.
        asked = len(service.questions)
        eventually(lambda: len(service.questions) >= asked + 4, "sessions to be asked for again", 60)
        assert "sessions that ended" not in daemon.log()

        del service.users[ending]
        began = time.monotonic()
        receivers = {
            "tunnel": tunnel.receive,
            "idle": idle.receive,
            "busy": busy.receive,
            "reverse": lambda: reverse.recv(65536),
        }
        assert ends(receivers) == dict.fromkeys(receivers, True)
        assert time.monotonic() - began < REVOCATION_SECONDS + MACHINE_SECONDS
        others.send(b"still here")
        assert others.read_exactly(10) == b"still here"
        with Wire(daemon) as wire:
            assert wire.connect(f"{HOST}:443", user="whoever", token=ending).status == 407
        connected(staying)
        assert ending not in daemon.log()
    gate.release(1000)
    records = daemon.records(model, count=2)
    assert all(record["outcome"] != "completed" for record in records), json.dumps(records)
