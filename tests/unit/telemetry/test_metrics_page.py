import pathlib

import pytest

from aiproxyd.telemetry import bifrost, coder, gen_ai, own, worker_processes
from aiproxyd.telemetry.metrics_page import render

PAGE = pathlib.Path(__file__).parents[3] / "docs" / "metrics.md"


def test_the_page_in_docs_is_what_the_code_says():
    assert PAGE.read_text() == render(), "run: python -m aiproxyd.telemetry.metrics_page > docs/metrics.md"


@pytest.mark.parametrize(
    "family",
    coder.FAMILIES + own.FAMILIES + worker_processes.FAMILIES + bifrost.FAMILIES + gen_ai.FAMILIES,
    ids=lambda family: family.name,
)
def test_each_metric_has_a_heading_and_its_worst_case(family):
    page = render()
    section = page.partition(f"### `{family.name}`\n")[2].partition("\n#")[0]
    assert family.help in section
    assert f"{family.max_series:,} series" in section
