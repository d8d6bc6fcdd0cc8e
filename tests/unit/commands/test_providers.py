import asyncio
import json
from pathlib import Path

from aiproxyd.model.observation import UnknownEventsSeen
from aiproxyd.storage.store import Store

_ENTRIES = """
egress: {allowed_ports: [443]}
providers:
- {name: anthropic, type: anthropic}
- {name: off, type: openai, enabled: false}
- {name: bad, type: openai, base_url: nonsense}
- {name: twice, type: anthropic}
- {name: local, type: openai-compat, base_url: "http://127.0.0.1:11434/v1"}
"""


def test_every_entry_is_listed_with_its_status_and_the_reason(aiproxyd, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(_ENTRIES)
    rows = {row["name"]: row for row in json.loads(aiproxyd("providers", "list", "-o", "json", "-c", str(file)).out)}
    assert {name: row["status"] for name, row in rows.items()} == {
        "anthropic": "enabled",
        "off": "disabled",
        "bad": "error",
        "twice": "proxy_excluded",
        "local": "enabled",
    }
    assert rows["anthropic"]["hosts"] == ["api.anthropic.com"]
    assert rows["local"]["hosts"] == ["127.0.0.1:11434"]
    assert rows["bad"]["reason"] == "base_url 'nonsense' does not begin with https:// or http://"
    assert rows["anthropic"]["reason"] == ""
    table = aiproxyd("providers", "list", "-c", str(file)).out.splitlines()
    assert table[0].split() == ["NAME", "TYPE", "STATUS", "KEYS", "HOSTS"]
    assert [line.split()[0] for line in table[1:6]] == list(rows)
    assert table[6:8] == ["off: enabled is false", "bad: base_url 'nonsense' does not begin with https:// or http://"]
    assert table[8].startswith("twice: ")
    assert len(table) == 9


def test_the_table_of_the_defaults_fits_a_terminal_and_says_how_many_hosts_it_leaves_out(aiproxyd) -> None:
    table = aiproxyd("providers", "list").out.splitlines()
    assert len(table) == 6
    assert max(map(len, table)) <= 80
    rows = {row["name"]: row for row in json.loads(aiproxyd("providers", "list", "-o", "json").out)}
    copilot = next(line for line in table if line.startswith("copilot"))
    assert copilot.endswith(f" {rows['copilot']['hosts'][0]} +{len(rows['copilot']['hosts']) - 1}")
    assert next(line for line in table if line.startswith("openai")).endswith(" " + ", ".join(rows["openai"]["hosts"]))


def test_keys_are_listed_masked(aiproxyd, tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("""
providers:
- {name: a, type: anthropic, keys: [sk-ant-api03-abcdefgh, {env: SOME_KEY}]}
- {name: b, type: openai, keys: [{env: NO_SUCH_KEY}]}
- {name: c, type: bedrock, keys: [{access_key_id: AKIDEXAMPLE, secret_access_key: aws-hunter2}]}
""")
    monkeypatch.setenv("SOME_KEY", "short-hunter2")
    found = aiproxyd("providers", "list", "-o", "json", "-c", str(file))
    rows = {row["name"]: row for row in json.loads(found.out)}
    assert rows["a"]["keys"] == ["sk-a...efgh", "sh...r2"]
    assert rows["a"]["status"] == "enabled"
    assert rows["b"]["keys"] == []
    assert rows["b"]["status"] == "error"
    assert rows["b"]["reason"] == "keys[0]: the environment variable NO_SUCH_KEY is not set"
    assert rows["c"]["keys"] == ["AK...LE"]
    for output in (found, aiproxyd("providers", "list", "-c", str(file)), aiproxyd("check", "-c", str(file))):
        assert "hunter2" not in output.out + output.err
        assert "abcdefgh" not in output.out + output.err


def test_no_entries_are_said_to_be_none(aiproxyd, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("providers: []\n")
    assert aiproxyd("providers", "list", "-c", str(file)) == (0, "no provider is configured\n", "")


def test_drift_is_listed_with_a_sample(aiproxyd, data_dir: Path) -> None:
    async def fill() -> None:
        store = await Store.open(f"sqlite:///{data_dir / 'aiproxyd.sqlite3'}")
        seen = UnknownEventsSeen(
            at=1.0,
            provider="openai",
            api="openai.responses",
            counts={"event:x": 2, "item:y": 1},
            samples={"event:x": "[0]" * 99},
        )
        await store.apply([("w", seen)], {"s-1": 10})
        await store.close()

    data_dir.mkdir()
    asyncio.run(fill())
    rows = json.loads(aiproxyd("providers", "drift", "-o", "json").out)
    assert [(row["kind"], row["count"], row["sample"]) for row in rows] == [("event:x", 2, "[0]" * 99), ("item:y", 1, None)]
    assert rows[0]["last_seen_at"] == "1970-01-01T00:00:01+00:00"
    table = aiproxyd("providers", "drift").out.splitlines()
    assert len(table) == 3
    assert table[1].endswith("…")
