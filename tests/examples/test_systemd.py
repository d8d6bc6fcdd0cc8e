"""examples/systemd: the units by systemd's own tools, and against what the daemon says of itself."""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aiproxyd.config.schema import Config
from tests.promises.checkout import ROOT
from tests.support.daemon import plain_environment

FOLDER = ROOT / "examples" / "systemd"
UNITS = ("aiproxyd.service", "aiproxyd.socket", "aiproxyd-admin.socket")

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="it is in Debian's systemd package")


def settings(unit: str, section: str) -> dict[str, str]:
    """Return the settings of a section; of one that stands there twice, the last."""
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # names are as they are written
    parser.read(FOLDER / unit)
    return dict(parser[section])


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units in a folder, with the program that is here in the place of the one they name."""
    program = tmp_path / "aiproxyd"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for unit in UNITS:
        (tmp_path / unit).write_text((FOLDER / unit).read_text().replace("/opt/aiproxyd/bin/aiproxyd", str(program)))
    return tmp_path


@needs_systemd
def test_systemd_accepts_the_units(units: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", *(f"./{unit}" for unit in UNITS)],
        cwd=units, env=plain_environment(SYSTEMD_UNIT_PATH=f"{units}:"), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # What it does not know it only mentions.
    assert not [line for line in done.stderr.splitlines() if "aiproxyd" in line], done.stderr


@needs_systemd
def test_little_is_left_open(units: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", "./aiproxyd.service"],
        cwd=units, env=plain_environment(SYSTEMD_UNIT_PATH=f"{units}:"), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    # Of 0 (nothing) to 10: a threshold of 20 is 2.0.
    assert done.returncode == 0, done.stdout


def test_streams_may_end_before_systemd_kills() -> None:
    assert int(settings("aiproxyd.service", "Service")["TimeoutStopSec"]) > Config().drain_timeout_seconds


def test_the_sockets_are_where_the_daemon_would_listen_and_have_the_names_it_knows() -> None:
    proxy, admin = settings("aiproxyd.socket", "Socket"), settings("aiproxyd-admin.socket", "Socket")
    assert (proxy["FileDescriptorName"], admin["FileDescriptorName"]) == ("proxy", "admin")
    assert [proxy["ListenStream"]] == list(Config().listen)
    assert admin["ListenStream"] == Config().admin.listen
    assert proxy["DeferAcceptSec"] == "1"  # as the daemon sets it on sockets of its own
    service = settings("aiproxyd.service", "Service")
    assert service["Sockets"].split() == ["aiproxyd.socket", "aiproxyd-admin.socket"]
    assert {proxy["Service"], admin["Service"]} == {"aiproxyd.service"}


def test_the_variables_of_the_unit_are_settings() -> None:
    from aiproxyd.config.loader import load

    # Those in comments, too.
    text = (FOLDER / "aiproxyd.service").read_text()
    variables = dict(re.findall(r"(AIPROXYD_\w+)=(\S+)", text))
    assert set(variables) == {"AIPROXYD_DATA_DIR", "AIPROXYD_CA__CERT_FILE", "AIPROXYD_CA__KEY_FILE"}
    absolute = {name: "/run/" + value.lstrip("%/") for name, value in variables.items()}
    assert str(load(FOLDER / "config.yaml", absolute).data_dir) == "/run/S/aiproxyd"


def test_the_configuration_is_usable(tmp_path: Path) -> None:
    text = (FOLDER / "config.yaml").read_text()
    for name, content in (("as-it-is", text), ("with-a-token", text.replace("# admin:", "admin:"))):
        file = tmp_path / f"{name}.yaml"
        file.write_text(content)
        done = subprocess.run(
            [sys.executable, "-m", "aiproxyd", "check", "--config", file],
            cwd=ROOT, env=plain_environment(AIPROXYD_DATA_DIR=str(tmp_path / name)), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode in {0, 1}, done.stderr


def test_memory_may_be_written_and_run_because_http2_needs_it() -> None:
    """With it, mitmproxy's TLS cannot make its callbacks, and a decrypted HTTP/2 connection fails."""
    assert "MemoryDenyWriteExecute" not in settings("aiproxyd.service", "Service")
