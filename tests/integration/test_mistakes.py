"""What an operator gets wrong is said in one sentence that names file, path, value and expectation; nothing is half-started."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
import yaml

from tests.support.clients import decrypted, message
from tests.support.daemon import Daemon, eventually, plain_environment


def run(tmp_path: Path, text: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "aiproxyd", *(arguments or ("run",)), "--config", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        env=plain_environment(XDG_STATE_HOME=str(tmp_path / "state"), **environ),
        check=False,
        cwd=tmp_path,
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("listenn: 127.0.0.1:1\n", ["listenn"]),
        ("listen: nowhere\n", ["listen", "nowhere"]),
        ("workers: many\n", ["workers", "many"]),
        ("workers: -1\n", ["workers", "-1"]),
        ("egress:\n  allowed_ports: [443, 99999]\n", ["egress.allowed_ports", "99999"]),
        ("egress:\n  allowed_private_cidrs: [10.0.0.0/99]\n", ["egress.allowed_private_cidrs", "10.0.0.0/99"]),
        ("auth:\n  users:\n    - name: alice\n", ["auth.users", "token_sha256"]),
        ("auth:\n  mode: sometimes\n", ["auth.mode", "sometimes", "required"]),
        ("admin:\n  listen: 0.0.0.0:8889\n", ["admin.token"]),
        ("providers:\n  - name: Bad Name\n    type: openai\n", ["providers", "Bad Name"]),
        ("providers:\n  - name: a\n    type: openai\n  - name: a\n    type: openai\n", ["two entries", "a"]),
        ("ca:\n  cert_file: ca.pem\n", ["ca", "key_file"]),
        ("recording:\n  retention: forever\n", ["recording.retention", "forever"]),
        ("store:\n  url: mysql://host/name\n", ["store.url", "mysql", "sqlite://", "postgresql://"]),
        ("listen: [unclosed\n", ["config.yaml"]),
        ("- a\n- b\n", ["config.yaml"]),
    ],
)
def test_a_mistake_in_the_configuration_exits_with_2_and_says_where(tmp_path: Path, text: str, words: list[str]) -> None:
    done = run(tmp_path, text)
    assert done.returncode == 2, done.stderr
    assert "config.yaml" in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "state").exists()


def test_a_missing_file_exits_with_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "aiproxyd", "run", "--config", str(tmp_path / "no.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=plain_environment())
    assert done.returncode == 2
    assert "no.yaml" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_mistake_in_the_environment_names_the_variable(tmp_path: Path) -> None:
    done = run(tmp_path, "", AIPROXYD_AUTH__MODE="sometimes")
    assert done.returncode == 2
    assert "AIPROXYD_AUTH__MODE" in done.stderr


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("18780", "--listen: '18780' is a port without an address; write 127.0.0.1:18780"),
        ("127.0.0.1:99999", "--listen: '127.0.0.1:99999': 99999 is no port, the highest is 65535"),
    ],
)
def test_a_wrong_listen_option_is_refused_by_its_name(tmp_path: Path, address: str, sentence: str) -> None:
    done = run(tmp_path, "", "run", "--listen", address)
    assert (done.returncode, done.stderr) == (2, f"aiproxyd: {sentence}\n")


def test_a_data_folder_that_is_a_file_is_said_to_be_one(tmp_path: Path) -> None:
    file = tmp_path / "state.txt"
    file.touch()
    done = run(tmp_path, "", "run", "--data-dir", str(file))
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (
        1,
        [f"aiproxyd: {file} cannot be used as data_dir: it is not a folder"],
    )


def test_an_unknown_option_exits_with_2(tmp_path: Path) -> None:
    done = run(tmp_path, "", "run", "--no-such-option")
    assert done.returncode == 2


def test_check_finds_the_same_mistakes_without_starting(tmp_path: Path) -> None:
    done = run(tmp_path, "workers: many\n", "check")
    assert done.returncode == 2
    assert "workers" in done.stderr


@pytest.mark.parametrize("which", ["listen", "admin"])
def test_a_port_in_use_exits_with_1_and_leaves_no_process(tmp_path: Path, which: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        config = {"listen": "127.0.0.1:0", "admin": {"listen": "127.0.0.1:0"}}
        config["listen" if which == "listen" else "admin"] = address if which == "listen" else {"listen": address}
        done = run(tmp_path, yaml.safe_dump(config))
    assert done.returncode == 1
    assert address in done.stderr
    assert "Traceback" not in done.stderr


class CaFiles:
    """A CA of the operator's own, as two files that a test may spoil."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.cert_file, self.key_file = folder / "ca.pem", folder / "ca.key"
        self.cert_file.write_bytes(self.authority.cert_pem.bytes())
        self.key_file.write_bytes(self.authority.private_key_pem.bytes())
        self.key_file.chmod(0o600)

    def start(self, *settings: str) -> subprocess.CompletedProcess[str]:
        """Start a daemon with these settings of the section `ca`, both when none is named."""
        files = {"cert_file": str(self.cert_file), "key_file": str(self.key_file)}
        config = {
            "listen": "127.0.0.1:0",
            "admin": {"listen": "127.0.0.1:0"},
            "ca": {name: file for name, file in files.items() if name in (settings or files)},
        }
        return run(self.folder, yaml.safe_dump(config))

    def assert_refused(self, culprit: Path) -> None:
        """The daemon does not start, and says which file is to blame."""
        done = self.start()
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        assert str(culprit) in done.stderr


