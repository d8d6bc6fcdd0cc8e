"""The store is away for long: what is to be stored waits on disk, not in memory."""

import asyncio
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from tests.bench import load as work
from tests.bench.peers import Product
from tests.support.daemon import ROOT, eventually

REQUESTS = 20_000
WARM_UP_REQUESTS = 2_000

# The allocator's own habits. Kept in memory, each of the requests would take a kilobyte at the very least.
MAX_GROWTH_BYTES = 8 << 20


@pytest.mark.timeout(300)
def test_memory_does_not_grow_over_20000_requests_with_the_store_stopped(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate, roots = tmp_path / "origin.pem", tmp_path / "roots.pem"
    certificate.write_bytes(authority.issue_cert("localhost").private_key_and_cert_chain_pem.bytes())
    authority.cert_pem.write_to_path(roots)
    command = [sys.executable, "-m", "tests.bench.upstream", str(certificate)]
    origin = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    product = Product("relay")
    try:
        assert origin.stdout is not None
        ports = json.loads(origin.stdout.readline())
        product.start(tmp_path, ports, roots)

        def ask(requests: int) -> None:
            load = work.Load(product.port, token=product.token)
            answered = asyncio.run(work.kept_alive(load, ports["https"], requests=requests, connections=8))
            assert len(answered) == requests

        def memory() -> dict[int, int]:
            product.settled_cpu_seconds()
            return {process.pid: process.memory_info().rss for process in product.tree()}

        ask(10)
        eventually(lambda: product.records == 10, "the first records")
        lock = sqlite3.connect(product.data_dir / "aiproxyd.sqlite3", isolation_level=None)
        try:
            lock.execute("BEGIN EXCLUSIVE")
            ask(WARM_UP_REQUESTS)
            before = memory()
            ask(REQUESTS)
            after = memory()
        finally:
            lock.close()
        assert set(after) == set(before)
        for process, size in after.items():
            assert size - before[process] < MAX_GROWTH_BYTES, (before, after)
        count = 10 + WARM_UP_REQUESTS + REQUESTS
        eventually(lambda: product.records == count, "everything to be stored once", 120)
    finally:
        product.stop()
        origin.kill()
        origin.communicate()
