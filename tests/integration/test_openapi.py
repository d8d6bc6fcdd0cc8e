"""What the API says of itself is true: schemathesis asks everything its OpenAPI document allows, and much that it does not."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import decrypted, message
from tests.support.daemon import Daemon, plain_environment

HOST = "api.anthropic.com"
TOKEN = "an-admin-token-of-a-test"


@pytest.mark.timeout(300)
def test_schemathesis_finds_nothing(own_daemon: Any, model: str, tmp_path: Path) -> None:
    daemon: Daemon = own_daemon(config={"admin": {"token": TOKEN}})
    with decrypted(daemon, HOST) as wire:
        wire.request("POST", "/v1/messages", HOST, message(model))
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"http://{daemon.admin_listen}/openapi.json",
        *("--header", f"Authorization: Bearer {TOKEN}"),
        *("--generation-deterministic", "--max-examples", "10", "--suppress-health-check", "all", "--no-color"),
        # It never ends.
        *("--exclude-path-regex", "live"),
        # A search for a user who does not exist is a 400 that says so, as Coder's API has it; no schema can tell.
        *("--exclude-checks", "positive_data_acceptance"),
    ]
    result = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=280, cwd=tmp_path, env=plain_environment()
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert "Tested: 16" in result.stdout, result.stdout[-3000:]
