"""examples/docker: without Docker, but with everything that the image is made of, and the very commands."""

import fnmatch
import os
import re
import shutil
import site
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.examples import dockerfile
from tests.promises.checkout import ROOT
from tests.support.daemon import Daemon, plain_environment
from tests.support.schemas import assert_matches

FOLDER = ROOT / "examples" / "docker"
BUILD, FINAL = dockerfile.stages(FOLDER / "Dockerfile")
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())


def instructions(stage: list[dockerfile.Instruction], word: str) -> list[dockerfile.Instruction]:
    return [each for each in stage if each.word == word]


# The image.


def test_what_is_copied_exists_and_is_let_into_the_context() -> None:
    kept = [line[1:] for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [
        source
        for stage in (BUILD, FINAL)
        for copy in instructions(stage, "COPY")
        if "--from=" not in copy.rest
        for source in copy.arguments[:-1]
    ]
    assert copied
    assert set(copied) == set(kept)
    for source in copied:
        assert (ROOT / source).exists(), source


def test_it_runs_as_nobody_in_particular_and_keeps_its_state_in_a_volume() -> None:
    [user] = instructions(FINAL, "USER")
    assert user.rest == "10001:10001"
    # What follows is not run as root.
    assert FINAL.index(user) > max(FINAL.index(each) for each in instructions(FINAL, "RUN"))
    assert instructions(FINAL, "VOLUME")[0].rest == "/var/lib/aiproxyd"
    assert instructions(FINAL, "ENTRYPOINT")[0].arguments + instructions(FINAL, "CMD")[0].arguments == ["aiproxyd", "run"]


def test_requirements_are_the_locked_ones() -> None:
    installs = [each.rest for each in instructions(BUILD, "RUN") if " install " in each.rest]
    assert "--require-hashes -r requirements/run.txt" in installs[0]
    assert "--no-build-isolation" in installs[1]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the build stage makes: a virtual environment. Its dependencies are those of this one, which `make` installed likewise."""
    root = tmp_path_factory.mktemp("image")
    source, target = root / "src", root / "opt"
    source.mkdir()
    environ = plain_environment(EXTRAS="", PIP_NO_INDEX="1", PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    for instruction in BUILD[1:]:
        if instruction.word == "COPY":
            *names, place = instruction.arguments
            for name in names:
                there = source / (Path(name).name if place == "./" else place)
                there.parent.mkdir(parents=True, exist_ok=True)
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, there, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / name, there)
        elif instruction.word == "RUN":
            if "--require-hashes" in instruction.rest:
                packages = next(target.glob("aiproxyd/lib/python*/site-packages"))
                (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
                continue
            dockerfile.run(instruction.rest, folder=source, replaced={"/opt/": f"{target}/"}, environ=environ)
    return target / "aiproxyd"


def test_the_package_stands_in_the_image_and_its_configuration_makes_a_daemon_that_is_healthy(
    image: Path, tmp_path: Path
) -> None:
    environ = plain_environment()
    environ.pop("PYTHONPATH", None)
    version = subprocess.run(
        [image / "bin" / "aiproxyd", "version"], capture_output=True, text=True, check=True, env=environ, cwd=tmp_path
    )
    assert version.stdout.strip()
    where = subprocess.run(
        [image / "bin" / "python", "-c", "import aiproxyd; print(aiproxyd.__file__)"],
        capture_output=True, text=True, check=True, env=environ, cwd=tmp_path,
    )  # fmt: skip
    assert Path(where.stdout.strip()).is_relative_to(image)
    config = yaml.safe_load((FOLDER / "config.yaml").read_text())
    config["listen"] = ["127.0.0.1:0"]
    config["admin"]["listen"] = "127.0.0.1:0"
    config.pop("data_dir")
    secrets = {"AIPROXYD_ADMIN__TOKEN": "an-admin-token", "AIPROXYD_METRICS__TOKEN": "a-metrics-token"}
    with Daemon(tmp_path / "daemon", config=config, environ=secrets) as daemon:
        [check] = instructions(FINAL, "HEALTHCHECK")
        command = dockerfile.Instruction("CMD", check.rest.partition("CMD ")[2]).arguments
        command[-1] = command[-1].replace("127.0.0.1:8889", daemon.admin_listen)
        subprocess.run([sys.executable, *command[1:]], check=True, env=environ, timeout=30)
        request = urllib.request.Request(daemon.admin_url + "/metrics", headers={"Authorization": "Bearer a-metrics-token"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200
        assert daemon.get("/metrics")[0] == 401
        assert daemon.get("/api/v2/ai-gateway/users", token="a-metrics-token")[0] == 401
        assert daemon.get("/api/v2/ai-gateway/users", token="an-admin-token")[0] == 200


def test_the_configuration_is_usable_as_it_is(tmp_path: Path) -> None:
    environ = plain_environment(AIPROXYD_ADMIN__TOKEN="t", AIPROXYD_DATA_DIR=str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "aiproxyd", "check", "--config", FOLDER / "config.yaml"],
        cwd=ROOT, capture_output=True, text=True, check=False, env=environ, timeout=60,
    )  # fmt: skip
    # 2 is its status for a configuration that is not usable; 1 may be a port that is taken here.
    assert done.returncode in {0, 1}, done.stderr


# The composition.


def test_the_composition_follows_its_specification() -> None:
    assert_matches("vendor.compose-spec", FOLDER / "compose.yaml")


def test_the_proxy_of_the_composition_can_change_nothing_but_its_volume() -> None:
    service = COMPOSE["services"]["aiproxyd"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    written = [volume for volume in service["volumes"] if not volume.endswith(":ro")]
    assert written == ["state:/var/lib/aiproxyd"]
    # Longer than streams may take to finish.
    drain = yaml.safe_load((FOLDER / "config.yaml").read_text())["drain_timeout_seconds"]
    assert int(service["stop_grace_period"].removesuffix("s")) > drain


def test_every_file_that_is_mounted_exists_and_every_port_is_for_this_machine_alone() -> None:
    for service in COMPOSE["services"].values():
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            assert source in COMPOSE["volumes"] or (FOLDER / source).exists(), source
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_every_secret_is_asked_for_and_none_is_written_down() -> None:
    text = (FOLDER / "compose.yaml").read_text()
    example = dict(re.findall(r"^([A-Z_]+)=(.*)$", (FOLDER / ".env.example").read_text(), re.MULTILINE))
    used = set(re.findall(r"\$\{(\w+):\?", text)) | {each["environment"] for each in COMPOSE["secrets"].values()}
    assert set(example) == used
    assert not any(example.values())
    ignored = (ROOT / ".gitignore").read_text().split()
    assert any(fnmatch.fnmatch("examples/docker/.env", pattern.lstrip("/")) for pattern in ignored)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is in Debian's prometheus package")
def test_prometheus_in_the_composition_has_a_good_configuration() -> None:
    text = (FOLDER / "prometheus.yml").read_text()
    configuration = yaml.safe_load(text)
    mounted = {volume.split(":")[1]: volume.split(":")[0] for volume in COMPOSE["services"]["prometheus"]["volumes"]}
    assert set(configuration["rule_files"]) <= set(mounted)
    done = subprocess.run(
        ["promtool", "check", "config", "--syntax-only", FOLDER / "prometheus.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    [job] = configuration["scrape_configs"]
    # What the rules and dashboards ask for.
    assert job["job_name"] == "aiproxyd"
    host, _, port = job["static_configs"][0]["targets"][0].partition(":")
    assert host in COMPOSE["services"]
    assert yaml.safe_load((FOLDER / "config.yaml").read_text())["admin"]["listen"].endswith(f":{port}")


def test_grafana_finds_prometheus_by_the_name_of_the_service() -> None:
    provisioned = yaml.safe_load((ROOT / "examples/grafana/provisioning/datasources/prometheus.yml").read_text())
    host = provisioned["datasources"][0]["url"].removeprefix("http://").partition(":")[0]
    assert host in COMPOSE["services"]
