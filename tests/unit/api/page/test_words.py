"""Twin of aiproxyd/api/page/words.py."""

import pytest

from aiproxyd.api.page.words import between, clock, gist, minute, money, number, percent, pretty, seconds, short, total_tokens


@pytest.mark.parametrize(
    ("word", "value", "text"),
    [
        (number, None, "–"),
        (number, 1234567, "1\u202f234\u202f567"),
        (short, None, "–"),
        (short, 0, "0"),
        (short, 999, "999"),
        (short, 999.6, "1.0k"),
        (short, 12_345, "12.3k"),
        (short, 123_456, "123k"),
        (short, 999_999, "1.0M"),
        (short, 4_500_000_000, "4.5B"),
        (money, None, "–"),
        (money, 0, "$0.00"),
        (money, 1234, "$0.0012"),
        (money, 1_234_567_890, "$1,234.57"),
        (seconds, None, "–"),
        (seconds, 0.0123, "12 ms"),
        (seconds, 0.9999, "1.0 s"),
        (seconds, 59.97, "1 min 0 s"),
        (seconds, 3725, "1 h 2 min"),
        (seconds, 200_000, "2 d 7 h"),
        (minute, "2026-01-31T08:00:05Z", "2026-01-31 08:00"),
        (minute, None, "–"),
        (clock, "2026-01-31T08:00:05Z", "08:00:05"),
        (clock, None, "–"),
        (gist, None, ""),
        (gist, '{"command": "ls  -l"}', "ls -l"),
        (gist, '{"a": [1, 2]}', "[1, 2]"),
        (gist, "*** Begin Patch", "*** Begin Patch"),
        (gist, "[" * 100_000, "[" * 139 + "…"),
        (pretty, None, ""),
        (pretty, '{"a":1}', '{\n  "a": 1\n}'),
        (pretty, "{not json", "{not json"),
        (pretty, "[" * 100_000, "[" * 100_000),
    ],
)
def test_words(word, value, text: str) -> None:
    assert word(value) == text


def test_words_of_two() -> None:
    assert between("2026-01-31T08:00:00Z", "2026-01-31T08:00:01.500000Z") == "1.5 s"
    assert between(None, "2026-01-31T08:00:00Z") == "–"
    assert (percent(1, 3), percent(0, 0)) == ("33%", "0%")
    names = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens")
    assert total_tokens(dict.fromkeys(names, 2)) == 8
