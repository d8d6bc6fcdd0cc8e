"""What the schema says about each setting, in the terms that reading it and documenting it need. Pure; no values."""

import functools
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from aiproxyd.config.schema import Config
from aiproxyd.config.section import Section

# Settings that hold a digest, or the name of a place, where an operator may paste the secret itself by mistake.
_SECRET_BY_NAME = frozenset({"token_sha256", "env"})


class SettingField(msgspec.Struct, frozen=True):
    """A key of a section."""

    name: str
    info: FieldInfo
    section: type[Section] | None
    """The model of a sub-section, or of each entry of a list of them."""
    is_list: bool
    is_path: bool
    is_number: bool
    is_text: bool
    """Whether any text is a value of the right kind, so that an environment variable is taken as it is."""
    items_are_text: bool
    is_secret: bool
    needs_restart: bool
    """Whether a reload leaves it as it was."""


@functools.cache
def fields_of(model: type[Section]) -> dict[str, SettingField]:
    """Return the settings of `model` by name, in their order."""
    return {name: _field(name, info) for name, info in model.model_fields.items()}


def section_of(location: Sequence[str]) -> type[Section] | None:
    """Return the model of the section at `location`, list entries counted as their list; None when there is none."""
    model: type[Section] | None = Config
    for step in location:
        field = fields_of(model).get(step) if model is not None else None
        model = field.section if field is not None else None
    return model


def _field(name: str, info: FieldInfo) -> SettingField:
    kind = _without_none(info.annotation)
    is_list = typing.get_origin(kind) in (tuple, list)
    item = _without_none(typing.get_args(kind)[0]) if is_list else kind
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    return SettingField(
        name=name,
        info=info,
        section=item if isinstance(item, type) and issubclass(item, Section) else None,
        is_list=is_list,
        is_path=kind is Path,
        is_number=kind in (int, float),
        is_text=not is_list and _is_text(kind),
        items_are_text=is_list and _is_text(item),
        is_secret=item is SecretStr or name in _SECRET_BY_NAME,
        needs_restart=extra.get("reload") == "restart",
    )


def _is_text(kind: Any) -> bool:
    if typing.get_origin(kind) is Literal:
        return all(isinstance(choice, str) for choice in typing.get_args(kind))
    return isinstance(kind, type) and issubclass(kind, str | SecretStr)


def _without_none(annotation: Any) -> Any:
    """Return `annotation` without `| None` and without `Annotated`."""
    while True:
        if typing.get_origin(annotation) is typing.Annotated:
            annotation = typing.get_args(annotation)[0]
        elif typing.get_origin(annotation) in (typing.Union, types.UnionType):
            parts = [part for part in typing.get_args(annotation) if part is not type(None)]
            if len(parts) != 1:
                return annotation
            annotation = parts[0]
        else:
            return annotation
