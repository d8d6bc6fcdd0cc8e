"""Twin of aiproxyd/commands/usage.py: figures for people and for programs, from a store."""

import asyncio
import csv
import io
import json
from pathlib import Path

import pytest

from aiproxyd.model.usage import TokenUsage
from aiproxyd.storage.store import Store
from tests.support.observations import START, described, ended, of_worker, started

DAY = 86_400.0


@pytest.fixture
def records(data_dir: Path) -> None:
    """Two users, two models, three days, and a user who is known by an id alone."""

    async def apply() -> None:
        store = await Store.open(f"sqlite:///{data_dir / 'aiproxyd.sqlite3'}")
        lines = []
        for number, (user, model, day) in enumerate([("alice", "claude", 0), ("bob", "gpt", 1), ("bob", "claude", 2)]):
            id_, at = f"i{number}", START + day * DAY
            lines += [
                started(id_, at=at, user=user),
                described(id_, at=at, request_model=model, metadata={"project": f"p{day}"}),
            ]
            lines.append(ended(id_, at=at + 1, usage=TokenUsage(input_tokens=10, output_tokens=5 + number)))
        lines += [started("nameless", at=START, principal_id="some-id", principal_name="", user="x")]
        await store.apply(of_worker("w", *lines), {"w-00000001.jsonl": 1})
        await store.close()

    asyncio.run(apply())


def test_people_see_a_table_with_a_total(aiproxyd, records) -> None:
    lines = [line.split() for line in aiproxyd("usage").out.splitlines()]
    assert lines[0] == ["USER", "REQUESTS", "INPUT", "CACHE", "READ", "CACHE", "WRITE", "OUTPUT", "COST"]
    assert [line[:6] for line in lines[1:]] == [
        ["bob", "2", "20", "0", "0", "13"],
        ["alice", "1", "10", "0", "0", "5"],
        ["some-id", "1", "0", "0", "0", "0"],
        ["total", "4", "30", "0", "0", "18"],
    ]


def test_one_row_needs_no_total(aiproxyd, records) -> None:
    assert len(aiproxyd("usage", "--by", "provider").out.splitlines()) == 2


def test_figures_are_summed_up_by_what_is_asked_once_each(aiproxyd, records) -> None:
    found = json.loads(aiproxyd("usage", "--by", "day", "--by", "model", "--by", "day", "-o", "json").out)
    assert found["group_by"] == ["day", "model"]
    assert [(row["day"], row["model"], row["requests"]) for row in found["usage"]] == [
        ("2026-01-31", "claude", 1),
        ("2026-01-31", "", 1),
        ("2026-02-01", "gpt", 1),
        ("2026-02-02", "claude", 1),
    ]
    assert found["total"]["output_tokens"] == 18


def test_a_selection_narrows(aiproxyd, records) -> None:
    def count(*arguments: str) -> int:
        return json.loads(aiproxyd("usage", *arguments, "-o", "json").out)["total"]["requests"]

    assert count("--initiator", "bob") == 2
    assert count("--initiator", "bob", "--model", "gpt") == 1
    assert count("--started-after", "2026-02-01T00:00:00Z") == 2
    assert count("--started-after", "2026-01-31T08:00:00Z", "--started-before", "2026-01-31T08:00:00Z") == 2
    assert aiproxyd("usage", "--model", "none").out == "nothing was used\n"


def test_programs_get_lines_and_columns(aiproxyd, records) -> None:
    lines = [json.loads(line) for line in aiproxyd("usage", "--by", "project", "-o", "jsonl").out.splitlines()]
    assert {row["project"] for row in lines} == {"p0", "p1", "p2", ""}
    rows = list(csv.DictReader(io.StringIO(aiproxyd("usage", "--by", "user", "-o", "csv").out)))
    assert (rows[0]["user.name"], rows[0]["total_tokens"]) == ("bob", "33")
