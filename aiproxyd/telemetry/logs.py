"""Sets up what a process says on standard error: one line a statement, for people or as JSON. Knows nothing of observations.

Facts about a line, whatever was logged:

* It is one line. Text of a client cannot forge a second one: control characters are escaped, also those that terminals obey, and
  the lines of a traceback are marked as such.
* It holds no secret that can be told from its key, its form or because it was registered. A last resort: code that holds a
  secret does not log it.
* Writing it never raises. A daemon whose standard error is gone goes on.

Libraries log through the standard library; theirs is shown from warning upwards, in the same form.
"""

import datetime as dt
import json
import logging
import re
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, TextIO

import structlog
from structlog.typing import Processor

from aiproxyd.redaction import HIDDEN, Secrets

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

# `input_tokens` is no secret, `token` is; `credential_hint` is masked already, `credential` is not.
_SECRET_KEY = re.compile(
    r"(?:^|[_.-])(?:authorization|cookie|credentials?|passwd|password|secret|token|(?:api|access|private|secret)[_-]?key|apikey)\Z",
    re.IGNORECASE,
)

# C0 and C1 controls and DEL, the separators some programs break lines at, and the marks that reorder text.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_UNSAFE_BUT_NEWLINE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_BARE_VALUE = re.compile(r"[^\s\"'=]+\Z")

_COLORS = {"debug": "\x1b[2m", "warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31;1m"}
_COLOR_END = "\x1b[0m"

_HANDLER_NAME = "aiproxyd"


secrets = Secrets()
"""Those of this process."""


def configure_logging(
    format: str = "auto",  # noqa: A002  (the configuration's word)
    level: str = "info",
    *,
    stream: TextIO | None = None,
    facts: Mapping[str, object] | None = None,
) -> None:
    """Say what is logged on `stream` from here on, in this form. May be called again, such as after a reload.

    Args:
        format: `human`, `json`, or `auto`: `human` on a terminal and `json` elsewhere.
        level: The least severe level that is written: `debug`, `info`, `warning` or `error`.
        stream: Where to; standard error when absent.
        facts: Keys for every line, such as the worker's id.

    Raises:
        KeyError: `level` is none of these.
    """
    stream = sys.stderr if stream is None else stream
    number = _LEVELS[level]
    terminal = stream.isatty()
    human = format == "human" or (format == "auto" and terminal)
    fixed = dict(facts or {})

    def add_facts(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {**fixed, **event}

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        add_facts,
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        hide_secrets,
        _add_time,
    ]
    render: Processor = Human(color=terminal) if human else _as_json
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=_LineLoggerFactory(stream),
        # Loggers are module constants and outlive a change of the level.
        cache_logger_on_first_use=False,
    )
    _route_standard_logging(stream, max(number, logging.WARNING), shared, render)
    # The addons speak as mitmproxy's do, and are ours all the same.
    logging.getLogger("aiproxyd").setLevel(number)


def _route_standard_logging(stream: TextIO, level: int, shared: list[Processor], render: Processor) -> None:
    """Give the root logger one handler that says it as ours."""
    handler = _LineHandler(stream)
    handler.set_name(_HANDLER_NAME)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *shared, render],
        )
    )
    root = logging.getLogger()
    for old in [old for old in root.handlers if old.get_name() == _HANDLER_NAME]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    # A record that cannot be formatted is lost; its traceback would go around all of the above.
    logging.raiseExceptions = False
    logging.captureWarnings(capture=True)


class _LineLogger:
    """What structlog's wrapper calls with the finished line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        write_line(self._stream, line)

    debug = info = warning = warn = error = critical = fatal = exception = log = msg


class _LineLoggerFactory:
    def __init__(self, stream: TextIO) -> None:
        self._logger = _LineLogger(stream)

    def __call__(self, *_args: object) -> _LineLogger:
        return self._logger


class _LineHandler(logging.Handler):
    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except (TypeError, ValueError, LookupError, AttributeError):
            # The library's format does not fit its arguments; its caller must not fail for that.
            line = f"a record of {record.name!r} could not be formatted"
        write_line(self._stream, line)


def write_line(stream: TextIO, line: str) -> None:
    """Write a line on `stream`, if there is still somebody there."""
    # One write, so that lines of several processes on one pipe stay apart.
    try:
        try:
            stream.write(line + "\n")
        except UnicodeEncodeError:
            stream.write(line.encode("ascii", "backslashreplace").decode() + "\n")
        stream.flush()
    except (OSError, ValueError):
        # Closed or full: there is nowhere left to say so.
        pass


def hide_secrets(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Return `event` with every secret replaced, in keys of any depth."""
    return {key: _without_secrets(key, value) for key, value in event.items()}


def _without_secrets(key: object, value: Any) -> Any:
    if isinstance(key, str) and value and _SECRET_KEY.search(key):
        return HIDDEN
    if isinstance(value, str):
        return secrets.hide(value)
    if isinstance(value, bool | int | float | None):
        return value
    if isinstance(value, Mapping):
        return {str(name): _without_secrets(name, part) for name, part in value.items()}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, bytes | bytearray | memoryview):
        return [_without_secrets("", part) for part in value]
    return secrets.hide(repr(value) if isinstance(value, bytes | bytearray) else str(value))


def _add_time(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Put time, level and message first, under the names every line has."""
    at = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
    message, level = event.pop("event", ""), event.pop("level", "info")
    named: dict[str, Any] = {"time": at, "level": level, "message": str(message)}
    for key, value in event.items():
        named[f"{key}_" if key in named else key] = value
    return named


def _as_json(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    return json.dumps(event, default=str, separators=(",", ":"))


class Human:
    """Renders a line for people: time, level, message, then `key=value`."""

    def __init__(self, *, color: bool = False) -> None:
        self._color = color

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
        at, level, message = event.pop("time"), event.pop("level"), event.pop("message")
        traceback = [event.pop(key, "") for key in ("exception", "stack")]
        parts = [f"{at} {level:<7} {escape(message)}"]
        parts.extend(f"{escape(str(key))}={_value_text(value)}" for key, value in event.items())
        line = " ".join(parts)
        if self._color and level in _COLORS:
            line = f"{_COLORS[level]}{line}{_COLOR_END}"
        for text in traceback:
            if text:
                # Marked, so that an exception's message with line breaks in it cannot pass for a statement.
                marked = _UNSAFE_BUT_NEWLINE.sub(_escaped, str(text))
                line += "".join(f"\n  | {part}" for part in marked.split("\n"))
        return line


def _value_text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    safe = escape(text)
    return safe if _BARE_VALUE.match(safe) or not isinstance(value, str) else '"' + safe.replace('"', '\\"') + '"'


def escape(text: str) -> str:
    """Return `text` with every character that could break, rewrite or reorder a line as a backslash escape."""
    return _UNSAFE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(match[0]) or (
        f"\\x{ord(match[0]):02x}" if ord(match[0]) < 256 else f"\\u{ord(match[0]):04x}"
    )
