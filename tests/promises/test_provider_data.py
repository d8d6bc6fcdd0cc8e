"""Provider facts are data with a source and a date, and name only what there is."""

import datetime as dt
from pathlib import Path

import pytest
import yaml

from aiproxyd.config.schema import ProviderType
from aiproxyd.providers.apis import APIS
from aiproxyd.providers.facts import parse_facts
from tests.promises.checkout import ROOT

FILES = sorted((ROOT / "aiproxyd" / "providers" / "data").glob("*.yaml"))


def test_every_provider_type_has_its_facts() -> None:
    assert {path.stem for path in FILES} == {str(kind) for kind in ProviderType}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_facts_have_a_source_and_a_date(path: Path) -> None:
    raw = yaml.safe_load(path.read_text())
    sources = raw["source"] if isinstance(raw["source"], list) else [raw["source"]]
    assert sources
    for source in sources:
        assert source.startswith("https://"), source
    assert dt.date(2025, 1, 1) < raw["checked"] <= dt.datetime.now(dt.UTC).date() + dt.timedelta(days=1)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_facts_name_apis_that_exist(path: Path) -> None:
    facts = parse_facts(path.read_text())
    assert facts.type == path.stem
    assert facts.endpoints
    for endpoint in facts.endpoints:
        assert not endpoint.api or endpoint.api in APIS, endpoint
        assert endpoint.route.startswith("/")


def test_no_host_belongs_to_two_providers() -> None:
    owners: dict[str, str] = {}
    for path in FILES:
        facts = parse_facts(path.read_text())
        for host in facts.hosts:
            assert owners.setdefault(host, facts.type) == facts.type, host
