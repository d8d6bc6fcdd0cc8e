"""examples/workspaces, as files: schemas where there are any, and everywhere the variables that `aiproxyd env` prints.

That the script works is tests/integration/test_workspaces.py.
"""

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.promises.checkout import ROOT, name_of, tracked_files
from tests.support.schemas import assert_matches

FOLDER = ROOT / "examples" / "workspaces"


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What `aiproxyd env` sets."""
    from aiproxyd.ca.authority import CertificateAuthority
    from aiproxyd.commands.env import client_variables
    from aiproxyd.config.schema import Config

    config = Config(data_dir=tmp_path_factory.mktemp("state"))
    CertificateAuthority.create(config.data_dir / "ca")
    return set(client_variables(config, user="alice", token="t", environ={}))


def script_variables(text: str) -> set[str]:
    named = re.findall(r"^say ([A-Z_]+) ", text, re.MULTILINE)
    return {name for names in re.findall(r"^for name in ([\w ]+);", text, re.MULTILINE) for name in names.split()} | set(named)


def test_the_script_says_what_aiproxyd_env_says(variables: set[str]) -> None:
    assert script_variables((FOLDER / "use-proxy.sh").read_text()) == variables


def test_the_coder_template_has_the_variables(variables: set[str]) -> None:
    text = (FOLDER / "coder-template.tf").read_text()
    block = re.search(r"  env = \{\n(.*?)\n  \}", text, re.DOTALL)
    assert block
    assert set(re.findall(r"^    (\w+) +=", block[1], re.MULTILINE)) == variables
    assert text.count("{") == text.count("}")
    # Every name that is used is defined.
    for name in re.findall(r"\b(?:local|var)\.(\w+)", text):
        assert re.search(rf'^(  {name} +=|variable "{name}")', text, re.MULTILINE), name
    script = re.search(r"<<-EOT\n(.*?)\n  EOT", text, re.DOTALL)
    assert script
    subprocess.run(["sh", "-n"], input=re.sub(r"\$\{var\.\w+\}", "x", script[1]), text=True, check=True)


def test_the_dev_container_has_the_variables_and_the_script_its_own(variables: set[str]) -> None:
    container = json.loads((FOLDER / "devcontainer/devcontainer.json").read_text())
    assert set(container["remoteEnv"]) == variables
    script = (FOLDER / "use-proxy.sh").read_text()
    for name in container["containerEnv"]:
        assert f"${{{name}" in script or f': "${{{name}' in script, name
    folder = container["containerEnv"]["AIPROXYD_CA_DIR"]
    assert {value for value in container["remoteEnv"].values() if value.endswith(".pem")} == {
        f"{folder}/ca-cert.pem",
        f"{folder}/ca-bundle.pem",
    }


def test_the_workspace_of_kubernetes_has_the_variables(variables: set[str]) -> None:
    pod = yaml.safe_load((ROOT / "examples/kubernetes/workspaces/workspace.yaml").read_text())
    env = [entry["name"] for entry in pod["spec"]["containers"][0]["env"]]
    assert set(env) == variables | {"AIPROXYD_TOKEN"}
    # A variable may only use those before it.
    for index, entry in enumerate(pod["spec"]["containers"][0]["env"]):
        assert set(re.findall(r"\$\((\w+)\)", entry.get("value", ""))) <= set(env[:index])


def test_vs_code_gets_settings_that_it_can_read() -> None:
    settings: dict[str, Any] = json.loads((FOLDER / "vscode/settings.json").read_text())
    assert settings["http.proxyStrictSSL"] is True
    assert all(name.startswith(("http.", "terminal.")) for name in settings)


def test_jetbrains_gets_settings_that_it_can_read() -> None:
    root = ET.fromstring((FOLDER / "jetbrains/proxy.settings.xml").read_text())
    options = {option.get("name"): option.get("value") for option in root.iter("option")}
    assert (options["USE_HTTP_PROXY"], options["PROXY_PORT"]) == ("true", "8888")


def test_the_workflow_follows_github_s_schema() -> None:
    assert_matches("vendor.github-workflows", FOLDER / "github-actions.yml")
    workflow = yaml.safe_load((FOLDER / "github-actions.yml").read_text())
    for step in workflow["jobs"]["agent"]["steps"]:
        if "run" in step:
            subprocess.run(["bash", "-n"], input=re.sub(r"\$\{\{.*?\}\}", "x", step["run"]), text=True, check=True)


@pytest.mark.parametrize("path", [path for path in tracked_files() if path.suffix == ".sh"], ids=name_of)
def test_a_shell_script_has_no_mistakes_in_its_grammar(path: Path) -> None:
    shell = "bash" if "bash" in path.read_text().partition("\n")[0] else "sh"
    subprocess.run([shell, "-n", path], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", path], check=True)
