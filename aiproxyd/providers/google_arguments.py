"""Arguments of a function call that Google streams as paths and values, put together to the JSON object they mean.

Facts: `partialArgs` is a list of `{"jsonPath": "$.a.b[0]", "stringValue": "…", "willContinue": true}`; a text that continues comes
again under its path, and the pieces belong together. Numbers, booleans and nulls come once.

Source:
    https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/function-calling#streaming-fc
"""

import re
from typing import Any, Final

import msgspec

_STEP: Final = re.compile(r"""\.([^.\[\]]+)|\[(\d{1,4})\]|\[(?:'([^']*)'|"([^"]*)")\]""")

MAX_STEPS: Final = 64
"""A deeper path is taken for a name as a whole."""


class PartialArgument(msgspec.Struct, rename="camel"):
    """A piece of one argument."""

    json_path: str = ""
    string_value: str | None = None
    number_value: int | float | None = None
    bool_value: bool | None = None


class _Text:
    """A text in pieces; joined once, since joining at each piece would cost the square of their number."""

    __slots__ = ("pieces",)

    def __init__(self, first: str) -> None:
        self.pieces = [first]


class Arguments:
    """The arguments of one call so far. Total: a path that makes no sense becomes a name of its own."""

    __slots__ = ("_values", "characters")

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self.characters = 0
        """Characters of paths and texts taken in; whoever feeds this bounds it by them."""

    def add(self, piece: PartialArgument) -> None:
        """Take in one piece."""
        value: Any = piece.bool_value if piece.bool_value is not None else piece.number_value
        if piece.string_value is not None:
            value = _Text(piece.string_value)
        self.characters += len(piece.json_path) + len(piece.string_value or "") + 1
        if not _put(self._values, _steps(piece.json_path), value):
            _put(self._values, [piece.json_path], value)

    def json(self) -> str:
        """Return the object as JSON text."""
        return msgspec.json.encode(self._values, enc_hook=lambda text: "".join(text.pieces)).decode()


def _steps(path: str) -> list[str | int]:
    """Return the names and positions that `path` goes through; the whole path as one name when it is no such path."""
    steps: list[str | int] = []
    at = 1
    while path.startswith("$") and at < len(path) and len(steps) < MAX_STEPS:
        found = _STEP.match(path, at)
        if found is None:
            break
        steps.append(int(found[2]) if found[2] else found[1] or found[3] or found[4] or "")
        at = found.end()
    return steps if steps and at == len(path) else [path]


def _put(values: dict[str, Any], steps: list[str | int], value: Any) -> bool:
    """Put `value` where `steps` lead, making what is on the way; return False where something else is there."""
    place: Any = values
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        made: Any = value if following is None else ([] if isinstance(following, int) else {})
        if isinstance(step, str):
            if not isinstance(place, dict):
                return False
            if step not in place:
                place[step] = made
            elif following is None:
                place[step] = _joined(place[step], value)
        else:
            # Positions come in order; one that is skipped cannot be filled.
            if not isinstance(place, list) or step > len(place):
                return False
            if step == len(place):
                place.append(made)
            elif following is None:
                place[step] = _joined(place[step], value)
        place = place[step]
    return True


def _joined(before: Any, value: Any) -> Any:
    if not isinstance(before, _Text) or not isinstance(value, _Text):
        return value
    before.pieces += value.pieces
    return before
