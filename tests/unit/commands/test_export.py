"""Twin of aiproxyd/commands/export.py."""

import asyncio
import csv
import io
import json
from pathlib import Path

import pytest

from aiproxyd.commands import export
from aiproxyd.storage import bulk_sqlite
from aiproxyd.storage.store import Store
from tests.support.observations import START, described, ended, of_worker, started, tool_called

COUNT = 23


@pytest.fixture
def records(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a page holds."""
    monkeypatch.setattr(bulk_sqlite, "PAGE", 5)

    async def apply() -> None:
        store = await Store.open(f"sqlite:///{data_dir / 'aiproxyd.sqlite3'}")
        lines = []
        for number in range(COUNT):
            id_ = f"{number:02}"
            at = START + number // 2
            lines += [started(id_, at=at), described(id_, at=at, prompt='=1+1 "quoted",\nä' if number else None)]
            lines += [tool_called(id_, f"c{number}"), tool_called(id_, f"d{number}", position=1, tool="Read"), ended(id_)]
        await store.apply(of_worker("w", *lines), {"w-00000001.jsonl": 1})
        await store.close()

    asyncio.run(apply())


IDS = [f"{number:02}" for number in range(COUNT)][::-1]


def test_json_lines_hold_records_whole(aiproxyd, records, tmp_path: Path) -> None:
    file = tmp_path / "all.jsonl"
    assert aiproxyd("interceptions", "export", "--file", str(file)) == (0, "", "")
    found = [json.loads(line) for line in file.read_text().splitlines()]
    assert [record["id"] for record in found] == IDS
    listed = json.loads(aiproxyd("interceptions", "list", "--limit", "1000").out)
    assert found == listed


def test_csv_is_a_row_each_and_no_formula(aiproxyd, records) -> None:
    done = aiproxyd("interceptions", "export", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [row["id"] for row in rows] == IDS
    assert tuple(rows[0]) == export.COLUMNS
    assert rows[0]["prompt"] == '\'=1+1 "quoted",\nä'
    assert rows[-1]["prompt"] == ""
    assert (rows[0]["tools"], rows[0]["tool_calls"], rows[0]["output_tokens"]) == ("Bash, Read", "2", "300")


def test_parquet_has_types(aiproxyd, records, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "all.parquet"
    assert aiproxyd("interceptions", "export", "-f", str(file)).status == 0
    table = parquet.read_table(file)
    assert table.column("id").to_pylist() == IDS
    assert str(table.schema.field("started_at").type) == "timestamp[us, tz=UTC]"
    assert str(table.schema.field("input_tokens").type) == "int64"
    assert table.column("prompt").to_pylist()[-1] is None


def test_a_file_is_whole_or_as_it_was(aiproxyd, records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "all.csv"
    file.write_text("before")

    def fail(_page: object) -> dict[str, object]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "flat", fail)
    done = aiproxyd("interceptions", "export", "--file", str(file))
    assert (done.status, done.err) == (1, "aiproxyd: No space left on device\n")
    assert [entry.name for entry in tmp_path.iterdir() if entry.name != "state"] == ["all.csv"]
    assert file.read_text() == "before"


@pytest.mark.parametrize(("name", "reason"), [("none/x.csv", "No such file or directory"), ("taken", "Is a directory")])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_file_that_cannot_be_written_is_named_as_it_was_given(
    aiproxyd, records, tmp_path: Path, kind: str, name: str, reason: str
) -> None:
    (tmp_path / "taken").mkdir()
    file = tmp_path / name
    done = aiproxyd("interceptions", "export", "--file", str(file), "--format", kind)
    assert (done.status, done.err) == (1, f"aiproxyd: {file} cannot be written: {reason}\n")


def test_what_is_selected_is_exported_and_nothing_is_an_empty_file(aiproxyd, records) -> None:
    done = aiproxyd("interceptions", "export", "--started-after", "2026-01-31T08:00:10Z")
    assert [json.loads(line)["id"] for line in done.out.splitlines()] == ["22", "21", "20"]
    assert aiproxyd("interceptions", "export", "--model", "none") == (0, "", "")
