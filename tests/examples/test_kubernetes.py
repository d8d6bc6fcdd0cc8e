"""examples/kubernetes: by the schemas of Kubernetes, built by kustomize, and each name that one part gives to another."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.promises.checkout import ROOT
from tests.support.daemon import plain_environment

FOLDER = ROOT / "examples" / "kubernetes"
MANIFESTS = [
    path
    for path in sorted(FOLDER.rglob("*.yaml"))
    if path.name not in {"kustomization.yaml", "config.yaml", "pod-monitor.yaml"}
]
KUSTOMIZE = ["kubectl", "kustomize"] if shutil.which("kubectl") else ["kustomize", "build"]

needs_kustomize = pytest.mark.skipif(shutil.which(KUSTOMIZE[0]) is None, reason="neither kubectl nor kustomize is installed")


def documents(text: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(text) if document]


def valid(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_a_manifest_follows_the_schema_of_its_kind(path: Path) -> None:
    found = documents(path.read_text())
    assert found
    for document in found:
        valid(document)


def test_a_mistake_would_be_found() -> None:
    document = documents((FOLDER / "deployment.yaml").read_text())[1]
    document["spec"]["template"]["spec"]["containers"][0]["readOnly"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        valid(document)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the files that the documentation says to make, made as it says."""
    checkout = tmp_path_factory.mktemp("checkout")
    folder = checkout / "examples" / "kubernetes"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("ca", "tokens.env"))
    section = (ROOT / "docs" / "deployment.md").read_text().partition("## Kubernetes\n")[2]
    block = section.partition("```sh\n")[2].partition("```")[0]
    commands = [line for line in block.splitlines() if not line.startswith("kubectl")]
    assert len(commands) == 4
    environ = plain_environment(PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}", PYTHONPATH=str(ROOT))
    done = subprocess.run(
        ["bash", "-euc", "\n".join(commands)],
        cwd=checkout,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return folder


def built(folder: Path) -> list[dict[str, Any]]:
    done = subprocess.run([*KUSTOMIZE, folder], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return documents(done.stdout)


def named(found: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {document["metadata"]["name"]: document for document in found if document["kind"] == kind}


def references(value: Any) -> Iterator[tuple[str, str]]:
    """Yield kind and name of whatever a document needs."""
    if isinstance(value, dict):
        for key, inner in value.items():
            match key, inner:
                case "secret", {"secretName": str(name)}:
                    yield "Secret", name
                case "secretRef" | "secretKeyRef" | "credentials", {"name": str(name)}:
                    yield "Secret", name
                case "configMap", {"name": str(name)}:
                    yield "ConfigMap", name
                case "persistentVolumeClaim", {"claimName": str(name)}:
                    yield "PersistentVolumeClaim", name
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


@needs_kustomize
def test_what_kustomize_builds_is_valid_and_every_name_leads_somewhere(made: Path) -> None:
    found = built(made)
    needed = {reference for document in found for reference in references(document)}
    assert {kind for kind, _ in needed} == {"Secret", "ConfigMap", "PersistentVolumeClaim"}
    for kind, name in needed:
        assert name in named(found, kind), (kind, name)
    for document in found:
        assert document["kind"] == "Namespace" or document["metadata"]["namespace"] == "aiproxyd"
        if document["kind"] != "PodMonitor":
            valid(document)
    [monitor] = named(found, "PodMonitor").values()
    [deployment] = named(found, "Deployment").values()
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    pod = deployment["spec"]["template"]
    assert endpoint["port"] in {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
    assert monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    credentials = endpoint["authorization"]["credentials"]
    assert credentials["key"] in named(found, "Secret")[credentials["name"]]["data"]


@needs_kustomize
def test_the_namespace_of_workspaces_is_built(made: Path) -> None:
    found = built(made / "workspaces")
    for document in found:
        valid(document)
    [namespace] = named(found, "Namespace").values()
    [policy] = documents((FOLDER / "network-policy.yaml").read_text())
    allowed = policy["spec"]["ingress"][0]["from"][0]["namespaceSelector"]["matchLabels"]
    assert allowed.items() <= namespace["metadata"]["labels"].items()


def test_the_configuration_of_the_pod_is_one_the_daemon_starts_with(made: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((FOLDER / "config.yaml").read_text())
    [_, deployment] = documents((FOLDER / "deployment.yaml").read_text())
    pod = deployment["spec"]["template"]["spec"]
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    # Each path of the configuration lies on a mount, and where it is written to, on one that may be.
    assert config["data_dir"].startswith(mounts["state"] + "/")
    for key in ("cert_file", "key_file"):
        folder, _, name = config["ca"][key].rpartition("/")
        assert folder == mounts["ca"]
        config["ca"][key] = str(made / "ca" / name)
    ports = {port["name"]: port["containerPort"] for port in pod["containers"][0]["ports"]}
    assert [int(address.rpartition(":")[2]) for address in (*config["listen"], config["admin"]["listen"])] == [
        ports["proxy"],
        ports["admin"],
    ]
    assert pod["terminationGracePeriodSeconds"] > config["drain_timeout_seconds"]
    config["data_dir"] = str(tmp_path / "state")
    config["listen"] = ["127.0.0.1:0"]
    config["admin"]["listen"] = "127.0.0.1:0"
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    tokens = dict(line.split("=") for line in (made / "tokens.env").read_text().split())
    done = subprocess.run(
        [sys.executable, "-m", "aiproxyd", "check", "--config", file],
        cwd=ROOT, env=plain_environment(**tokens), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["deployment.yaml", "workspaces/workspace.yaml"])
def test_a_pod_is_as_restricted_as_the_namespace_asks(name: str) -> None:
    document = documents((FOLDER / name).read_text())[-1]
    pod = document["spec"]["template"]["spec"] if document["kind"] == "Deployment" else document["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in [*pod.get("initContainers", ()), *pod["containers"]]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_nothing_in_a_workspace_reaches_the_world_but_through_the_proxy() -> None:
    [policy] = documents((FOLDER / "workspaces/network-policy.yaml").read_text())
    assert policy["spec"]["podSelector"] == {}
    assert policy["spec"]["policyTypes"] == ["Egress"]
    for rule in policy["spec"]["egress"]:
        assert rule["to"], "an empty `to` is everywhere"
        assert not any("ipBlock" in peer for peer in rule["to"])
    [proxy] = [rule for rule in policy["spec"]["egress"] if {"protocol": "TCP", "port": 8888} in rule.get("ports", ())]
    [_, deployment] = documents((FOLDER / "deployment.yaml").read_text())
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert proxy["to"][0]["podSelector"]["matchLabels"].items() <= labels.items()
