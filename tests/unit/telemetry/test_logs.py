import datetime as dt
import io
import json
import logging
import warnings

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.telemetry.logs import HIDDEN, Human, configure_logging, escape, hide_secrets, secrets
from tests.support.certificates import pem


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def _leave_logging_as_it_was():
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    ours = logging.getLogger("aiproxyd").level
    yield
    logging.getLogger("aiproxyd").setLevel(ours)
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raising
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    secrets.replace(())


@pytest.fixture
def stream():
    return io.StringIO()


log = structlog.get_logger("aiproxyd.test")


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_of_json_has_time_level_and_message_first(stream):
    configure_logging("json", stream=stream)
    log.info("worker started", pid=7, hosts=("a", "b"))
    (line,) = lines(stream)
    assert list(line)[:3] == ["time", "level", "message"]
    assert (line["level"], line["message"], line["pid"], line["hosts"]) == ("info", "worker started", 7, ["a", "b"])
    at = dt.datetime.fromisoformat(line["time"])
    assert at.utcoffset() == dt.timedelta(0)
    assert abs(dt.datetime.now(dt.UTC) - at) < dt.timedelta(minutes=1)


def test_a_line_for_people_reads_like_a_sentence_with_facts(stream):
    configure_logging("human", stream=stream)
    log.warning("a provider is not in use", provider="openai", reason="two of them", count=2)
    text = stream.getvalue()
    assert text.partition(" ")[2] == 'warning a provider is not in use provider=openai reason="two of them" count=2\n'


def test_less_severe_than_the_level_is_not_written_and_a_reload_changes_it(stream):
    configure_logging("json", "warning", stream=stream)
    log.info("quiet")
    log.warning("loud")
    configure_logging("json", "debug", stream=stream)
    log.debug("quiet too")
    assert [line["message"] for line in lines(stream)] == ["loud", "quiet too"]


@pytest.mark.parametrize(("stream", "is_json"), [(io.StringIO(), True), (Terminal(), False)])
def test_auto_is_for_people_on_a_terminal_and_json_elsewhere(stream, is_json):
    configure_logging("auto", stream=stream)
    log.info("hello")
    assert stream.getvalue().startswith("{") is is_json


def test_a_terminal_shows_severity_in_colour(stream):
    terminal = Terminal()
    configure_logging("human", stream=terminal)
    log.error("bad")
    assert terminal.getvalue().startswith("\x1b[31m")
    configure_logging("human", stream=stream)
    log.error("bad")
    assert "\x1b" not in stream.getvalue()


def test_an_unknown_level_is_refused():
    with pytest.raises(KeyError):
        configure_logging("json", "loud")


def test_facts_of_the_process_and_of_the_task_are_on_every_line(stream):
    configure_logging("json", stream=stream, facts={"worker_id": "w1"})
    with structlog.contextvars.bound_contextvars(connection_id="c1"):
        log.info("one")
        logging.getLogger("library").warning("two")
    assert [(line["worker_id"], line["connection_id"]) for line in lines(stream)] == [("w1", "c1")] * 2


def test_a_key_that_is_taken_does_not_replace_the_lines_own(stream):
    configure_logging("json", stream=stream)
    log.info("the message", message="mine", time="noon")
    (line,) = lines(stream)
    assert (line["message"], line["message_"], line["time_"]) == ("the message", "mine", "noon")


# Libraries.


def test_libraries_are_heard_from_warning_upwards_and_only_once(stream):
    configure_logging("json", "debug", stream=stream)
    configure_logging("json", "debug", stream=stream)
    for name in ("uvicorn.error", "mitmproxy", "alembic", "sqlalchemy.engine"):
        logging.getLogger(name).info("chatter")
        logging.getLogger(name).warning("%s of %s", "trouble", name)
    assert [(line["logger"], line["level"], line["message"]) for line in lines(stream)] == [
        (name, "warning", f"trouble of {name}") for name in ("uvicorn.error", "mitmproxy", "alembic", "sqlalchemy.engine")
    ]


