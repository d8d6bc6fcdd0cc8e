import asyncio
import hashlib
import json
import re
import shlex
from pathlib import Path

import pytest

from aiproxyd.config.loader import load
from aiproxyd.identity.users import FIRST_USER_TOKEN_NAME, ensure_first_user
from aiproxyd.model.principal import id_of_name
from aiproxyd.storage.store import Store


def _token(out: str) -> str:
    return re.findall(r"^token of .*: (\S+)$", out, re.MULTILINE)[0]


def _with_store(data_dir: Path, work):
    async def opened():
        store = await Store.open(f"sqlite+aiosqlite:///{data_dir / 'aiproxyd.sqlite3'}")
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(opened())


def test_a_token_is_shown_once_with_how_to_use_it(aiproxyd, data_dir: Path) -> None:
    added = aiproxyd("user", "add", "alice", "--group", "a", "-g", "b")
    assert (added.status, added.err) == (0, "")
    token = _token(added.out)
    assert f"AIPROXYD_TOKEN={token} aiproxyd exec --user alice -- COMMAND" in added.out
    assert f"HTTPS_PROXY=http://alice:{token}@127.0.0.1:8888" in added.out
    principal = _with_store(data_dir, lambda store: store.find_principal(hashlib.sha256(token.encode()).hexdigest()))
    assert (principal.name, principal.groups) == ("alice", ("a", "b"))
    for path in data_dir.rglob("*"):
        assert not path.is_file() or token.encode() not in path.read_bytes()
    assert token not in aiproxyd("user", "list", "--output", "json").out


@pytest.mark.parametrize("name", ["a b", "it's", "$(touch x)", "ü"])
def test_a_name_is_quoted_in_what_is_pasted(aiproxyd, name: str) -> None:
    added = aiproxyd("user", "add", name)
    line = next(line for line in added.out.splitlines() if "exec" in line)
    assert shlex.split(line)[4] == name


def test_a_user_has_one_token(aiproxyd) -> None:
    aiproxyd("user", "add", "alice")
    again = aiproxyd("user", "add", "alice")
    assert again.status == 1
    assert again.err == "aiproxyd: user 'alice' has a token; revoke it first\n"
    aiproxyd("user", "revoke", "alice")
    assert aiproxyd("user", "add", "alice").status == 0


@pytest.mark.parametrize("name", ["", " x", "x" * 121, "a\nb"])
def test_a_name_that_records_cannot_show_is_refused(aiproxyd, name: str) -> None:
    refused = aiproxyd("user", "add", name)
    assert refused.status == 1
    assert refused.err.startswith("aiproxyd: a user's name has ")


def test_users_of_both_places_are_listed(aiproxyd, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"auth: {{users: [{{name: carol, token_sha256: {'a' * 64}, groups: [x, y]}}]}}\n")
    options = ("--config", str(file))
    aiproxyd("user", "add", "alice", *options)
    aiproxyd("user", "add", "bob", *options)
    aiproxyd("user", "revoke", "bob", *options)
    lines = [line.split() for line in aiproxyd("user", "list", *options).out.splitlines()]
    assert lines[0] == ["NAME", "GROUPS", "STATUS", "CREATED", "AT", "FROM"]
    assert [(line[0], line[-1]) for line in lines[1:]] == [("alice", "store"), ("bob", "store"), ("carol", "configuration")]
    rows = json.loads(aiproxyd("user", "list", "--output", "json", *options).out)
    assert [(row["name"], row["status"], row["id"]) for row in rows] == [
        ("alice", "active", id_of_name("alice")),
        ("bob", "revoked", id_of_name("bob")),
        ("carol", "active", id_of_name("carol")),
    ]
    assert rows[2]["groups"] == ["x", "y"]


def test_before_the_first_start_there_are_no_users_and_looking_makes_none(aiproxyd, data_dir: Path) -> None:
    assert aiproxyd("user", "list") == (0, "there are no users; add one\n", "")
    assert aiproxyd("user", "list", "--output", "json").out == "[]\n"
    assert not data_dir.exists()
    refused = aiproxyd("user", "revoke", "alice")
    assert refused.status == 1
    assert "there is no store at" in refused.err


def test_revoking_says_what_happened(aiproxyd, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"auth: {{users: [{{name: carol, token_sha256: {'a' * 64}}}]}}\n")
    aiproxyd("user", "add", "alice")
    assert aiproxyd("user", "revoke", "alice") == (0, "the token of alice is revoked\n", "")
    assert aiproxyd("user", "revoke", "alice") == (1, "", "aiproxyd: no user 'alice' has a token\n")
    assert aiproxyd("user", "revoke", "carol", "--config", str(file)).status == 2
    assert aiproxyd("user", "add", "carol", "--config", str(file)).status == 2


def test_revoking_the_first_user_forgets_the_token_that_env_would_use(aiproxyd, data_dir: Path) -> None:
    name, _ = _with_store(data_dir, lambda store: ensure_first_user(store, load(None, {"AIPROXYD_DATA_DIR": str(data_dir)})))
    assert (data_dir / FIRST_USER_TOKEN_NAME).exists()
    assert aiproxyd("user", "revoke", name).status == 0
    assert not (data_dir / FIRST_USER_TOKEN_NAME).exists()
    assert aiproxyd("env").status == 1
