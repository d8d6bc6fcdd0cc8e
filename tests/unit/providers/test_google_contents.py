"""The rules of requests to `generateContent`, by the transcripts and row by row."""

import json
import random
from typing import Any

import pytest

from aiproxyd.model.head import Headers, RequestHead
from aiproxyd.providers.api import RequestFacts
from aiproxyd.providers.google_contents import read_request
from tests.support.parsers import mutated
from tests.support.transcripts import Transcript, request_summary, transcripts

CASES = transcripts("generate_content")


@pytest.mark.parametrize("transcript", CASES, ids=lambda transcript: transcript.name)
def test_a_request_means_what_its_file_says(transcript: Transcript) -> None:
    facts = read_request(transcript.request, transcript.head())
    assert request_summary(facts, transcript.expected_request["anomaly"]) == transcript.expected_request


def asked(path: str, body: Any) -> RequestFacts:
    return read_request(json.dumps(body).encode(), RequestHead("POST", path, Headers()))


HELLO = {"role": "user", "parts": [{"text": "Hello"}]}


@pytest.mark.parametrize(
    ("contents", "prompt", "call_id"),
    [
        ([], None, ""),
        (None, None, ""),
        ([HELLO], "Hello", ""),
        ([HELLO, {"role": "user"}], None, ""),
        ([{"parts": [{"text": "No role"}]}], "No role", ""),
        ([{"role": "user", "parts": [{"text": ""}]}], "", ""),
        ([{"role": "user", "parts": [{"text": "a"}, {"inlineData": {}}]}], "a", ""),
        ([{"role": "user", "parts": [{"functionResponse": {"name": "f"}}]}], None, ""),
        ([{"role": "user", "parts": [{"functionResponse": {"id": "1"}}, {"functionResponse": {"id": "2"}}]}], None, "2"),
        ([{"role": "function", "parts": [{"functionResponse": {"id": "1"}}, {"text": "x"}]}], None, "1"),
        ([{"role": "model", "parts": [{"text": "x"}]}], None, ""),
    ],
)
@pytest.mark.parametrize("is_wrapped", [False, True])
def test_the_last_content_tells_prompt_and_answered_call(contents: Any, prompt: str, call_id: str, is_wrapped: bool) -> None:
    body = {"contents": contents}
    facts = asked("/v1beta/models/g:generateContent", {"request": body} if is_wrapped else body)
    assert (facts.prompt, facts.correlating_tool_call_id, facts.anomaly) == (prompt, call_id, "")


def test_the_path_names_model_and_streaming_and_code_assists_body_the_model() -> None:
    facts = asked("/v1beta/models/g-1:streamGenerateContent", {"contents": [HELLO]})
    assert (facts.request_model, facts.streaming) == ("g-1", True)
    facts = asked("/v1internal:generateContent", {"model": "models/g-2", "request": {"contents": [HELLO]}})
    assert (facts.request_model, facts.streaming) == ("g-2", False)


@pytest.mark.parametrize("seed", range(200))
def test_no_request_is_too_strange(seed: int) -> None:
    source = random.Random(seed)
    case = source.choice(CASES)
    assert isinstance(read_request(mutated(case.request, source), case.head()), RequestFacts)


def test_what_is_no_request_is_an_anomaly() -> None:
    for body in (b"", b"[]", b'{"contents":7}', b'{"contents":[7]}'):
        assert read_request(body, RequestHead("POST", "/v1beta/models/g:generateContent", Headers())).anomaly
