"""A workspace without aiproxyd: the script and the pod of the examples bring its tools to the real daemon."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.integration.conftest import DaemonMaker
from tests.promises.checkout import ROOT
from tests.support.daemon import Daemon, plain_environment
from tests.support.fake_provider import FakeProvider

SCRIPT = ROOT / "examples" / "workspaces" / "use-proxy.sh"


def setting(daemon: Daemon, folder: Path, **more: str) -> dict[str, str]:
    """Return the environment that the script needs."""
    return plain_environment(
        AIPROXYD_PROXY=f"http://{daemon.listen}",
        AIPROXYD_ADMIN=daemon.admin_url,
        AIPROXYD_USER="alice",
        AIPROXYD_TOKEN="alice-token",
        AIPROXYD_CA_DIR=str(folder),
        **more,
    )


def ask(environment: dict[str, str], model: str) -> int:
    """Let curl ask Claude, and return the status."""
    body = json.dumps({"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]})
    done = subprocess.run(
        ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "https://api.anthropic.com/v1/messages", "-d", body],
        env=environment, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return int(done.stdout)


def test_the_script_s_exports_bring_a_shell_s_tools_through_the_proxy(
    relay_daemon: Daemon, provider: FakeProvider, model: str, tmp_path: Path
) -> None:
    folder = tmp_path / "a folder's name"
    done = subprocess.run(
        ["sh", "-c", f'eval "$(sh {SCRIPT})" && env -0'],
        env=setting(relay_daemon, folder), capture_output=True, text=True, check=True,
    )  # fmt: skip
    environment = dict(line.partition("=")[::2] for line in done.stdout.split("\0") if line)
    assert environment["SSL_CERT_FILE"] == f"{folder}/ca-bundle.pem"
    # The system's roots are in the bundle, too.
    assert (folder / "ca-bundle.pem").read_text().count("BEGIN CERTIFICATE") > 10
    assert ask(environment, model) == 200
    assert relay_daemon.record(model)["initiator"]["name"] == "alice"


def test_the_script_s_lines_for_github_bring_the_steps_behind_it_through_the_proxy(
    relay_daemon: Daemon, provider: FakeProvider, model: str, tmp_path: Path
) -> None:
    workflow = yaml.safe_load((ROOT / "examples/workspaces/github-actions.yml").read_text())
    [step] = [step for step in workflow["jobs"]["agent"]["steps"] if "AIPROXYD_PROXY" in step.get("env", {})]
    file = tmp_path / "github-env"
    environment = setting(relay_daemon, tmp_path / "ca", GITHUB_ENV=str(file))
    assert set(step["env"]) <= set(environment)
    subprocess.run(["bash", "-e", "-c", step["run"]], cwd=ROOT, env=environment, check=True, capture_output=True)
    lines = dict(line.partition("=")[::2] for line in file.read_text().splitlines())
    assert ".actions.githubusercontent.com" in lines["NO_PROXY"]
    assert ask(plain_environment(**lines), model) == 200
    assert relay_daemon.record(model)["initiator"]["name"] == "alice"


def test_the_pod_s_first_container_makes_the_trust_that_its_variables_name(
    relay_daemon: Daemon, provider: FakeProvider, model: str, tmp_path: Path
) -> None:
    pod = yaml.safe_load((ROOT / "examples/kubernetes/workspaces/workspace.yaml").read_text())["spec"]
    here = {
        "/trust/": f"{tmp_path}/",
        "http://aiproxyd.aiproxyd.svc:8889": relay_daemon.admin_url,
        "aiproxyd.aiproxyd.svc:8888": relay_daemon.listen,
    }

    def placed(text: str) -> str:
        for there, place in here.items():
            text = text.replace(there, place)
        return text

    [first] = pod["initContainers"]
    subprocess.run([*first["command"], *map(placed, first["args"])], env=plain_environment(), check=True, capture_output=True)
    environment = {"AIPROXYD_TOKEN": "alice-token"}
    for entry in pod["containers"][0]["env"]:
        value = placed(entry.get("value", ""))
        for name, known in environment.items():
            value = value.replace(f"$({name})", known)
        environment.setdefault(entry["name"], value)
    assert ask(plain_environment(**environment), model) == 200
    assert relay_daemon.record(model)["initiator"]["name"] == "alice"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"AIPROXYD_ADMIN": "http://127.0.0.1:9"}, "no CA certificate from"),
        ({"AIPROXYD_TOKEN": ""}, "the token that aiproxyd user add printed"),
    ],
)
def test_the_script_says_what_is_missing_and_prints_no_half(
    relay_daemon: Daemon, tmp_path: Path, change: dict[str, str], said: str
) -> None:
    done = subprocess.run(
        ["sh", SCRIPT], env=setting(relay_daemon, tmp_path) | change, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert said in done.stderr
    assert done.stdout == ""


def test_a_proxy_that_asks_for_a_token_gives_its_certificate_without_one(own_daemon: DaemonMaker, tmp_path: Path) -> None:
    daemon = own_daemon(config={"admin": {"token": "secret"}})
    subprocess.run(["sh", SCRIPT], env=setting(daemon, tmp_path), check=True, capture_output=True)
    assert (tmp_path / "ca-cert.pem").read_text() == daemon.ca_file.read_text()
