"""A worker that cannot write its journal forwards and counts the loss, or refuses AI traffic: as the operator chose."""

import resource

import pytest

from tests.support.clients import Wire, decrypted, message
from tests.support.daemon import Daemon, eventually

HOST = "api.anthropic.com"


def block_writes(daemon: Daemon) -> tuple[int, int]:
    """Let no file of the worker grow any more; return what `allow_writes` needs."""
    (worker,) = daemon.workers
    before = resource.prlimit(worker, resource.RLIMIT_FSIZE)
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (1, before[1]))
    return before


def allow_writes(daemon: Daemon, limits: tuple[int, int]) -> None:
    resource.prlimit(daemon.workers[0], resource.RLIMIT_FSIZE, limits)


def connect_status(daemon: Daemon) -> int:
    with Wire(daemon) as wire:
        return wire.connect(f"{HOST}:443").status


@pytest.mark.parametrize("engine", ["relay", "mitmproxy"])
def test_refuse_ends_decrypted_connections_and_takes_no_new_ones(own_daemon, model: str, engine: str) -> None:
    daemon: Daemon = own_daemon(config={"recording": {"on_journal_failure": "refuse"}, "decrypt": {"engine": engine}})
    with decrypted(daemon, HOST) as wire:
        assert wire.request("POST", "/v1/messages", HOST, message(f"{model}-0")).status == 200
        # All of it is written, or its own end would meet the failure and close the connection at once.
        daemon.records(f"{model}-0", count=1)
        limits = block_writes(daemon)
        # The first request meets the failure and is still served; the connection ends behind its answer.
        wire.request("POST", "/v1/messages", HOST, message(f"{model}-1"))
        assert wire.receive() == b""
    eventually(lambda: connect_status(daemon) == 503, "new connections to be refused")
    allow_writes(daemon, limits)
    eventually(lambda: connect_status(daemon) == 200, "connections to be taken again")
    with decrypted(daemon, HOST) as wire:
        assert wire.request("POST", "/v1/messages", HOST, message(f"{model}-2")).status == 200
    # The buffer kept what could not be written, so in the end nothing is missing.
    daemon.records(model, count=3)


def test_forward_serves_on_and_catches_up(own_daemon, model: str) -> None:
    daemon: Daemon = own_daemon()
    with decrypted(daemon, HOST) as wire:
        limits = block_writes(daemon)
        for number in range(5):
            assert wire.request("POST", "/v1/messages", HOST, message(f"{model}-{number}")).status == 200
        assert connect_status(daemon) == 200
        allow_writes(daemon, limits)
        assert wire.request("POST", "/v1/messages", HOST, message(f"{model}-5")).status == 200
    daemon.records(model, count=6)
