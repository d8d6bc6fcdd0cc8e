"""The top level of requests, and their size."""

import base64
import json
import tracemalloc

import msgspec
import pytest

from aiproxyd.providers import requests
from aiproxyd.providers.api import RequestFacts
from aiproxyd.providers.requests import MAX_HINT_CHARACTERS, Request, hint, input_characters, nested_hint, session_candidates

IMAGE = base64.b64encode(bytes(range(256)) * 12).decode()


def facts(body: bytes) -> RequestFacts:
    return requests.read(body, msgspec.json.Decoder(Request), lambda _: ("p", "c"), session_candidates)


def test_a_request_is_read_by_what_its_api_gives() -> None:
    found = facts(b'{"model":"m","stream":true}')
    assert found == RequestFacts(
        request_model="m", streaming=True, prompt="p", correlating_tool_call_id="c", input_characters=27
    )


@pytest.mark.parametrize("model", ["7", "null", "[]", '""'])
def test_a_model_that_is_no_text_is_none(model: str) -> None:
    assert facts(b'{"model":%s}' % model.encode()).request_model == ""


def test_names_and_hints_are_cut() -> None:
    long = b'"' + b"x" * 5000 + b'"'
    assert len(facts(b'{"model":%s}' % long).request_model) == MAX_HINT_CHARACTERS
    assert len(hint(msgspec.Raw(long))) == MAX_HINT_CHARACTERS
    assert nested_hint(msgspec.Raw(b'{"a":" b "}'), "a") == "b"
    assert nested_hint(msgspec.Raw(b"[]"), "a") == ""


@pytest.mark.parametrize(
    "image",
    [
        pytest.param({"type": "base64", "media_type": "image/png", "data": IMAGE}, id="Anthropic's source"),
        pytest.param({"data": IMAGE, "media_type": "image/png", "type": "base64"}, id="the same with its keys sorted"),
        pytest.param({"url": f"data:image/png;base64,{IMAGE}"}, id="a data URL"),
        pytest.param({"type": "input_audio", "input_audio": {"data": IMAGE, "format": "wav"}}, id="sound"),
    ],
)
def test_base64_is_no_text(image: object) -> None:
    parts = [{"source": image}, {"type": "text", "text": "What is it?"}, {"source": image}]
    body = json.dumps({"messages": [{"role": "user", "content": parts}]}).encode()
    assert input_characters(body) == len(body) - 2 * len(IMAGE)


@pytest.mark.parametrize(
    "text",
    [
        'Use "base64" for the "data" field, ' + "word " * 400,
        "A data URL starts with data:image/png;base64, and then " + "word " * 400,
        ";base64," * 5000,
        '"base64"' * 5000,
    ],
)
def test_words_about_base64_are_text(text: str) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": text + ' "end" '}]}).encode()
    assert input_characters(body) == len(body)


@pytest.mark.parametrize(
    "piece", [b";base64,", b'"base64"', b'"input_audio"', b'"base64""data":"', b'"data":"x""base64"', b'"base64"}']
)
def test_a_body_of_markers_alone_is_searched_once(piece: bytes) -> None:
    # A search to the end from each of these half a million markers takes hours.
    assert input_characters(piece * 500_000) <= len(piece) * 500_000


def test_short_base64_stays_in_the_count() -> None:
    body = b'{"url":"data:image/png;base64,iVBORw0KGgo="}'
    assert input_characters(body) == len(body)


def test_a_history_of_megabytes_is_not_copied() -> None:
    entry = json.dumps({"role": "user", "content": "x" * 100_000}).encode()
    body = b'{"messages":[%s]}' % b",".join([entry] * 60)

    class WithHistory(Request):
        messages: list[msgspec.Raw] | None = None

    decoder = msgspec.json.Decoder(WithHistory)
    tracemalloc.start()
    try:
        requests.read(body, decoder, lambda request: (str(len(request.messages or [])), ""), session_candidates)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < len(body) / 10
