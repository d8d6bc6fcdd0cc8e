"""Models that paths name."""

import pytest

from aiproxyd.model.head import Headers, RequestHead
from aiproxyd.providers.api import RequestFacts
from aiproxyd.providers.paths import model_of, naming_the_model


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1beta/models/gemini-2.5-pro:generateContent", "gemini-2.5-pro"),
        ("/v1beta/tunedModels/mine-1:streamGenerateContent", "mine-1"),
        (
            "/v1/projects/p/locations/l/publishers/anthropic/models/claude-sonnet-4@20250514:streamRawPredict",
            "claude-sonnet-4@20250514",
        ),
        (
            "/v1/projects/p/locations/l/publishers/anthropic/models/claude-sonnet-4%4020250514:rawPredict",
            "claude-sonnet-4@20250514",
        ),
        ("/v1/projects/p/locations/l/endpoints/123:generateContent", "123"),
        ("/v1/projects/p/locations/l/endpoints/openapi/chat/completions", ""),
        ("/model/anthropic.claude-3-5-sonnet-20240620-v1:0/invoke", "anthropic.claude-3-5-sonnet-20240620-v1:0"),
        ("/model/anthropic.claude-3-5-sonnet-20240620-v1%3A0/converse", "anthropic.claude-3-5-sonnet-20240620-v1:0"),
        (
            "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.amazon.nova-pro-v1%3A0/invoke",
            "arn:aws:bedrock:us-east-1:1:inference-profile/us.amazon.nova-pro-v1:0",
        ),
        ("/openai/deployments/my-gpt-4o/chat/completions", "my-gpt-4o"),
        ("/v1/engines/gpt-41-copilot/completions", "gpt-41-copilot"),
        ("/v1internal:generateContent", ""),
        ("/v1/models/gpt-4o", ""),
        ("/v1/chat/completions", ""),
        ("", ""),
    ],
)
def test_a_path_names_its_model(path: str, model: str) -> None:
    assert model_of(path) == model


def test_the_body_has_the_first_word_on_the_model() -> None:
    head = RequestHead("POST", "/openai/deployments/mine/chat/completions", Headers())
    assert naming_the_model(lambda *_: RequestFacts(request_model="gpt-4o"))(b"", head).request_model == "gpt-4o"
    assert naming_the_model(lambda *_: RequestFacts(prompt="p"))(b"", head) == RequestFacts(request_model="mine", prompt="p")
    plain = RequestHead("POST", "/v1/chat/completions", Headers())
    assert naming_the_model(lambda *_: RequestFacts())(b"", plain) == RequestFacts()
