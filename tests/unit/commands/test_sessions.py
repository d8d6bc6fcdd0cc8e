"""Twins of aiproxyd/commands/sessions.py, usage.py and records.py: what is read from the store itself. What is read from a daemon
elsewhere stands in tests/integration/test_api.py.
"""

import asyncio
import csv
import io
import json
from pathlib import Path

import pytest

from aiproxyd.storage.store import Store
from tests.support.observations import START, described, ended, of_worker, started, thought, tool_called

ATTACK = "\x1b[2J=HYPERLINK()\u202e\nnext"


@pytest.fixture
def records(data_dir: Path) -> None:
    """Two sessions."""

    async def apply() -> None:
        store = await Store.open(f"sqlite:///{data_dir / 'aiproxyd.sqlite3'}")
        lines = [started("a"), described("a", client_session_id="s1", prompt=ATTACK), thought("a", content=ATTACK)]
        lines += [tool_called("a", "c", tool=ATTACK, arguments=ATTACK), ended("a")]
        lines += [started("b", at=START + 60, user="bob"), described("b", at=START + 60, client_session_id="s2")]
        lines += [ended("b", at=START + 61)]
        await store.apply(of_worker("w", *lines), {"w-00000001.jsonl": 1})
        await store.close()

    asyncio.run(apply())


def test_sessions_are_listed_in_every_form(aiproxyd, records) -> None:
    table = aiproxyd("sessions", "list")
    assert table.status == 0
    assert len(table.out.splitlines()) == 3
    assert "\x1b" not in table.out
    found = json.loads(aiproxyd("sessions", "list", "--output", "json").out)
    assert [session["id"] for session in found] == ["s2", "s1"]
    lines = aiproxyd("sessions", "list", "-o", "jsonl").out
    assert [json.loads(line) for line in lines.splitlines()] == found
    rows = list(csv.DictReader(io.StringIO(aiproxyd("sessions", "list", "-o", "csv").out)))
    assert [row["initiator.name"] for row in rows] == ["bob", "alice"]
    assert [row["token_usage_summary.input_tokens"] for row in rows] == ["3", "3"]
    assert json.loads(aiproxyd("sessions", "list", "--initiator", "bob", "-o", "json").out) == found[:1]
    assert aiproxyd("sessions", "list", "--initiator", "nobody").out == "no session was found\n"


def test_a_session_is_shown_and_a_terminal_obeys_nothing_in_it(aiproxyd, records) -> None:
    shown = aiproxyd("sessions", "show", "s1")
    assert shown.status == 0
    assert "HYPERLINK" in shown.out
    assert "  > next" in shown.out
    assert not {"\x1b", "\u202e"} & set(shown.out)
    detail = json.loads(aiproxyd("sessions", "show", "a", "-o", "json").out)
    assert detail["threads"][0]["prompt"] == ATTACK
    assert json.loads(aiproxyd("sessions", "show", "s1", "-o", "jsonl").out)["id"] == "a"
    missing = aiproxyd("sessions", "show", "nothing")
    assert (missing.status, missing.err) == (1, "aiproxyd: session 'nothing' not found\n")


def test_usage_is_summed_up(aiproxyd, records) -> None:
    table = aiproxyd("usage", "--by", "user").out.splitlines()
    assert table[0].split()[:2] == ["USER", "REQUESTS"]
    assert table[-1].split()[:2] == ["total", "2"]
    found = json.loads(aiproxyd("usage", "--by", "user", "--by", "day", "-o", "json").out)
    assert found["group_by"] == ["user", "day"]
    assert found["total"]["requests"] == sum(row["requests"] for row in found["usage"]) == 2
    rows = list(csv.DictReader(io.StringIO(aiproxyd("usage", "--by", "model", "-o", "csv").out)))
    assert rows[0]["requests"] == "2"
    assert aiproxyd("usage", "--started-after", "2030-01-01T00:00:00Z").out == "nothing was used\n"


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (("sessions", "list", "--limit", "0"), 2, "limit value must be between 1 and 1000"),
        (("sessions", "list", "--started-after", "then"), 2, "is not an RFC 3339 time"),
        (("usage", "--by", "colour"), 2, "'colour' is not one of"),
        (("usage", "--url", "ftp://x"), 1, "'ftp://x' is not a URL"),
        (("tail",), 1, "no daemon runs in"),
        (("interceptions", "export", "--format", "parquet"), 2, "parquet needs --file"),
    ],
)
def test_mistakes_are_one_sentence(aiproxyd, records, arguments: tuple[str, ...], status: int, sentence: str) -> None:
    done = aiproxyd(*arguments)
    assert done.status == status
    assert sentence in done.err
    assert done.out == ""
    assert done.err.count("\n") == 1
