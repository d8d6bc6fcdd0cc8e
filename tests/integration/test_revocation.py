"""A user who is revoked has nothing left that stands, and nobody else notices."""

import json
import threading

import pytest

from tests.integration.conftest import ENGINES, DaemonMaker
from tests.support.clients import Wire, message
from tests.support.fake_provider import FakeProvider
from tests.support.origins import Origin

HOST = "api.anthropic.com"


def is_over(wire: Wire) -> bool:
    """Wait for the end of a connection, however it comes; False after the client's patience."""
    try:
        while wire.receive():
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


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
        over: dict[str, bool] = {}
        waiting = [
            threading.Thread(target=lambda name=name, wire=wire: over.update({name: is_over(wire)}))
            for name, wire in (("tunnel", tunnel), ("idle", idle), ("busy", busy))
        ]
        for thread in waiting:
            thread.start()
        for thread in waiting:
            thread.join(60)
        assert over == {"tunnel": True, "idle": True, "busy": True}
        of_alice.send(b"still here")
        assert of_alice.read_exactly(10) == b"still here"
    gate.release(1000)
    with Wire(daemon) as wire:
        assert wire.connect(f"{HOST}:443", user=user, token=token).status == 407
    record = daemon.records(model, count=1)[0]
    assert record["outcome"] != "completed", json.dumps(record)
