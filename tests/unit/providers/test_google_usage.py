"""Google's figures, row by row."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.model.usage import TokenUsage
from aiproxyd.providers.google_usage import ModalityCount, UsageMetadata, merged, token_usage


def usage(**figures: Any) -> UsageMetadata:
    return msgspec.convert(figures, UsageMetadata)


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({}, None),
        ({"totalTokenCount": 7, "trafficType": "ON_DEMAND"}, None),
        ({"promptTokenCount": 0, "candidatesTokenCount": 0}, None),
        ({"promptTokenCount": 5}, TokenUsage(input_tokens=5)),
        ({"candidatesTokenCount": 5}, TokenUsage(output_tokens=5)),
        ({"thoughtsTokenCount": 5}, TokenUsage(output_tokens=5, reasoning_output_tokens=5)),
        ({"promptTokenCount": 9, "cachedContentTokenCount": 4}, TokenUsage(input_tokens=5, cache_read_input_tokens=4)),
        ({"promptTokenCount": 9, "cachedContentTokenCount": 10}, TokenUsage(cache_read_input_tokens=10)),
        (
            {"promptTokenCount": 9, "candidatesTokenCount": 3, "thoughtsTokenCount": 2, "totalTokenCount": 14},
            TokenUsage(input_tokens=9, output_tokens=5, reasoning_output_tokens=2),
        ),
        (
            {"promptTokenCount": 9, "candidatesTokenCount": 3, "thoughtsTokenCount": 2, "totalTokenCount": 12},
            TokenUsage(input_tokens=9, output_tokens=3, reasoning_output_tokens=2),
        ),
        (
            {"promptTokenCount": 9, "candidatesTokenCount": 3, "thoughtsTokenCount": 2},
            TokenUsage(input_tokens=9, output_tokens=5, reasoning_output_tokens=2),
        ),
    ],
)
def test_the_figures_are_disjoint(figures: dict[str, Any], expected: TokenUsage | None) -> None:
    found = token_usage(usage(**figures))
    assert found == (None if expected is None else msgspec.structs.replace(expected, extra={"tool_use_prompt": 0}))


def test_what_tools_put_into_the_prompt_is_input() -> None:
    found = token_usage(usage(promptTokenCount=9, toolUsePromptTokenCount=4, cachedContentTokenCount=12))
    assert found == TokenUsage(input_tokens=4, cache_read_input_tokens=12, extra={"tool_use_prompt": 4})


def test_known_kinds_of_content_are_told_beside() -> None:
    details = [
        {"modality": modality, "tokenCount": count}
        for modality, count in (("TEXT", 1), ("IMAGE", 2), ("IMAGE", 3), ("DOCUMENT", 4), ("SMELL", 5), (None, 6))
    ]
    found = token_usage(
        usage(promptTokenCount=21, candidatesTokenCount=21, promptTokensDetails=details, candidatesTokensDetails=details)
    )
    assert found is not None
    assert found.extra == {"tool_use_prompt": 0, "input_image": 5, "input_document": 4, "output_image": 5}


_reports = st.dictionaries(
    st.sampled_from(["promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "cachedContentTokenCount"]),
    st.none() | st.integers(0, 100),
).map(lambda figures: usage(**figures))


@given(st.lists(_reports, min_size=1, max_size=4))
def test_a_merged_report_has_the_last_word_on_each_figure(reports: list[UsageMetadata]) -> None:
    found = None
    for report in reports:
        found = merged(found, report)
    assert found is not None
    for name in found.__struct_fields__:
        said = [value for report in reports if (value := getattr(report, name)) is not None]
        assert getattr(found, name) == (said[-1] if said else None)


def test_sound_that_was_read_from_the_cache_is_told_apart() -> None:
    audio = [ModalityCount("AUDIO", 40)]
    usage = UsageMetadata(100, 5, cached_content_token_count=60, prompt_tokens_details=audio, cache_tokens_details=audio)
    found = token_usage(usage)
    assert found is not None
    assert (found.input_tokens, found.cache_read_input_tokens) == (40, 60)
    assert found.extra == {"tool_use_prompt": 0, "input_audio": 40, "cached_audio": 40}
