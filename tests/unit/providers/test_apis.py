"""The register of APIs."""

from aiproxyd.providers.apis import APIS


def test_every_api_is_found_by_its_own_name() -> None:
    assert {name: api.name for name, api in APIS.items()} == {name: name for name in APIS}
    assert set(APIS) >= {"anthropic.messages", "openai.chat_completions", "openai.responses"}
    assert {api.operation for api in APIS.values()} <= {
        "chat",
        "embeddings",
        "generate_content",
        "image_generation",
        "speech",
        "text_completion",
        "transcription",
    }
