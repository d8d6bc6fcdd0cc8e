"""`docs/configuration.md` and `examples/config.yaml`, written from the schema. `python -m aiproxyd.config.docs` in a checkout.

Not a second description: what is missing here is missing in the schema. A test compares the files with what this gives.
"""

import datetime as dt
import enum
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import annotated_types
import yaml
from pydantic import BaseModel, SecretStr

from aiproxyd.config.fields import SettingField, fields_of
from aiproxyd.config.network import ListenAddress
from aiproxyd.config.schema import Config, Duration
from aiproxyd.config.section import Section

_INTRODUCTION = """\
# Configuration

One YAML file, named by `--config` or by `AIPROXYD_CONFIG`. Without one the defaults below hold: the daemon needs no file.
This page is written from `aiproxyd/config/schema.py` by `python -m aiproxyd.config.docs`; so is `examples/config.yaml`.

- An unknown key, a key that is set twice and a value of the wrong kind are errors. `aiproxyd check` and `aiproxyd run` list all of
  them, each with its line and path, and exit with status 2.
- A key without a value has its default. Relative paths start at the folder of the file, those in `{file: …}` as well, and in a variable where the daemon was started;
  `~` is the home folder.
- Scalars follow YAML 1.2: `off`, `no` and `12:30` are text.
- A change of the file, or of another file that it names and that a reload reads, is noticed and used; SIGHUP to the process in
  `data_dir/run.json` does the same at once. It is checked as a whole, and on any error the old configuration stays. A setting that is
  marked *restart* is read once; the log names it when a reload changes it. [More](operations.md#reload).
- Durations are numbers with a unit, such as `90s`, `15m`, `12h`, `60d`, `2w`, or a sum such as `1h30m`.

## Environment variables

A variable wins over the file; an empty one counts as absent. A name with two underscores that names no setting is an error.

| variable | meaning |
|---|---|
| `AIPROXYD_CONFIG` | The file, where `--config` is not given. |
| `AIPROXYD_<KEY>` | A top-level setting: `AIPROXYD_DATA_DIR`, `AIPROXYD_LISTEN`, `AIPROXYD_WORKERS`, …. |
| `AIPROXYD_<SECTION>__<KEY>` | A setting of a section: `AIPROXYD_AUTH__MODE=off`, `AIPROXYD_ADMIN__TOKEN=…`. |
| `AIPROXYD_TOKEN` | Not a setting: the token that `aiproxyd env` and `aiproxyd exec` use. |

Numbers and booleans are written as in YAML, lists as in YAML (`[443, 80]`) or with commas (`443,80`), everything else as it is.
"""

_EXAMPLE_HEAD = """\
# Every setting of aiproxyd with its default. Remove what you do not change; without any file these defaults hold.
# Written by `python -m aiproxyd.config.docs`; docs/configuration.md is the same as a page.
"""

_BELOW = "see below"

_KINDS: dict[Any, str] = {
    str: "text",
    dt.date: "date",
    int: "whole number",
    float: "number",
    bool: "`true` or `false`",
    Path: "path",
    SecretStr: "text, a secret",
    ListenAddress: "`ADDRESS:PORT`",
    Duration: "duration",
}


def reference() -> str:
    """Return the page: each setting with its kind, default, meaning, and whether a reload is enough."""
    parts = [_INTRODUCTION]
    top = [field for field in fields_of(Config).values() if field.section is None]
    parts.append("## Top level\n\n" + _table(Config, top))
    parts += [_section(field) for field in fields_of(Config).values() if field.section is not None]
    return "\n".join(parts)


def example() -> str:
    """Return a file that sets everything to its default, with what it means as comments."""
    return _EXAMPLE_HEAD + "\n".join(_example_lines(Config, "")) + "\n"


def write(root: Path) -> list[Path]:
    """Write the files below `root` and return those that were not up to date."""
    changed = []
    for name, content in generated().items():
        file = root / name
        if not file.exists() or file.read_text(encoding="utf-8") != content:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content, encoding="utf-8")
            changed.append(file)
    return changed


def generated() -> dict[str, str]:
    """Return the content of each file by its path in a checkout."""
    return {"docs/configuration.md": reference(), "examples/config.yaml": example()}


def _section(field: SettingField) -> str:
    assert field.section is not None
    heading = f"## `{field.name}{'[]' if field.is_list else ''}`"
    text = f"{heading}\n\n{_sentences(field.section.__doc__ or '')}\n\n"
    if field.is_list:
        default = ", ".join(f"`{entry.name}`" for entry in field.info.default) or "none"
        text += f"{_sentences(field.info.description or '')} Default: {default}.\n\n"
    return (
        text
        + _table(field.section, list(fields_of(field.section).values()))
        + _below(field.section, heading.strip("# `"), set())
    )


