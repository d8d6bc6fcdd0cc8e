"""Samples hold the shape of what is not known, and nothing that anybody said."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.model.events import TextDelta, UnknownEvent
from aiproxyd.providers.openai_responses import API
from aiproxyd.providers.samples import (
    MAX_KEPT_BYTES,
    MAX_SAMPLE_CHARACTERS,
    MAX_SAMPLED_BYTES,
    MAX_SAMPLES,
    Samples,
    redacted_sample,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"type": "response.new", "text": "secret", "n": 42, "ok": True, "no": None}, {"type": "response.new", "text": "<6 characters>", "n": 0, "ok": True, "no": None}),
        ({"type": "Please reset my password", "a key that is a sentence": 1}, {"type": "<24 characters>", "<24 characters>": 0}),
        ([1.5, "x", {}, [], 5], [0, "<1 characters>", {}, "… 5 items"]),
        ("secret", "<6 characters>"),
    ],
)  # fmt: skip
def test_a_sample_is_a_shape(value: object, expected: object) -> None:
    assert json.loads(redacted_sample(json.dumps(value).encode(), "event:x")) == expected


def test_the_part_that_is_meant_is_shown() -> None:
    body = {"output": [{"type": "message"}, {"type": "hologram", "angle": 7}], "type": "response"}
    assert json.loads(redacted_sample(json.dumps(body).encode(), "item:hologram")) == {"type": "hologram", "angle": 0}


@pytest.mark.parametrize("data", [b"secret", b"", b'{"a"', b'"' + b"x" * MAX_SAMPLED_BYTES + b'"'])
def test_what_is_no_json_or_too_large_is_its_size(data: bytes) -> None:
    assert redacted_sample(data, "event:x") == f"<{len(data)} bytes>"


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.just("SECRET words"),
    lambda children: st.lists(children) | st.dictionaries(st.sampled_from(["a", "type", "SECRET words"]), children),
    max_leaves=200,
)


@given(_json)
def test_no_text_comes_through_and_no_sample_is_long(value: object) -> None:
    sample = redacted_sample(json.dumps(value).encode(), "event:x")
    assert "SECRET" not in sample
    assert len(sample) <= MAX_SAMPLE_CHARACTERS + 1


def test_very_deep_json_is_cut() -> None:
    assert "…" in redacted_sample(b"[" * 50 + b"]" * 50, "event:x")
    assert json.loads(redacted_sample(json.dumps({f"k{n}": n for n in range(50)}).encode(), "x"))["…"] == "50 fields"


def test_one_sample_of_each_kind_is_taken() -> None:
    samples = Samples()
    samples.take([TextDelta(1), UnknownEvent("event:a"), UnknownEvent("event:a")], 1, b'{"first":1}')
    samples.take([UnknownEvent("event:b"), UnknownEvent("event:a")], 1, b'{"second":1}')
    assert samples.by_kind == {"event:a": '{"first":0}'}
    samples.take([UnknownEvent(f"event:{n}") for n in range(20)], 0, b"1")
    assert len(samples.by_kind) == MAX_SAMPLES


def test_where_a_field_is_missing_the_first_event_and_the_last_two_show_it() -> None:
    samples = Samples()
    assert samples.of_missing() == ""
    for data in (b'{"type":"start","id":"secret"}', b'{"a":1}', b'{"b":1}', b"", b'{"type":"stop"}', b"[DONE]"):
        samples.take([], 0, data)
    assert samples.of_missing().split("\n") == ['{"type":"start","id":"<6 characters>"}', '{"b":0}', '{"type":"stop"}']


def test_what_is_kept_to_show_a_missing_field_is_small() -> None:
    samples = Samples()
    samples.take([], 0, b'{"a":"%b"}' % (b"x" * MAX_KEPT_BYTES))
    assert samples.of_missing() == ""
    body = b'{"a":"%b"}' % (b"x" * MAX_KEPT_BYTES)
    samples.take_document([], body)
    assert samples.of_missing() == '{"a":"<16384 characters>"}'


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_parsers_take_samples_under_any_split(size: int) -> None:
    stream = b'event: response.hologram\ndata: {"type":"response.hologram","light":"blue"}\n\n'
    parser = API.stream_parser(1 << 20)
    events = [event for at in range(0, len(stream), size) for event in parser.feed(stream[at : at + size])]
    assert events == [UnknownEvent("event:response.hologram")]
    assert parser.samples.by_kind == {"event:response.hologram": '{"type":"response.hologram","light":"<4 characters>"}'}  # type: ignore[attr-defined]
    document = API.document_parser(1 << 20)
    document.feed(b'{"id":"r","status":"completed","output":[{"type":"hologram","light":"blue"}]}')
    document.close()
    assert document.samples.by_kind == {"item:hologram": '{"type":"hologram","light":"<4 characters>"}'}  # type: ignore[attr-defined]
