"""The supervisor and a real worker: what happens to its successor."""

import asyncio
import contextlib
import os
import signal
import socket
import sys

import msgspec
import psutil
import pytest

from aiproxyd.ca.authority import CertificateAuthority
from aiproxyd.channel import Configure
from aiproxyd.config.loader import load
from aiproxyd.exceptions import ConfigError
from aiproxyd.supervisor import RESOLVER_THREADS, Supervisor


def config_with(tmp_path, **environ):
    variables = {"AIPROXYD_DATA_DIR": str(tmp_path), "AIPROXYD_AUTH__MODE": "off"}
    return load(None, variables | {f"AIPROXYD_{name}": value for name, value in environ.items()})


def configuration_of(config):
    return Configure(config=msgspec.Raw(config.for_workers()))


@contextlib.asynccontextmanager
async def one_worker(tmp_path, count=1, **environ):
    config = config_with(tmp_path, **environ)
    (tmp_path / "journal").mkdir()
    CertificateAuthority.of(config)

    async def identify(_credential):
        return None

    with socket.create_server(("127.0.0.1", 0)) as listener:
        supervisor = Supervisor(listen={"proxy": [listener]}, configuration=configuration_of(config), identify=identify)
        await supervisor.start(count)
        supervisor.port = listener.getsockname()[1]
        try:
            yield supervisor
        finally:
            await supervisor.stop(0)


async def until(predicate):
    async with asyncio.timeout(30):
        while not predicate():
            await asyncio.sleep(0.02)


async def test_a_worker_that_cannot_be_started_now_is_started_later(tmp_path, monkeypatch):
    async with one_worker(tmp_path) as supervisor:
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))  # as while a package is replaced
        os.kill(supervisor.pids[0], signal.SIGKILL)
        await until(lambda: supervisor.restarts == 1 and not supervisor.pids)
        await asyncio.sleep(0.5)  # several tries fail meanwhile; fewer would do, too
        monkeypatch.undo()
        await until(lambda: supervisor.ready_workers == 1)


async def test_names_whose_servers_are_silent_do_not_take_all_threads(tmp_path):
    async with one_worker(tmp_path) as supervisor:
        assert psutil.Process(supervisor.pids[0]).environ()["UV_THREADPOOL_SIZE"] == str(RESOLVER_THREADS)


async def realms_of(supervisor):
    """Return the realms in the answers to a handful of CONNECTs, which the workers share."""
    realms = set()
    for _ in range(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", supervisor.port)
        writer.write(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        realms.add(head.partition(b'realm="')[2].partition(b'"')[0].decode())
        writer.close()
    return realms


ASKING = {"AUTH__MODE": "required"}


async def test_a_configuration_is_used_by_every_worker_or_by_none(tmp_path):
    first, second = config_with(tmp_path, **ASKING), config_with(tmp_path, **ASKING, AUTH__REALM="second")
    broken = Configure(config=msgspec.Raw(second.for_workers().replace(b'"second"', b"7")))
    async with one_worker(tmp_path, 2, **ASKING) as supervisor:
        assert await realms_of(supervisor) == {first.auth.realm}
        # One worker gets what it can use, the other what it cannot.
        one, other = supervisor._workers.values()
        objection = supervisor._propose(one, 100, configuration_of(second))
        assert await asyncio.wait_for(objection, 10) == ""
        assert await asyncio.wait_for(supervisor._propose(other, 100, broken), 10)
        assert await realms_of(supervisor) == {first.auth.realm}
        with pytest.raises(ConfigError, match=r"worker \d+ cannot use it: auth.realm: Input should be a valid string"):
            await supervisor.configure(broken)
        assert await realms_of(supervisor) == {first.auth.realm}
        await supervisor.configure(configuration_of(second))
        await until_only("second", supervisor)


async def until_only(realm, supervisor):
    async with asyncio.timeout(30):
        while await realms_of(supervisor) != {realm}:
            await asyncio.sleep(0.02)


async def test_a_worker_that_dies_meanwhile_does_not_hold_up_the_others(tmp_path):
    second = config_with(tmp_path, **ASKING, AUTH__REALM="second")
    async with one_worker(tmp_path, 2, **ASKING) as supervisor:
        os.kill(supervisor.pids[0], signal.SIGSTOP)
        asked = asyncio.ensure_future(supervisor.configure(configuration_of(second)))
        await asyncio.sleep(0)
        os.kill(supervisor.pids[0], signal.SIGKILL)
        await asyncio.wait_for(asked, 9)
        # Its successor starts with the configuration that is in use by then.
        await until(lambda: supervisor.restarts == 1 and supervisor.ready_workers == 2)
        await until_only("second", supervisor)


async def test_a_worker_that_says_nothing_keeps_everybody_on_the_old_configuration(tmp_path, monkeypatch):
    monkeypatch.setattr("aiproxyd.supervisor.PROPOSAL_TIMEOUT_SECONDS", 0.3)
    second = config_with(tmp_path, **ASKING, AUTH__REALM="second")
    async with one_worker(tmp_path, 2, **ASKING) as supervisor:
        stopped = supervisor.pids[0]
        os.kill(stopped, signal.SIGSTOP)
        with pytest.raises(ConfigError, match="did not answer in time"):
            await supervisor.configure(configuration_of(second))
        os.kill(stopped, signal.SIGCONT)
        assert await realms_of(supervisor) == {"AI Gateway Proxy"}
        await supervisor.configure(configuration_of(second))
        await until_only("second", supervisor)


async def test_a_worker_whose_conversation_fails_ends_and_is_replaced(tmp_path, monkeypatch):
    # It would be deaf otherwise: connected, and told nothing any more.
    faulty = tmp_path / "python"
    faulty.write_text(
        f"""#!/bin/sh
exec {sys.executable} -c '
import sys
from aiproxyd.identity.remote import RemoteIdentity
from aiproxyd.worker import main
RemoteIdentity.forget = lambda self: 1 / 0
sys.argv[1:] = sys.argv[3:]
sys.exit(main())
' "$@"
"""
    )
    faulty.chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", str(faulty))
        async with one_worker(tmp_path) as supervisor:
            patched.undo()
            (before,) = supervisor.pids
            supervisor.forget_answers()
            await until(lambda: supervisor.restarts == 1 and supervisor.ready_workers == 1)
            supervisor.forget_answers()
            assert supervisor.pids != [before]