@pytest.fixture
def ca_files(tmp_path: Path) -> CaFiles:
    return CaFiles(tmp_path)


def test_construction_missing_cert(ca_files: CaFiles) -> None:
    ca_files.cert_file.unlink()
    ca_files.assert_refused(ca_files.cert_file)
    unnamed = ca_files.start("key_file")
    assert unnamed.returncode == 2
    assert "ca: cert_file and key_file go together" in unnamed.stderr


def test_construction_missing_key(ca_files: CaFiles) -> None:
    ca_files.key_file.unlink()
    ca_files.assert_refused(ca_files.key_file)
    unnamed = ca_files.start("cert_file")
    assert unnamed.returncode == 2
    assert "ca: cert_file and key_file go together" in unnamed.stderr


@pytest.mark.parametrize("content", [b"", b"not a certificate", b"\xff\x00", "half", "key", "leaf"])
def test_construction_invalid_cert_file(ca_files: CaFiles, content: bytes | str) -> None:
    match content:
        case "half":
            content = ca_files.authority.cert_pem.bytes()[:200]
        case "key":
            content = ca_files.authority.private_key_pem.bytes()
        case "leaf":
            leaf = ca_files.authority.issue_cert("example.com")
            content = leaf.cert_chain_pems[0].bytes()
            ca_files.key_file.write_bytes(leaf.private_key_pem.bytes())
    assert isinstance(content, bytes)
    ca_files.cert_file.write_bytes(content)
    ca_files.assert_refused(ca_files.cert_file)


def test_a_key_of_the_ca_that_is_open_to_others_or_another_s_or_none_is_refused(ca_files: CaFiles) -> None:
    ca_files.key_file.chmod(0o644)
    ca_files.assert_refused(ca_files.key_file)
    ca_files.key_file.chmod(0o600)
    for content in (trustme.CA().private_key_pem.bytes(), b"not a key"):
        ca_files.key_file.write_bytes(content)
        ca_files.assert_refused(ca_files.key_file)


def test_a_mistake_at_reload_keeps_the_old_configuration(own_daemon) -> None:
    daemon: Daemon = own_daemon()
    good = daemon.config_file.read_text()
    daemon.config_file.write_text(good + "\nworkerz: 3\n")
    daemon.reload()
    daemon.wait_for_log("workerz")
    assert daemon.is_ready()
    metrics = daemon.metrics()
    attempted = metrics.total("coder_ai_gateway_providers_last_reload_timestamp_seconds")
    succeeded = metrics.total("coder_ai_gateway_providers_last_reload_success_timestamp_seconds")
    assert attempted > succeeded


def test_a_worker_that_starts_after_a_reload_writes_and_signs_as_the_others(own_daemon, model: str) -> None:
    daemon: Daemon = own_daemon()
    daemon.write_config(data_dir=str(daemon.folder / "other"))
    daemon.reload()
    daemon.wait_for_log("a changed setting needs a restart")
    daemon.wait_for_log("configuration reloaded")
    daemon.kill_worker()
    eventually(daemon.is_ready, "another worker")
    with decrypted(daemon, "api.anthropic.com") as wire:
        assert wire.request("POST", "/v1/messages", "api.anthropic.com", message(model)).status == 200
    assert daemon.record(model)["outcome"] == "completed"
    assert not (daemon.folder / "other").exists()
