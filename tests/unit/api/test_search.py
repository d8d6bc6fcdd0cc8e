"""Twin of aiproxyd/api/search.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.api.search import MAX_QUERY_CHARACTERS, joined_terms, parse_search

KEYS = ("initiator", "model", "started_after")


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("", {}),
        ("   \t\n ", {}),
        ("model:a", {"model": "a"}),
        ("  model:a   initiator:b ", {"model": "a", "initiator": "b"}),
        ("MODEL:A", {"model": "A"}),
        ('model:"two words"', {"model": "two words"}),
        ('model:"two  words" initiator:x', {"model": "two  words", "initiator": "x"}),
        ("started_after:2026-01-31T08:00:00Z", {"started_after": "2026-01-31T08:00:00Z"}),
        ('started_after:"2026-01-31T08:00:00+01:00"', {"started_after": "2026-01-31T08:00:00+01:00"}),
        ("model:llama3:8b", {"model": "llama3:8b"}),
        ('model:a"b', None),
        ('model:pre"quoted part"post', {"model": "prequoted partpost"}),
        ('"model":x', {"model": "x"}),
        ("model:'; DROP TABLE interceptions; --", None),
        ("model:<script>", {"model": "<script>"}),
    ],
)
def test_terms(text: str, terms: dict[str, str] | None) -> None:
    search = parse_search(text, KEYS)
    if terms is None:
        assert search.terms == {}
        assert search.mistakes
    else:
        assert search == (terms, [])


@pytest.mark.parametrize(
    ("text", "field", "detail"),
    [
        ("nonsense", "q", 'Query element "nonsense" must be key:value.'),
        ("model:", "q", "Query element \"model:\" cannot start or end with ':'."),
        (":a", "q", "Query element \":a\" cannot start or end with ':'."),
        ('model:""', "q", 'Query element "model:\\"\\"" cannot start or end with \':\'.'),
        ("colour:red", "colour", '"colour" is not a valid query param.'),
        ("model:a model:b", "model", 'Query param "model" provided more than once.'),
        ('model:"a', "q", "Query has a quotation mark that is not closed."),
        ("model:" + "a" * MAX_QUERY_CHARACTERS, "q", "Query has 4102 characters, at most 4096 are allowed."),
    ],
)
def test_mistakes_are_named(text: str, field: str, detail: str) -> None:
    search = parse_search(text, KEYS)
    assert search.terms == {}
    assert search.mistakes[0] == (field, detail)


def test_every_mistake_is_named() -> None:
    assert len(parse_search("a b:c model:1 model:2 :x", KEYS).mistakes) == 4


def test_a_mistake_shows_no_more_of_a_long_text_than_it_takes() -> None:
    assert all(len(mistake.detail) < 200 for mistake in parse_search("x" * 4000, KEYS).mistakes)


@given(st.text(alphabet=st.sampled_from('ab :"\t\\model:initiator:') | st.characters()))
def test_any_text_gives_terms_or_mistakes(text: str) -> None:
    search = parse_search(text, KEYS)
    assert not (search.terms and search.mistakes)
    assert set(search.terms) <= set(KEYS)
    assert all(search.terms.values())
    if not search.mistakes:
        assert not text.strip() or search.terms


_values = st.text(st.characters(exclude_characters='"'), min_size=1, max_size=50).filter(
    lambda value: value == value.strip(" ")
)


@given(st.dictionaries(st.sampled_from(KEYS), _values.filter(lambda value: not any(c.isspace() and c != " " for c in value))))
def test_what_is_joined_reads_back(terms: dict[str, str]) -> None:
    assert parse_search(joined_terms(terms.items()), KEYS) == (terms, [])
