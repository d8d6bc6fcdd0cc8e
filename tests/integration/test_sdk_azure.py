"""The `openai` SDK's client for Azure, unchanged, by environment variables alone. The daemon has Azure besides its usual providers."""

from collections.abc import Callable, Iterator

import openai
import pytest

from tests.integration.conftest import ENGINES
from tests.support.daemon import Daemon
from tests.support.expectations import assert_matches
from tests.support.fake_provider import FakeProvider

pytestmark = pytest.mark.usefixtures("_environment")


@pytest.fixture(scope="module", params=ENGINES)
def daemon(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, provider: FakeProvider
) -> Iterator[Daemon]:
    config = {"decrypt": {"engine": request.param}, "providers": [{"name": "azure", "type": "azure"}]}
    with Daemon(tmp_path_factory.mktemp("azure"), provider, config=config) as daemon:
        yield daemon


@pytest.fixture
def _environment(daemon: Daemon, through: Callable[[Daemon], None]) -> None:
    through(daemon)


@pytest.fixture
def client(_environment: None):
    with openai.AzureOpenAI(
        azure_endpoint="https://acme.openai.azure.com", api_key="0123456789abcdef", api_version="2024-10-21", max_retries=0
    ) as client:
        yield client


@pytest.mark.parametrize("streamed", [False, True], ids=["blocking", "streamed"])
def test_a_chat_with_a_deployment_is_recorded(
    daemon: Daemon, provider: FakeProvider, client, model: str, streamed: bool
) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}} if streamed else {}
    answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}], **options)
    assert list(answer)
    entry = provider.ledger.one(model)
    assert entry.target.startswith(f"/openai/deployments/{model}/chat/completions?api-version=")
    record = daemon.record(model)
    assert_matches(record, entry, prompt="Hi")
    assert record["provider"] == "azure"


def test_embeddings_of_a_deployment_are_recorded(daemon: Daemon, provider: FakeProvider, client, model: str) -> None:
    client.embeddings.create(model=model, input="x", encoding_format="float")
    assert_matches(daemon.record(model), provider.ledger.one(model))