def _below(model: type[Section], path: str, seen: set[type[Section]]) -> str:
    """Return the parts about the sections inside `model`, each kind of section once."""
    text = ""
    for each in fields_of(model).values():
        if each.section is None or each.section in seen:
            continue
        seen.add(each.section)
        name = f"{path}.{each.name}{'[]' if each.is_list else ''}"
        text += f"\n### `{name}`\n\n{_sentences(each.section.__doc__ or '')}\n\n"
        text += _table(each.section, list(fields_of(each.section).values())) + _below(each.section, name, seen)
    return text


def _table(model: type[Section], fields: list[SettingField]) -> str:
    rows = ["| setting | value | default | a change needs | meaning |", "|---|---|---|---|---|"]
    hints = typing.get_type_hints(model, include_extras=True)
    for field in fields:
        cells = (
            f"`{field.name}`",
            _kind(hints[field.name], field),
            _default(field),
            "restart" if field.needs_restart else "reload",
            _sentences(field.info.description or ""),
        )
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _kind(hint: Any, field: SettingField | None = None) -> str:
    """Return what a value may be, with its range."""
    if hint in _KINDS:
        kind = _KINDS[hint]
    elif typing.get_origin(hint) is typing.Annotated:
        kind = _kind(typing.get_args(hint)[0])
        return _ranged(kind, _bounds(typing.get_args(hint)[1:]))
    elif typing.get_origin(hint) in (typing.Union, types.UnionType):
        kind = " or ".join(_kind(part) for part in typing.get_args(hint) if part is not type(None))
    elif typing.get_origin(hint) is Literal:
        kind = ", ".join(f"`{choice}`" for choice in typing.get_args(hint))
    elif typing.get_origin(hint) is tuple:
        item = _kind(typing.get_args(hint)[0])
        kind = f"list, {item}" if item == _BELOW else f"list of {item}"
    elif typing.get_origin(hint) is dict:
        kind = "mapping"
    elif isinstance(hint, type) and issubclass(hint, enum.Enum):
        kind = ", ".join(f"`{choice.value}`" for choice in hint)
    elif isinstance(hint, type) and issubclass(hint, BaseModel):
        kind = _BELOW
    else:
        raise TypeError(f"the documentation has no words for {hint!r}")
    return _ranged(kind, _bounds(field.info.metadata)) if field is not None else kind


def _bounds(metadata: Any) -> tuple[str, str]:
    """Return the lower and upper bound in words; empty for none."""
    lower = upper = ""
    for item in metadata:
        for each in getattr(item, "metadata", (item,)):
            match each:
                case annotated_types.Ge(ge=bound):
                    lower = f"from {bound}"
                case annotated_types.Gt(gt=bound):
                    lower = f"above {bound}"
                case annotated_types.Le(le=bound):
                    upper = f"to {bound}"
                case annotated_types.Lt(lt=bound):
                    upper = f"below {bound}"
    return lower, upper


def _ranged(kind: str, bounds: tuple[str, str]) -> str:
    return " ".join(part for part in (kind, *bounds) if part)


def _default(field: SettingField) -> str:
    if field.info.is_required():
        return "required"
    value = _plain(field.info.get_default(call_default_factory=True, validated_data={}))
    if field.section is not None and isinstance(value, dict):
        return "that of each"
    if value is None:
        return "none"
    return f"`{_flow(value)}`"


def _plain(value: Any) -> Any:
    """Return a default as YAML would hold it."""
    match value:
        case enum.Enum():
            return value.value
        case tuple():
            return [_plain(item) for item in value]
        case BaseModel():
            return {name: _plain(getattr(value, name)) for name in type(value).model_fields if getattr(value, name) is not None}
        case Path():
            return str(value)
        case _:
            return value


def _flow(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000, allow_unicode=True).removesuffix("...\n").strip()


def _example_lines(model: type[Section], indent: str) -> Iterator[str]:
    for field in fields_of(model).values():
        yield ""
        description = field.info.description or (field.section.__doc__ if field.section is not None else "") or ""
        yield from _comment(_sentences(description), indent)
        if field.section is not None and not field.is_list:
            yield f"{indent}{field.name}:"
            yield from (line for line in _example_lines(field.section, indent + "  ") if line)
            continue
        default = (
            None if field.info.is_required() else _plain(field.info.get_default(call_default_factory=True, validated_data={}))
        )
        if default is None:
            # A key without a value has its default, too; as a comment it shows what may stand there.
            yield f"{indent}# {field.name}:"
        elif isinstance(default, list) and default and isinstance(default[0], dict):
            yield f"{indent}{field.name}:"
            yield from (f"{indent}  - {_entry(entry)}" for entry in default)
        else:
            yield f"{indent}{field.name}: {_flow(default)}"


def _entry(entry: dict[str, Any]) -> str:
    """Return a provider as one line: what its defaults say anyway is left out."""
    return _flow({name: entry[name] for name in ("name", "type") if name in entry})


def _comment(text: str, indent: str) -> Iterator[str]:
    import textwrap

    yield from textwrap.wrap(text, width=110, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


def _sentences(text: str) -> str:
    return " ".join(text.split())


def main() -> int:
    """Write the files below the current folder."""
    for file in write(Path.cwd()):
        sys.stdout.write(f"wrote {file}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
