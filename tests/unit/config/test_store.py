"""Where records may be kept is known before anything starts."""

import pytest

from aiproxyd.config.loader import load
from aiproxyd.config.store import STORE_SCHEMES
from aiproxyd.exceptions import ConfigError, StorageError
from aiproxyd.storage.engine import url_of


@pytest.mark.parametrize("scheme", STORE_SCHEMES)
def test_what_the_configuration_takes_is_what_the_store_knows(scheme: str) -> None:
    url = f"{scheme}://host/name"
    assert load(None, {"AIPROXYD_STORE__URL": url}).store_url == url
    url_of(url)


@pytest.mark.parametrize("scheme", ["mysql", "mysql+pymysql", "http", "postgresql+psycopg"])
def test_another_scheme_is_a_mistake_that_names_the_setting_the_scheme_and_those_that_work(scheme: str) -> None:
    with pytest.raises(ConfigError, match=r"store\.url") as caught:
        load(None, {"AIPROXYD_STORE__URL": f"{scheme}://user:hunter2@host/name"})
    sentence = str(caught.value)
    assert f"{scheme!r} is no kind of store" in sentence
    assert all(f"{each}://" in sentence for each in STORE_SCHEMES)
    assert "hunter2" not in sentence
    with pytest.raises(StorageError):
        url_of(f"{scheme}://host/name")


def test_what_is_no_url_is_not_repeated() -> None:
    for text in ("hunter2", "hunter2 hunter2://x", "/var/lib/hunter2.sqlite3"):
        with pytest.raises(ConfigError, match=r"store\.url: this is no kind of store") as caught:
            load(None, {"AIPROXYD_STORE__URL": text})
        assert "hunter2" not in str(caught.value)
