"""Commands run in this process, with a data folder of their own."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from aiproxyd.cli import main


class Done(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIPROXYD_DATA_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("AIPROXYD_TOKEN", raising=False)
    return tmp_path / "state"


@pytest.fixture
def aiproxyd(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    def call(*arguments: str) -> Done:
        capsys.readouterr()
        status = main(arguments)
        return Done(status, *capsys.readouterr())

    return call
