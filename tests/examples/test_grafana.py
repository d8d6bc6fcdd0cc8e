"""examples/grafana: what the dashboards ask for exists, what exists is shown, and the files are what the code says.

That each query has data is tests/integration/test_monitoring.py.
"""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from aiproxyd.telemetry import coder, own, worker_processes
from aiproxyd.telemetry.families import counter, gauge, histogram
from examples.grafana import dashboards, generate, panels
from tests.promises.checkout import ROOT
from tests.support.promql import known_series, metrics_of, mistakes_in, series_of

FOLDER = ROOT / "examples" / "grafana"
FILES = sorted((FOLDER / "dashboards").glob("*.json"))


def targets(file: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [(panel, target) for panel in json.loads(file.read_text())["panels"] for target in panel.get("targets", ())]


ALL = [(file.stem, panel, target) for file in FILES for panel, target in targets(file)]


def test_the_files_are_what_the_code_says() -> None:
    rendered = generate.rendered()
    assert set(FILES) == set(rendered)
    for file, text in rendered.items():
        assert file.read_text() == text, "run: python -m examples.grafana.generate"


def test_files_of_dashboards_that_are_gone_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "FOLDER", tmp_path)
    (tmp_path / "gone.json").write_text("{}")
    generate.main()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {path.name: path.read_text() for path in FILES}


@pytest.mark.parametrize(
    ("dashboard", "panel", "target"), ALL, ids=[f"{name}: {panel['title']} {target['refId']}" for name, panel, target in ALL]
)
def test_a_query_asks_for_metrics_and_labels_that_exist(dashboard: str, panel: dict[str, Any], target: dict[str, Any]) -> None:
    assert metrics_of(target["expr"])
    assert mistakes_in(target["expr"]) == []
    for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
        assert label == "instance" or re.search(rf"(by|group_left) \([^)]*\b{label}\b", target["expr"]), label


def test_every_metric_is_shown() -> None:
    shown = set[str]().union(*(metrics_of(target["expr"]) for _, _, target in ALL))
    for family in (*coder.FAMILIES, *own.FAMILIES, *worker_processes.FAMILIES):
        assert family in dashboards.TWINS or shown & set(series_of(family)), family.name


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_dashboard_hangs_together(file: Path) -> None:
    page = json.loads(file.read_text())
    ids = [panel["id"] for panel in page["panels"]]
    assert len(set(ids)) == len(ids)
    squares = [
        (x, y)
        for panel in page["panels"]
        for place in [panel["gridPos"]]
        for x, y in itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"]))
    ]
    assert len(set(squares)) == len(squares)
    assert all(x < 24 for x, _ in squares)
    text = file.read_text()
    variables = {variable["name"] for variable in page["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", text)) - {"__rate_interval", "__range", "__all"}
    assert used == variables
    for variable in page["templating"]["list"]:
        if variable["type"] == "query":
            assert set() < metrics_of(variable["definition"]) <= set(known_series())


def test_uids_and_titles_are_used_once() -> None:
    pages = [json.loads(file.read_text()) for file in FILES]
    for key in ("uid", "title"):
        assert len({page[key] for page in pages}) == len(pages) == 3


@pytest.mark.parametrize(
    "family",
    [
        counter("x_total", "X.", ("provider", "model"), ((1, "x"),)),
        gauge("x_bytes", "X."),
        gauge("x_timestamp_seconds", "X."),
        histogram("x_seconds", "X.", ("reason",), ((1, "x"),), buckets=(1,)),
    ],
    ids=lambda family: family.name,
)
def test_a_new_metric_gets_a_panel_by_itself(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "FAMILIES", (*own.FAMILIES, family))
    row = dashboards.dashboards()[-1].rows[-1]
    assert row.title == "Everything else"
    [panel] = [panel for panel in row.panels if family.name in panel.queries[0].expr]
    assert "model" not in panel.queries[0].expr.partition("(")[0]
    assert panels.as_json(dashboards.dashboards()[-1])["panels"]


def test_grafana_finds_dashboards_and_data_where_the_examples_put_them() -> None:
    [source] = yaml.safe_load((FOLDER / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    assert source["jsonData"]["exemplarTraceIdDestinations"][0]["name"] == "interception_id"
    [provider] = yaml.safe_load((FOLDER / "provisioning/dashboards/aiproxyd.yml").read_text())["providers"]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
