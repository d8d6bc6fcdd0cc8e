"""Twin of aiproxyd/telemetry/worker_processes.py."""

import os

from prometheus_client import CollectorRegistry

from aiproxyd.telemetry import worker_processes
from aiproxyd.telemetry.worker_processes import WorkerProcesses


def test_each_live_worker_has_its_figures() -> None:
    registry = CollectorRegistry()
    # No process has the highest id there may be.
    registry.register(WorkerProcesses(lambda: {0: os.getpid(), 1: 2**22 + 1}))
    figures = {
        (sample.name, sample.labels["worker"]): sample.value for metric in registry.collect() for sample in metric.samples
    }
    assert {worker for _, worker in figures} == {"0"}
    assert {name for name, _ in figures} == {family.name for family in worker_processes.FAMILIES}
    assert all(value > 0 for value in figures.values())
