"""The supervisor and a real worker: what happens to its successor."""

import asyncio
import contextlib
import os
import signal
import socket
import sys

import msgspec
import psutil

from aiproxyd.ca.authority import CertificateAuthority
from aiproxyd.channel import Configure
from aiproxyd.config.loader import load
from aiproxyd.supervisor import RESOLVER_THREADS, Supervisor


@contextlib.asynccontextmanager
async def one_worker(tmp_path):
    config = load(None, {"AIPROXYD_DATA_DIR": str(tmp_path), "AIPROXYD_AUTH__MODE": "off"})
    (tmp_path / "journal").mkdir()
    CertificateAuthority.of(config)

    async def authenticate(_token):
        return None

    with socket.create_server(("127.0.0.1", 0)) as listener:
        configuration = Configure(config=msgspec.Raw(config.for_workers()))
        supervisor = Supervisor(listen=[listener], configuration=configuration, authenticate=authenticate)
        await supervisor.start(1)
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