def test_our_own_modules_that_speak_as_libraries_do_are_heard_from_our_level_upwards(stream):
    configure_logging("json", stream=stream)
    logging.getLogger("aiproxyd.mitm.refusals").info("refused %s", "somebody")
    logging.getLogger("aiproxyd.mitm.refusals").debug("too much")
    logging.getLogger("library").info("too much")
    assert [line["message"] for line in lines(stream)] == ["refused somebody"]


def test_with_a_higher_level_of_ours_libraries_follow(stream):
    configure_logging("json", "error", stream=stream)
    logging.getLogger("library").warning("w")
    logging.getLogger("library").error("e")
    assert [line["message"] for line in lines(stream)] == ["e"]


def test_warnings_are_lines_too(stream):
    configure_logging("json", stream=stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old thing", DeprecationWarning, stacklevel=1)
    assert "old thing" in lines(stream)[0]["message"]


def test_a_record_whose_arguments_do_not_fit_breaks_nobody(stream):
    configure_logging("json", stream=stream)
    logging.getLogger("library").warning("%d", "seven")
    assert "library" in stream.getvalue()


# Secrets.


@pytest.mark.parametrize(
    "key",
    ["authorization", "Proxy-Authorization", "cookie", "set-cookie", "token", "admin_token", "password", "x-api-key", "api_key",
     "x-goog-api-key", "client_secret", "private_key", "credential", "credentials"],
)  # fmt: skip
def test_a_key_that_means_a_secret_hides_its_value_in_any_depth(key):
    event = hide_secrets(None, "", {"event": "x", key: "hunter2", "headers": {key: ["hunter2"]}, "list": [{key: "hunter2"}]})
    assert "hunter2" not in repr(event)
    assert event[key] == HIDDEN


@pytest.mark.parametrize(
    "key",
    ["input_tokens", "token_type", "credential_kind", "credential_hint", "api_key_id", "key", "key_file", "monkey", "author"],
)
def test_a_key_that_only_sounds_like_a_secret_keeps_its_value(key):
    assert hide_secrets(None, "", {key: "value"}) == {key: "value"}


def test_an_absent_secret_is_shown_as_absent():
    assert hide_secrets(None, "", {"token": None, "password": ""}) == {"token": None, "password": ""}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer [hidden]"),
        ("Proxy-Authorization: Basic dXNlcjpwYXNz", "Proxy-Authorization: Basic [hidden]"),
        ("key sk-ant-api03-abcdefghijklmnopqrst is bad", "key [hidden] is bad"),
        ("sk-proj-abcdefghijklmnopqrst", "[hidden]"),
        ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", "[hidden]"),
        ("AIzaSyA1234567890abcdefghijklmnopqrstuv", "[hidden]"),
        ("AKIA" + "IOSFODNN7EXAMPLE", "[hidden]"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVP", "[hidden]"),
        ("postgresql://user:pass@db/aiproxyd", "postgresql://[hidden]@db/aiproxyd"),
        ("http://:pass@proxy:3128", "http://[hidden]@proxy:3128"),
        (pem("EC PRIVATE KEY", "MHcC").decode() + "rest", "[hidden]\nrest"),
        (pem("PRIVATE KEY", "MHcC").decode().partition("\n-----END")[0], "[hidden]"),
        ("a task of risk-management is sk-short", "a task of risk-management is sk-short"),
        ("http://127.0.0.1:8888/path@x", "http://127.0.0.1:8888/path@x"),
        ("Basic setup", "Basic setup"),
    ],
)
def test_what_has_the_form_of_a_secret_is_hidden_wherever_it_stands(text, shown):
    assert hide_secrets(None, "", {"event": text}) == {"event": shown}


def test_a_registered_secret_is_hidden_in_message_values_tracebacks_and_libraries_lines(stream):
    secrets.replace(["open sesame", "short"])
    secrets.add("open sesame and more")
    configure_logging("json", stream=stream)
    log.info("say open sesame", word="open sesame and more", short="short")
    logging.getLogger("library").warning("said %s", "open sesame")
    try:
        raise ValueError("open sesame")
    except ValueError:
        log.exception("failed")
    assert "sesame" not in stream.getvalue()
    assert "and more" not in stream.getvalue()
    assert lines(stream)[0]["short"] == "short"


