"""examples/prometheus: configuration, rules and alerts, by Prometheus' own tool, and against the metrics that exist."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.promises.checkout import ROOT
from tests.support.promql import mistakes_in

FOLDER = ROOT / "examples" / "prometheus"

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is in Debian's prometheus package")


def rules(name: str) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load((FOLDER / name).read_text())["groups"] for rule in group["rules"]]


ALERTS = rules("alerts.yml")
RECORDED = rules("recording.yml")


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
@pytest.mark.parametrize("name", ["alerts.yml", "recording.yml"])
def test_promtool_accepts_the_rules(name: str) -> None:
    promtool("check", "rules", "--lint-fatal", FOLDER / name)


@needs_promtool
def test_promtool_accepts_the_configuration() -> None:
    promtool("check", "config", "--lint-fatal", FOLDER / "prometheus.yml")


@needs_promtool
def test_alerts_fire_when_they_should_and_only_then() -> None:
    promtool("test", "rules", FOLDER / "alerts_test.yml")


@pytest.mark.parametrize("alert", [rule["alert"] for rule in ALERTS])
def test_an_alert_is_tested_firing_and_silent(alert: str) -> None:
    cases = [
        bool(case["exp_alerts"])
        for test in yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
        for case in test["alert_rule_test"]
        if case["alertname"] == alert
    ]
    assert set(cases) == {True, False}


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    anchors = {heading.lower() for heading in re.findall(r"^### (\w+)$", (ROOT / page).read_text(), re.MULTILINE)}
    assert anchor in anchors


def test_every_alert_of_the_page_exists() -> None:
    headings = set(re.findall(r"^### (Aiproxyd\w+)$", (ROOT / "docs" / "monitoring.md").read_text(), re.MULTILINE))
    assert headings == {rule["alert"] for rule in ALERTS}


@pytest.mark.parametrize("rule", ALERTS + RECORDED, ids=lambda rule: rule.get("alert") or rule["record"])
def test_rules_ask_for_metrics_and_labels_that_exist(rule: dict[str, Any]) -> None:
    assert mistakes_in(rule["expr"]) == []


def test_what_does_not_exist_is_found() -> None:
    assert mistakes_in('sum by (colour) (rate(coder_ai_gateway_nothing_total{x="y"}[5m]))') == [
        "no metric is called coder_ai_gateway_nothing_total",
        "nothing in it has the label colour",
    ]
    assert mistakes_in('coder_ai_gateway_proxy_mitm_requests_total{model="up{x=1}"}') == [
        "coder_ai_gateway_proxy_mitm_requests_total has no label model"
    ]
