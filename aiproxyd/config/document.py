"""A YAML document as plain values, with the line of each. Not a validator: `loader` asks the schema what the values mean.

Strategy: YAML 1.2's core rules for scalars, because 1.1's turn `mode: off` into a boolean, `12:30` into 750 and `0600` into 384.
Duplicate keys are mistakes: YAML forbids them and PyYAML keeps the last without a word.
"""

import re
from collections.abc import Sequence
from typing import Any

import yaml

# Each level of nesting costs the composer a few Python frames; no setting is deeper than five.
MAX_DEPTH = 32


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (PyYAML looks it up on the class)


_TAG = "tag:yaml.org,2002:"
for _tag, _pattern, _first in (
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)\Z", "tTfF"),
    ("int", r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z", "-+0123456789"),
    (
        "float",
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z",
        "-+.0123456789",
    ),
    ("null", r"(?:~|null|Null|NULL|)\Z", "~nN\0"),
    ("merge", r"<<\Z", "<"),
):
    _firsts: list[str] = ["" if letter == "\0" else letter for letter in _first]
    _Loader.add_implicit_resolver(_TAG + _tag, re.compile(_pattern), _firsts)


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return int(text, base)


_Loader.add_constructor(_TAG + "int", _integer)


class Document:
    """A parsed document, or what is wrong with its text."""

    def __init__(self, value: Any = None, node: yaml.Node | None = None, mistakes: Sequence[tuple[int, str]] = ()) -> None:
        self.value = value
        """Mappings, lists and scalars; None for an empty document and for one with mistakes."""
        self.mistakes = tuple(mistakes)
        """Pairs of a line (from 1; 0 when unknown) and a sentence."""
        self._node = node

    def line_of(self, location: Sequence[str | int]) -> int:
        """Return the line, from 1, of the deepest part of `location` that exists; 0 when none does."""
        node, line = self._node, 0
        for step in location:
            if isinstance(node, yaml.MappingNode):
                found = next(((key, value) for key, value in node.value if _is_key(key, step)), None)
                if found is None:
                    break
                line, node = found[0].start_mark.line + 1, found[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                line = node.start_mark.line + 1
            else:
                break
        return line


def parse_document(text: str) -> Document:
    """Return the one document in `text`. Total: text that is not one well-formed document gives one with `mistakes`."""
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return Document()
        mistakes = _mistakes_in(node)
        return Document(mistakes=mistakes) if mistakes else Document(loader.construct_document(node), node)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        sentence = ", ".join(part for part in (exc.context, exc.problem) if part)
        return Document(mistakes=[(mark.line + 1 if mark else 0, f"not well-formed YAML: {sentence}")])
    except (yaml.YAMLError, ValueError, OverflowError) as exc:
        # ValueError: a number of more digits than Python reads.
        return Document(mistakes=[(0, f"not well-formed YAML: {' '.join(str(exc).split())}")])
    except RecursionError:
        return Document(mistakes=[(0, f"nested more than {MAX_DEPTH} levels deep")])
    finally:
        if loader is not None:
            loader.dispose()


def _mistakes_in(root: yaml.Node) -> list[tuple[int, str]]:
    mistakes: list[tuple[int, str]] = []
    # An alias is the same node again; seeing each once keeps a document of aliases of aliases linear.
    seen: set[int] = set()
    waiting = [(root, 0)]
    while waiting:
        node, depth = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if depth > MAX_DEPTH:
            mistakes.append((node.start_mark.line + 1, f"nested more than {MAX_DEPTH} levels deep"))
        elif isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, value in node.value:
                line = key.start_mark.line + 1
                if not isinstance(key, yaml.ScalarNode):
                    mistakes.append((line, "a key is not a single word"))
                elif key.value in lines:
                    mistakes.append((line, f"{key.value!r} is already set in line {lines[key.value]}"))
                else:
                    lines[key.value] = line
                waiting.append((value, depth + 1))
        elif isinstance(node, yaml.SequenceNode):
            waiting.extend((item, depth + 1) for item in node.value)
    return sorted(mistakes)


def _is_key(node: yaml.Node, step: str | int) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.value == str(step)
