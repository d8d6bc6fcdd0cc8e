"""The grammar of `q=`: `key:value` and `key:"value with spaces"`, separated by spaces. Pure; knows no key and no value.

Total: any text gives terms or mistakes. A value may hold colons (`started_after:2026-01-31T08:00:00Z`), only the first one counts.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

MAX_QUERY_CHARACTERS = 4096


class Mistake(NamedTuple):
    """What is wrong, in the words of the answer."""

    field: str
    detail: str


class Search(NamedTuple):
    """What a text says; `terms` is empty where there are mistakes."""

    terms: dict[str, str]
    mistakes: list[Mistake]


def parse_search(text: str, keys: Collection[str]) -> Search:
    """Return the terms of `text`, or what is wrong with it.

    Args:
        text: The value of `q`.
        keys: The keys that there are; they are compared without case.
    """
    if len(text) > MAX_QUERY_CHARACTERS:
        return Search({}, [Mistake("q", f"Query has {len(text)} characters, at most {MAX_QUERY_CHARACTERS} are allowed.")])
    elements, is_whole = _elements(text)
    mistakes = [] if is_whole else [Mistake("q", "Query has a quotation mark that is not closed.")]
    terms: dict[str, str] = {}
    for element in elements:
        key, colon, value = element.partition(":")
        key = key.strip('"').lower()
        value = _unquoted(value)
        if not colon:
            mistakes.append(Mistake("q", f"Query element {_shown(element)} must be key:value."))
        elif not key or not value:
            mistakes.append(Mistake("q", f"Query element {_shown(element)} cannot start or end with ':'."))
        elif key not in keys:
            mistakes.append(Mistake(key[:100], f"{_shown(key)} is not a valid query param."))
        elif key in terms:
            mistakes.append(Mistake(key, f"Query param {_shown(key)} provided more than once."))
        else:
            terms[key] = value
    return Search({} if mistakes else terms, mistakes)


def joined_terms(terms: Iterable[tuple[str, str]]) -> str:
    """Return the text that `parse_search` reads as `terms`; values hold no quotation mark."""
    return " ".join(f'{key}:"{value}"' if " " in value else f"{key}:{value}" for key, value in terms)


def _elements(text: str) -> tuple[list[str], bool]:
    """Return what stands between spaces outside of quotation marks, and whether every quotation ends."""
    elements: list[str] = []
    start: int | None = None
    quoted = False
    for at, letter in enumerate(text):
        if letter == '"':
            quoted = not quoted
        if letter.isspace() and not quoted:
            if start is not None:
                elements.append(text[start:at])
            start = None
        elif start is None:
            start = at
    if start is not None:
        elements.append(text[start:])
    return elements, not quoted


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value.replace('"', "")


def _shown(text: str) -> str:
    cut = text if len(text) <= 100 else text[:100] + "…"
    return '"' + cut.replace('"', '\\"') + '"'
