import json
import os
import socket
import sqlite3
from pathlib import Path

import pytest

from aiproxyd.ca.authority import CertificateAuthority


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Two addresses that are free, configured."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        listen, admin = (f"127.0.0.1:{server.getsockname()[1]}" for server in (one, two))
    monkeypatch.setenv("AIPROXYD_LISTEN", listen)
    monkeypatch.setenv("AIPROXYD_ADMIN__LISTEN", admin)
    return listen, admin


def _report(out: str) -> dict[str, tuple[str, str]]:
    lines = (
        line.replace("data folder", "data-folder")
        .replace("egress roots", "egress-roots")
        .replace("interception log", "interception-log")
        .split(maxsplit=2)
        for line in out.splitlines()
    )
    return {subject: (state, sentence) for subject, state, sentence in lines}


def test_a_machine_without_anything_is_ready_and_stays_as_it_was(aiproxyd, data_dir: Path, free: tuple[str, str]) -> None:
    done = aiproxyd("check")
    assert (done.status, done.err) == (0, "")
    report = _report(done.out)
    assert {state for state, _ in report.values()} == {"ok"}
    assert report["configuration"][1] == "no file; defaults"
    assert report["CA"][1].endswith("(made at the first start)")
    assert report["store"][1].endswith("(made at the first start)")
    assert report["proxy"][1] == f"{free[0]} is free"
    assert not data_dir.exists()


def test_what_is_there_is_looked_at(aiproxyd, data_dir: Path, free: tuple[str, str]) -> None:
    aiproxyd("ca", "init")
    aiproxyd("user", "add", "alice")
    report = _report(aiproxyd("check").out)
    assert "valid until" in report["CA"][1]
    assert report["store"] == ("ok", str(data_dir / "aiproxyd.sqlite3"))
    assert report["data-folder"] == ("ok", str(data_dir))


def test_a_ca_that_cannot_be_used_fails(aiproxyd, data_dir: Path, free: tuple[str, str]) -> None:
    CertificateAuthority.create(data_dir / "ca").key_file.chmod(0o644)
    done = aiproxyd("check")
    assert done.status == 1
    state, sentence = _report(done.out)["CA"]
    assert state == "failed"
    assert "chmod 600" in sentence


