import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.model.head import Headers, RequestHead
from aiproxyd.redaction import credential_hint, mask


@pytest.mark.parametrize(
    ("secret", "hint"),
    [
        ("", ""),
        ("a", "..."),
        ("four", "..."),
        ("short", "s...t"),
        ("ninechars", "n...s"),
        ("tencharact", "te...ct"),
        ("thisisquitelong", "th...ng"),
        ("sk-ant-api03-abcdefgh", "sk-a...efgh"),
        ("schlüssel-mit-ümlauten", "schl...uten"),
    ],
)
def test_a_mask_shows_as_much_as_coders(secret: str, hint: str) -> None:
    assert mask(secret) == hint


@given(st.text(min_size=1))
def test_a_mask_is_short_and_hides_at_least_half_of_a_long_secret(secret: str) -> None:
    hint = mask(secret)
    assert "..." in hint
    assert len(hint) <= 11
    assert len(hint) - 3 <= max(len(secret) // 2, 0)


@pytest.mark.parametrize(
    ("fields", "target", "hint"),
    [
        ([], "/v1/messages", ""),
        ([("x-api-key", "sk-ant-api03-abcdefgh")], "/", "sk-a...efgh"),
        ([("Authorization", "Bearer sk-ant-oat01-0123456789")], "/", "sk-a...6789"),
        ([("Authorization", "bearer   sk-proj-0123456789abc ")], "/", "sk-p...9abc"),
        ([("Authorization", "token-without-scheme-here")], "/", "toke...here"),
        ([("api-key", "0123456789abcdef")], "/", "01...ef"),
        ([("x-goog-api-key", "AIzaSyA-0123456789-abcdef")], "/", "AIza...cdef"),
        ([("x-api-key", " "), ("authorization", "Bearer tencharact")], "/", "te...ct"),
        ([("x-api-key", "of-the-key-header"), ("authorization", "Bearer placeholder")], "/", "of...er"),
        ([], "/v1beta/models/m:generateContent?alt=sse&key=AIzaSyA-0123456789-abcdef", "AIza...cdef"),
        ([], "/?" + "a=1&" * 5000 + "key=AIza%53yA-0123456789-abcdef", "AIza...cdef"),
        ([], "/v1?monkey=banana", ""),
    ],
)
def test_the_hint_is_of_the_credential_the_provider_sees(fields: list[tuple[str, str]], target: str, hint: str) -> None:
    assert credential_hint(RequestHead("POST", target, Headers(fields))) == hint
