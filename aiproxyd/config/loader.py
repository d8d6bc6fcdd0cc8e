"""From a YAML file and the environment to a `Config`, or to one `ConfigError` that lists every mistake.

Not a watcher: who reloads calls `load` again and keeps the old configuration when it raises.

A key without a value means its default. Paths in a file are relative to that file's folder, `~` is the home folder.
Environment variables win over the file: `AIPROXYD_<SECTION>__<KEY>`, and `AIPROXYD_<KEY>` for keys outside a section; an empty
one counts as absent. A secret's value is never part of a message.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from aiproxyd.config.document import Document, parse_document
from aiproxyd.config.fields import SettingField, fields_of, section_of
from aiproxyd.config.schema import Config
from aiproxyd.config.section import Section
from aiproxyd.exceptions import ConfigError

# A file of thousands of users is below 1 MiB; more is a wrong file.
MAX_FILE_BYTES = 8 << 20

# Longer values are cut in messages.
MAX_SHOWN_CHARACTERS = 80

_PREFIX = "AIPROXYD_"
_USERINFO = re.compile(r"//[^/@\s]*@")

Location = tuple[str | int, ...]


def config_file(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Return the file that is read: `path`, or what `AIPROXYD_CONFIG` names, or None."""
    if path is not None:
        return path
    named = environ.get("AIPROXYD_CONFIG")
    return Path(named).expanduser() if named else None


def load(
    path: Path | None, environ: Mapping[str, str], *, again: bool = False, options: Mapping[str, str] | None = None
) -> Config:
    """Return the configuration.

    Args:
        path: The YAML file; None for the one that `AIPROXYD_CONFIG` names, or no file at all.
        environ: The environment variables.
        again: Whether this is a reload. Then a file without any setting is refused: it would mean the defaults for everything, and
            is what a file looks like that somebody has just begun to write.
        options: By variable of `environ`, the option of the command line that it stands for, which a mistake is told about.

    Raises:
        ConfigError: Something is not usable. The message names the file and each mistake's line, path, value and what was
            expected.
    """
    file = config_file(path, environ)
    document = _read(file) if file is not None else Document()
    if again and file is not None and not document.value:
        raise ConfigError(
            f"{file}: holds no setting, as if it were half-written; a start takes that for all defaults, a reload does not"
        )
    data = _prepared(document.value, Config, file.absolute().parent if file is not None else Path.cwd())
    overridden, mistakes = _override(data, environ)
    try:
        config = Config.model_validate(data)
    except ValidationError as exc:
        named = options or {}
        errors = sorted(exc.errors(include_url=False), key=lambda error: document.line_of(error["loc"]))
        mistakes += [_sentence(error, document, overridden, named) for error in errors]
        # Stops a secret that pydantic keeps in the error from being shown as the cause.
        raise _refusal(file, mistakes) from None
    if mistakes:
        raise _refusal(file, mistakes)
    return config


def _read(file: Path) -> Document:
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise ConfigError(f"{file}: cannot be read: {exc.strerror or exc}") from exc
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(f"{file}: larger than {MAX_FILE_BYTES} bytes, so it is no configuration file")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = raw.count(b"\n", 0, exc.start) + 1
        raise ConfigError(f"{file}, line {line}: not UTF-8 text") from exc
    document = parse_document(text)
    if document.mistakes:
        raise _refusal(file, [_at_line(line, sentence) for line, sentence in document.mistakes])
    if document.value is not None and not isinstance(document.value, dict):
        raise ConfigError(f"{file}: should hold a mapping of settings, not {_kind(document.value)}")
    return document


def _prepared(value: Any, model: type[Section], folder: Path) -> Any:
    """Return a copy of `value` without empty settings and with absolute paths; what does not fit is left for validation."""
    if not isinstance(value, dict):
        return {} if value is None else value
    fields = fields_of(model)
    prepared: dict[str, Any] = {}
    for name, item in value.items():
        key = str(name)
        field = fields.get(key)
        if field is None:
            prepared[key] = item
        elif item is None:
            continue
        elif field.section is not None and field.is_list and isinstance(item, list):
            prepared[key] = [_prepared(entry, field.section, folder) if isinstance(entry, dict) else entry for entry in item]
        elif field.section is not None and not field.is_list:
            prepared[key] = _prepared(item, field.section, folder)
        elif field.is_path and isinstance(item, str):
            prepared[key] = folder / Path(item).expanduser()
        elif field.is_secret and isinstance(item, dict) and isinstance(item.get("file"), str):
            prepared[key] = item | {"file": str(folder / Path(item["file"]).expanduser())}
        elif field.is_number and isinstance(item, bool):
            # Python counts with booleans; an operator who writes one has something else in mind.
            prepared[key] = str(item).lower()
        else:
            prepared[key] = item
    return prepared


def _override(data: dict[str, Any], environ: Mapping[str, str]) -> tuple[dict[Location, str], list[str]]:
    """Write what the environment says into `data`; return which variable wrote where, and mistakes."""
    overridden: dict[Location, str] = {}
    mistakes: list[str] = []
    for name in sorted(environ):
        if not name.startswith(_PREFIX):
            continue
        location = tuple(name[len(_PREFIX) :].lower().split("__"))
        field = _field_at(location)
        if field is None:
            if len(location) > 1:
                mistakes.append(f"{name}: {'.'.join(location)} is no setting{_suggestion(location)}")
            continue
        text = environ[name]
        if not text:
            continue
        value, problem = _value_of(text, field)
        if problem:
            mistakes.append(f"{name}: {problem}")
            continue
        target: Any = data
        for step in location[:-1]:
            target = target.setdefault(step, {})
            if not isinstance(target, dict):
                break  # the file's mistake, which validation reports
        else:
            target[location[-1]] = value
            overridden[location] = name
    return overridden, mistakes


