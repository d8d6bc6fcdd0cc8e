"""A daemon that nobody uses hardly wakes: what looks now and then looks together, and workers sleep."""

import time
from pathlib import Path

import pytest

from tests.integration.conftest import DaemonMaker

WINDOW_SECONDS = 4

# Two beats a second. On a loaded machine a thread also waits where it would not, for a page or for the interpreter.
MAX_WAKES_OF_CONTROL = 3 * WINDOW_SECONDS


def wakes_of(pid: int) -> int:
    """Return how often any thread of a process has stopped to wait."""
    files = Path(f"/proc/{pid}/task").glob("*/status")
    return sum(int(line.split()[1]) for file in files for line in file.read_text().splitlines() if line.startswith("voluntary"))


def test_control_wakes_twice_a_second_and_a_worker_never(own_daemon: DaemonMaker) -> None:
    daemon = own_daemon()
    control, worker = (process.pid for process in daemon.process_tree())

    seen: list[tuple[int, int]] = []
    # The first windows may see the end of the start.
    for _ in range(6):
        before = wakes_of(control), wakes_of(worker)
        time.sleep(WINDOW_SECONDS)
        seen.append((wakes_of(control) - before[0], wakes_of(worker) - before[1]))
        if seen[-1][0] <= MAX_WAKES_OF_CONTROL and seen[-1][1] == 0:
            return
    pytest.fail(f"wakes of control and worker in {WINDOW_SECONDS} s each: {seen}")
