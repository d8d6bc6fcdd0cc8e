"""Twin of aiproxyd/commands/prices.py."""

import asyncio
import contextlib
import json
import sqlite3
from pathlib import Path

import pytest

from aiproxyd.cli import main
from aiproxyd.model.observation import InterceptionStarted
from aiproxyd.model.usage import TokenUsage
from aiproxyd.storage.queries import InterceptionFilter
from aiproxyd.storage.store import Store
from tests.support.observations import described, ended, new_id, of_worker, started


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("AIPROXYD_CONFIG", raising=False)
    file = tmp_path / "config.yaml"
    file.write_text(f"data_dir: {tmp_path / 'state'}\n")
    return file


def test_a_model_is_shown_with_its_tiers(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["prices", "show", "gpt-5.5", "--provider", "openai", "--output", "json", "--config", str(config)]
    assert main(arguments) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["tier"] for row in rows} == {"standard", "flex", "priority", "fast", "batch"}
    assert rows[0] | {"input": "5; 10 above 272,000", "output": "30; 45 above 272,000", "provider": "openai"} == rows[0]


def test_a_model_that_nobody_prices_is_no_mistake(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prices", "show", "nonesuch", "--config", str(config)]) == 0
    assert "recorded without a cost" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["show", "gpt-5", "--provider", "nobody"], "neither the name nor the type"),
        (["show", "gpt-5", "--at", "tomorrow"], "is not a day"),
        (["reprice"], "--since"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(
    config: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert main(["prices", *arguments, "--config", str(config)]) == 2
    assert sentence in capsys.readouterr().err


def test_differences_between_sources_are_listed(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "litellm.json"
    file.write_text(json.dumps({"claude-opus-5": {"input_cost_per_token": 7e-06}}))
    assert main(["prices", "check", "--against", str(file), "--output", "json", "--config", str(config)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {
        "model": "claude-opus-5",
        "part": "input",
        "source": "anthropic",
        "price": "5",
        "other_source": "litellm",
        "other_price": "7",
    } in rows
    file.write_text("[]")
    assert main(["prices", "check", "--against", str(file), "--config", str(config)]) == 2
    file.write_text("{")
    assert main(["prices", "check", "--against", str(file), "--config", str(config)]) == 2


def test_stored_records_are_priced_again_and_keep_what_they_cost(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    id_ = new_id()

    async def fill() -> None:
        store = await Store.open(f"sqlite:///{state / 'aiproxyd.sqlite3'}")
        begun = started(id_)
        assert isinstance(begun, InterceptionStarted)
        usage = TokenUsage(input_tokens=10, output_tokens=20, cache_write_input_tokens=5, cache_write_1h_input_tokens=5)
        lines = of_worker("w", begun, described(id_), ended(id_, usage=usage, response_model="claude-opus-5"))
        await store.apply(lines, {"w-1": 1})
        await store.close()

    async def read() -> dict:
        store = await Store.open(f"sqlite:///{state / 'aiproxyd.sqlite3'}")
        [record] = await store.interceptions(InterceptionFilter())
        await store.close()
        return record["token_usages"][0]

    asyncio.run(fill())
    arguments = ["prices", "reprice", "--since", "2020-01-01", "--config", str(config)]
    assert main([*arguments, "--dry-run"]) == 0
    assert (
        "1 records, 1 would change: 0.000000 USD before, 0.000600 USD after; 0 have no known price" in capsys.readouterr().out
    )
    assert asyncio.run(read())["cost_micros"] is None
    assert main(arguments) == 0
    assert "1 changed" in capsys.readouterr().out
    row = asyncio.run(read())
    # 10 x 5 + 20 x 25 + 5 x 10 micro-USD.
    assert (row["cost_micros"], row["price_source"], row["cost_basis"]) == (600, "genai-prices", "list_price")
    assert main(arguments) == 0
    assert "0 changed" in capsys.readouterr().out
    config.write_text(
        config.read_text() + "pricing: {overrides: [{model: claude-*, input_micros: 1000000, output_micros: 0}]}\n"
    )
    assert main(arguments) == 0
    assert "0.000600 USD before, 0.000015 USD after" in capsys.readouterr().out
    assert asyncio.run(read())["price_source"] == "configuration"
    # What it cost before is kept, oldest first: nothing was known at first, then the list's price.
    with contextlib.closing(sqlite3.connect(state / "aiproxyd.sqlite3")) as database:
        [(kept,)] = database.execute("SELECT cost_history FROM token_usages").fetchall()
    former = [(entry["cost_micros"], entry["price_source"], entry["cost_basis"]) for entry in json.loads(kept)]
    assert former == [(None, None, None), (600, "genai-prices", "list_price")]
