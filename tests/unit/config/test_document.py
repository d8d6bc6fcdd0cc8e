import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.config.document import MAX_DEPTH, parse_document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("mode: off", {"mode": "off"}),
        ("a: yes", {"a": "yes"}),
        ("a: true", {"a": True}),
        ("a: False", {"a": False}),
        ("listen: 12:30", {"listen": "12:30"}),
        ("a: 0600", {"a": 600}),
        ("a: 0x1f", {"a": 31}),
        ("a: 0o17", {"a": 15}),
        ("a: -3", {"a": -3}),
        ("a: 1e3", {"a": 1000.0}),
        ("a: 1.5", {"a": 1.5}),
        ("a: 2026-11-21", {"a": "2026-11-21"}),
        ("a: ~", {"a": None}),
        ("a:", {"a": None}),
        ("a: '1'", {"a": "1"}),
        ("[1, x, 127.0.0.1:88]", [1, "x", "127.0.0.1:88"]),
        ("x: &a {b: 1}\ny:\n  <<: *a\n  c: 2", {"x": {"b": 1}, "y": {"b": 1, "c": 2}}),
        ("", None),
        ("# nothing\n", None),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    document = parse_document(text)
    assert document.mistakes == ()
    assert document.value == value


def test_every_duplicate_key_is_told_with_both_lines() -> None:
    document = parse_document("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\na: 2\n")
    assert document.mistakes == ((5, "'c' is already set in line 3"), (6, "'a' is already set in line 1"))
    assert document.value is None


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("a: 1\nb: [1\n", 3, "not well-formed YAML"),
        ("a: b: c", 1, "mapping values are not allowed"),
        ("a: 1\n---\nb: 2\n", 2, "another document"),
        ("a: !!python/object:os.system x", 1, "could not determine a constructor"),
        ("? [a]\n: 1", 1, "a key is not a single word"),
        ("a: \x01", 0, "not well-formed YAML"),
        ("a: *b", 1, "undefined alias"),
    ],
)
def test_malformed_text_is_one_sentence_with_its_line(text: str, line: int, part: str) -> None:
    ((found, sentence),) = parse_document(text).mistakes
    assert found == line
    assert part in sentence
    assert "\n" not in sentence


def test_deep_nesting_is_refused_and_not_recursed_into() -> None:
    assert "levels deep" in parse_document("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2)).mistakes[0][1]
    assert parse_document("[" * 100_000).mistakes


def test_aliases_of_aliases_cost_no_more_than_their_text() -> None:
    levels = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 25)]
    assert parse_document("\n".join(levels)).mistakes == ()


def test_a_line_is_found_for_the_deepest_part_that_exists() -> None:
    document = parse_document("a:\n  - b: 1\n  -\n    c: 2\nd: 3\n")
    assert document.line_of(("a",)) == 1
    assert document.line_of(("a", 0, "b")) == 2
    assert document.line_of(("a", 1, "c")) == 4
    assert document.line_of(("a", 1, "missing")) == 4
    assert document.line_of(("a", 7)) == 1
    assert document.line_of(("d", "x")) == 5
    assert document.line_of(()) == 0
    assert parse_document("").line_of(("a",)) == 0


@given(st.text(max_size=60) | st.text(alphabet="ab:-[]{},&*!|>'\"#%@` \n\t~<0", max_size=60))
def test_any_text_gives_a_document(text: str) -> None:
    document = parse_document(text)
    assert document.value is None or not document.mistakes
