"""Twin of aiproxyd/commands/prune.py."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from aiproxyd.storage.store import Store
from tests.support.observations import life, of_worker

DAY = 86_400.0


@pytest.fixture
def records(data_dir: Path) -> None:
    """One record of each of the last hundred days, fifty days too old and as many young."""

    async def apply() -> None:
        store = await Store.open(f"sqlite:///{data_dir / 'aiproxyd.sqlite3'}")
        now = time.time()
        lines = [line for day in range(100) for line in life(f"{day:03}", at=now - day * DAY - 60)]
        await store.apply(of_worker("w", *lines), {"w-00000001.jsonl": 1})
        await store.close()

    asyncio.run(apply())


def _left(aiproxyd) -> int:
    return len(json.loads(aiproxyd("interceptions", "list", "--limit", "1000").out))


def test_what_is_too_old_is_told_and_then_goes(aiproxyd, records) -> None:
    told = aiproxyd("prune", "--dry-run")
    assert told.status == 0
    assert told.out.splitlines()[0].split() == ["WHAT", "WOULD", "BE", "DELETED", "BEGAN", "BEFORE"]
    assert told.out.splitlines()[1].split()[:2] == ["records", "40"]
    assert told.out.splitlines()[2].split()[3:] == ["0", "(kept)"]
    assert _left(aiproxyd) == 100
    done = aiproxyd("prune")
    assert done.out.splitlines()[1].split()[:2] == ["records", "40"]
    assert "MB given back; longest transaction" in done.out.splitlines()[-1]
    assert done.err == ""
    assert _left(aiproxyd) == 60
    usage = json.loads(aiproxyd("usage", "--output", "json").out)
    assert usage["total"]["requests"] == 100


def test_programs_get_figures_and_times_may_be_given(aiproxyd, records) -> None:
    told = json.loads(aiproxyd("prune", "--dry-run", "--before", "2020-01-01T00:00:00Z", "-o", "json").out)
    assert told[0]["interceptions"] == 0
    assert told[0]["dry_run"] is True
    done = json.loads(aiproxyd("prune", "--content-before", "2100-01-01T00:00:00Z", "-o", "jsonl").out)
    assert (done["interceptions"], done["contents"]) == (40, 60)
    found = json.loads(aiproxyd("interceptions", "list", "--limit", "1000").out)
    assert {len(record["user_prompts"]) for record in found} == {0}
    done = json.loads(aiproxyd("prune", "--before", "2100-01-01T00:00:00Z", "--compact", "-o", "json").out)
    assert done[0]["interceptions"] == 60
    assert _left(aiproxyd) == 0


def test_the_configuration_says_what_is_kept(aiproxyd, records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIPROXYD_RECORDING__RETENTION", "0")
    assert json.loads(aiproxyd("prune", "-o", "json").out)[0]["interceptions"] == 0
    monkeypatch.setenv("AIPROXYD_RECORDING__RETENTION", "10w")
    monkeypatch.setenv("AIPROXYD_RECORDING__CONTENT_RETENTION", "1w")
    monkeypatch.setenv("AIPROXYD_RECORDING__FIGURES_RETENTION", "80d")
    done = json.loads(aiproxyd("prune", "-o", "json").out)[0]
    assert (done["interceptions"], done["contents"]) == (30, 63)
    assert done["figures"] == 19
    assert "is not an RFC 3339 time" in aiproxyd("prune", "--before", "then").err


def test_a_store_that_is_not_there_is_not_made(aiproxyd, data_dir: Path) -> None:
    done = aiproxyd("prune")
    assert done.status == 1
    assert "there is no store at" in done.err
    assert not (data_dir / "aiproxyd.sqlite3").exists()