def _field_at(location: Sequence[str]) -> SettingField | None:
    model: type[Section] | None = Config
    field = None
    for step in location:
        field = fields_of(model).get(step) if model is not None else None
        if field is None:
            return None
        model = field.section if not field.is_list else None
    return field if field is not None and (field.section is None or field.is_list) else None


def _value_of(text: str, field: SettingField) -> tuple[Any, str]:
    """Return the value that a variable's text means for `field`, and what is wrong with it or an empty string."""
    if field.is_text:
        return text, ""
    if field.is_path:
        return Path.cwd() / Path(text).expanduser(), ""
    if field.is_list and not (text.startswith("[") and text.endswith("]")):
        parts = [part.strip() for part in text.split(",")]
        return (parts if field.items_are_text else [parse_document(part).value for part in parts]), ""
    document = parse_document(text)
    if document.mistakes:
        return None, document.mistakes[0][1]
    return document.value, ""


def _sentence(error: ErrorDetails, document: Document, overridden: Mapping[Location, str], options: Mapping[str, str]) -> str:
    location = tuple(step for step in error["loc"] if step != "[key]")
    path = _written(location)
    # A model that checks several fields names them itself.
    message = _expectation(error, location)
    sentence = f"{path}: {message}" if path else message
    for length in range(len(location), 0, -1):
        variable = overridden.get(location[:length])
        if variable is not None:
            return f"{options[variable]}: {message}" if variable in options else f"{variable}: {sentence}"
    return _at_line(document.line_of(location), sentence)


def _expectation(error: ErrorDetails, location: Location) -> str:
    match error["type"]:
        case "extra_forbidden":
            # Its value is not shown: a mistyped key may hold a secret.
            return f"is no setting{_suggestion([str(step) for step in location if isinstance(step, str)], last=location)}"
        case "missing":
            return "is required"
        case "value_error":
            # Ours, and they name the value themselves where it is no secret.
            return _USERINFO.sub("//***@", error["msg"].removeprefix("Value error, "))
        case "model_type" | "model_attributes_type" | "dict_type":
            expected = "should be a mapping"
        case "tuple_type" | "list_type":
            expected = "should be a list"
        case "string_type" if isinstance(error["input"], bool | int | float):
            expected = "should be text; put it in quotes"
        case "string_pattern_mismatch":
            expected = f"should fit {error['ctx']['pattern']}"
        case _:
            expected = error["msg"].replace("Input should", "should", 1).partition(", unable to")[0]
    shown = _shown(error["input"], location)
    return f"{shown} {expected}" if shown else f"the value {expected}"


def _shown(value: Any, location: Location) -> str:
    """Return `value` for a message; empty when it may hold a secret or is not one line."""
    if isinstance(value, dict | list | tuple | None):
        return _kind(value)
    if _may_hold_secret(location):
        return ""
    if isinstance(value, Path):
        value = str(value)
    if not isinstance(value, str | int | float | bool):
        return ""
    text = _USERINFO.sub("//***@", value) if isinstance(value, str) else value
    shown = repr(text) if isinstance(text, str) else str(text).lower() if isinstance(text, bool) else str(text)
    return shown if len(shown) <= MAX_SHOWN_CHARACTERS else shown[:MAX_SHOWN_CHARACTERS] + "…"


def _may_hold_secret(location: Location) -> bool:
    """Whether the setting at `location`, or one below it, is a secret; True for what the schema does not know."""
    model: type[Section] | None = Config
    field = None
    for step in location:
        if isinstance(step, int):
            continue
        if model is None:
            return field is None or field.is_secret
        field = fields_of(model).get(step)
        if field is None:
            return True
        model = field.section
    if field is None:
        return True
    return field.is_secret or (model is not None and _section_holds_secret(model))


def _section_holds_secret(model: type[Section]) -> bool:
    return any(
        field.is_secret or (field.section is not None and _section_holds_secret(field.section))
        for field in fields_of(model).values()
    )


def _suggestion(location: Sequence[str], *, last: Location = ()) -> str:
    """Return where a mistyped name may have meant to be, as the rest of a sentence."""
    model = section_of(location[:-1])
    if model is None:
        known = sorted(name for name, field in fields_of(Config).items() if field.section is not None)
        close = difflib.get_close_matches(location[0], known, n=1)
        return f"; did you mean the section {close[0]!r}?" if close else ""
    names = list(fields_of(model))
    close = difflib.get_close_matches(location[-1], names, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f" here; there are {', '.join(names)}" if last else ""


def _written(location: Location) -> str:
    """Return a location as `providers[2].name`."""
    path = ""
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path


def _kind(value: Any) -> str:
    match value:
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case None:
            return "nothing"
        case _:
            return "a single value"


def _at_line(line: int, sentence: str) -> str:
    return f"line {line}: {sentence}" if line else sentence


def _refusal(file: Path | None, mistakes: Sequence[str]) -> ConfigError:
    where = str(file) if file is not None else "configuration"
    if len(mistakes) == 1:
        if mistakes[0].startswith("--"):
            return ConfigError(mistakes[0])  # an option is no part of a file
        joint = ", " if mistakes[0].startswith("line ") else ": "
        return ConfigError(f"{where}{joint}{mistakes[0]}")
    return ConfigError(f"{where}: {len(mistakes)} mistakes\n" + "\n".join(f"  {mistake}" for mistake in mistakes))