def test_bytes_and_objects_are_text_before_secrets_are_looked_for():
    class Thing:
        def __str__(self):
            return "Bearer abcdefgh"

    event = hide_secrets(None, "", {"a": b"Bearer abcdefgh", "b": Thing(), "c": {"Bearer abcdefgh"}})
    assert "abcdefgh" not in repr(event)


# Injection.


@pytest.mark.parametrize("format_", ["human", "json"])
@pytest.mark.parametrize("breaker", ["\n", "\r\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029", "\x1c"])
def test_a_client_cannot_forge_a_line(stream, format_, breaker):
    """The attack: a user agent that holds a line break and a line of its own."""
    configure_logging(format_, stream=stream)
    text = f"request{breaker}2026 error forged"
    log.info(text, **{f"user agent{breaker}": text, "list": [text]})
    assert stream.getvalue().endswith("\n")
    assert len(stream.getvalue().splitlines()) == 1


def test_a_client_cannot_command_the_terminal(stream):
    """The attack: a host name with escape sequences that clear the screen, and marks that turn text around."""
    configure_logging("human", stream=stream)
    log.info("refused \x1b[2J", host="\x9b2J\u202eevil\x07\x00")
    assert all(character.isprintable() for character in stream.getvalue().removesuffix("\n"))
    assert r"\x1b[2J" in stream.getvalue()
    assert r"\u202e" in stream.getvalue()


def test_the_lines_of_a_traceback_are_marked(stream):
    configure_logging("human", stream=stream)
    try:
        raise ValueError("bad\n2026-01-01T00:00:00Z error   forged\x1b[2J")
    except ValueError:
        log.exception("failed")
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("error   failed")
    assert all(line.startswith("  | ") for line in rest)
    assert "\x1b" not in stream.getvalue()


def test_a_value_with_quotes_or_blanks_cannot_pass_for_another_key(stream):
    configure_logging("human", stream=stream)
    log.info("x", host='a" admin="yes', other="a b=c")
    assert stream.getvalue().endswith(r'host="a\" admin=\"yes" other="a b=c"' + "\n")


@given(st.text())
def test_what_is_escaped_is_one_printable_line(text):
    assert len(escape(text + "x").splitlines()) == 1
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in escape(text))


def test_ordinary_text_of_any_language_is_left_alone():
    assert escape("Grüße, 世界 ok") == "Grüße, 世界 ok"


# Writing.


class Gone(io.StringIO):
    def write(self, text):
        raise BrokenPipeError


@pytest.mark.parametrize("make", [Gone, lambda: closed()])
def test_a_standard_error_that_is_gone_breaks_nobody(make):
    configure_logging("json", stream=make())
    log.error("nobody hears")
    logging.getLogger("library").error("nobody hears")


def closed():
    stream = io.StringIO()
    stream.isatty = lambda: False
    stream.close()
    return stream


def test_text_that_cannot_be_encoded_is_shown_by_its_code_points():
    raw = io.BytesIO()
    configure_logging("human", stream=io.TextIOWrapper(raw, encoding="ascii"))
    log.error("Grüße \ud800")
    assert raw.getvalue().endswith(rb"Gr\xfc\xdfe \ud800" + b"\n")


def test_a_line_is_one_write():
    class Writes(io.StringIO):
        def __init__(self):
            super().__init__()
            self.writes = []

        def write(self, text):
            self.writes.append(text)
            return len(text)

    stream = Writes()
    configure_logging("human", stream=stream)
    try:
        raise ValueError("x")
    except ValueError:
        log.exception("failed")
    assert len(stream.writes) == 1


def test_what_people_see_of_lists_and_maps_is_json():
    text = Human()(
        None, "", {"time": "t", "level": "info", "message": "m", "a": [1, "x"], "b": {"c": None}, "d": True, "e": ""}
    )
    assert text == 't info    m a=[1, "x"] b={"c": null} d=true e=""'