def test_a_ca_that_expires_soon_is_noted(
    aiproxyd, data_dir: Path, free: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiproxyd.ca.authority.VALID_DAYS", 20)
    CertificateAuthority.create(data_dir / "ca")
    done = aiproxyd("check")
    assert done.status == 0
    state, sentence = _report(done.out)["CA"]
    assert state == "note"
    assert sentence.endswith(", which is soon")


def test_a_store_that_cannot_be_used_fails(aiproxyd, data_dir: Path, free: tuple[str, str]) -> None:
    data_dir.mkdir()
    (data_dir / "aiproxyd.sqlite3").write_bytes(b"not a database, but long enough to be read as one" * 10)
    done = aiproxyd("check")
    assert done.status == 1
    assert _report(done.out)["store"][0] == "failed"


def test_a_store_of_a_newer_program_fails(aiproxyd, data_dir: Path, free: tuple[str, str]) -> None:
    aiproxyd("user", "add", "alice")
    with sqlite3.connect(data_dir / "aiproxyd.sqlite3") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    done = aiproxyd("check")
    assert done.status == 1
    assert "newer" in _report(done.out)["store"][1]


def test_an_address_that_is_taken_fails(aiproxyd, monkeypatch: pytest.MonkeyPatch, free: tuple[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("AIPROXYD_LISTEN", address)
        done = aiproxyd("check")
    assert done.status == 1
    assert _report(done.out)["proxy"] == ("failed", f"{address} cannot be listened on: Address already in use")


def test_an_address_of_another_machine_fails(aiproxyd, monkeypatch: pytest.MonkeyPatch, free: tuple[str, str]) -> None:
    monkeypatch.setenv("AIPROXYD_LISTEN", "192.0.2.1:8888")
    assert _report(aiproxyd("check").out)["proxy"][0] == "failed"


def test_a_daemon_that_is_running_may_have_them(
    aiproxyd, data_dir: Path, monkeypatch: pytest.MonkeyPatch, free: tuple[str, str]
) -> None:
    data_dir.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("AIPROXYD_LISTEN", address)
        (data_dir / "run.json").write_text(json.dumps({"pid": os.getpid(), "listen": [address], "admin": free[1]}))
        done = aiproxyd("check")
    assert done.status == 0
    assert _report(done.out)["proxy"] == ("note", f"{address} is held by the daemon that is running (process {os.getpid()})")


def test_providers_that_are_not_used_are_noted(aiproxyd, tmp_path: Path, free: tuple[str, str]) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("providers:\n- {name: good, type: anthropic}\n- {name: bad, type: openai-compat}\n")
    done = aiproxyd("check", "--config", str(file))
    assert done.status == 0
    assert "bad is not used: it has no host" in done.out
    file.write_text("providers: []\n")
    assert "none is enabled, so nothing is decrypted" in aiproxyd("check", "--config", str(file)).out


def test_roots_that_cannot_be_used_fail(
    aiproxyd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: tuple[str, str]
) -> None:
    roots = tmp_path / "roots.pem"
    monkeypatch.setenv("AIPROXYD_EGRESS__TRUSTED_CA_FILE", str(roots))
    assert _report(aiproxyd("check").out)["egress-roots"][0] == "failed"
    roots.write_text("nothing")
    assert aiproxyd("check").status == 1
    roots.write_bytes(CertificateAuthority.create(tmp_path / "other").trust_pem)
    assert _report(aiproxyd("check").out)["egress-roots"] == ("ok", str(roots))


@pytest.mark.parametrize("below", ["", "/deeper/still"])
def test_a_data_folder_below_what_is_none_fails(
    aiproxyd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: tuple[str, str], below: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("AIPROXYD_DATA_DIR", f"{tmp_path}/file{below}")
    done = aiproxyd("check")
    assert done.status == 1
    assert _report(done.out)["data-folder"] == ("failed", f"{tmp_path}/file{below} cannot be used: Not a directory")


def test_what_a_file_system_refuses_whatever_the_rights_are_fails_in_each_place(
    aiproxyd, monkeypatch: pytest.MonkeyPatch, free: tuple[str, str]
) -> None:
    # The system's own: whoever may write everywhere makes no folder in it.
    monkeypatch.setenv("AIPROXYD_DATA_DIR", "/proc/nope")
    done = aiproxyd("check")
    assert done.status == 1
    report = _report(done.out)
    assert report["data-folder"][0] == report["CA"][0] == report["store"][0] == "failed"
    assert report["store"][1].startswith("/proc/nope/aiproxyd.sqlite3 cannot be made: ")


def test_a_store_elsewhere_that_is_not_made_yet_is_no_mistake_unless_it_cannot_be(
    aiproxyd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: tuple[str, str]
) -> None:
    file = tmp_path / "other" / "records.sqlite3"
    monkeypatch.setenv("AIPROXYD_STORE__URL", f"sqlite:///{file}")
    assert _report(aiproxyd("check").out)["store"] == ("ok", f"{file} (made at the first start)")
    assert not file.parent.exists()
    file.parent.touch()
    assert _report(aiproxyd("check").out)["store"] == ("failed", f"{file} cannot be made: Not a directory")


def test_a_store_of_an_older_program_is_no_mistake(aiproxyd, data_dir: Path, free: tuple[str, str]) -> None:
    aiproxyd("user", "add", "alice")
    with sqlite3.connect(data_dir / "aiproxyd.sqlite3") as database:
        database.execute("UPDATE alembic_version SET version_num = '0001'")
    database.close()
    assert _report(aiproxyd("check").out)["store"][0] == "ok"


def test_a_log_of_interceptions_and_roots_of_identities_that_cannot_be_used_fail(
    aiproxyd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: tuple[str, str]
) -> None:
    log = tmp_path / "logs" / "interceptions.log"
    monkeypatch.setenv("AIPROXYD_LOGGING__STRUCTURED_INTERCEPTIONS", str(log))
    monkeypatch.setenv("AIPROXYD_AUTH__CODER__URL", "https://coder.example.com")
    monkeypatch.setenv("AIPROXYD_AUTH__CODER__CA_FILE", str(tmp_path / "none.pem"))
    report = _report(aiproxyd("check").out)
    assert report["interception-log"] == ("failed", f"{log} cannot be written: No such file or directory")
    assert report["identities"][0] == "failed"
    assert "auth.coder.ca_file" in report["identities"][1]
    log.parent.mkdir()
    monkeypatch.delenv("AIPROXYD_AUTH__CODER__CA_FILE")
    done = aiproxyd("check")
    assert done.status == 0
    assert _report(done.out)["interception-log"] == ("ok", str(log))
    assert list(log.parent.iterdir()) == []


def test_the_reverse_listener_is_looked_at(aiproxyd, monkeypatch: pytest.MonkeyPatch, free: tuple[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("AIPROXYD_LISTEN_GATEWAY", f"127.0.0.1:{taken.getsockname()[1]}")
        assert _report(aiproxyd("check").out)["gateway"][0] == "failed"
