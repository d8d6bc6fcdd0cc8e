"""Whoever ends a stream early, the usage that was reported stays, and the record says that it is not all of it."""

import contextlib

import pytest

from tests.support.clients import Wire, message
from tests.support.daemon import Daemon, eventually
from tests.support.fake_provider import FakeProvider

HOST = "api.anthropic.com"


@pytest.mark.parametrize(
    ("ending", "outcome"),
    [
        ("the client leaves", "client_aborted"),
        ("the provider resets", "upstream_aborted"),
        ("the daemon stops", "interrupted"),
        ("the worker dies", "interrupted"),
    ],
)
def test_an_abandoned_stream_keeps_the_usage_already_reported_and_says_so(
    own_daemon, provider: FakeProvider, model: str, engine: str, ending: str, outcome: str
) -> None:
    daemon: Daemon = own_daemon(config={"decrypt": {"engine": engine}, "drain_timeout_seconds": 1})
    model += "+reset=4" if ending == "the provider resets" else "+stall=4"
    with Wire(daemon) as wire:
        wire.connect(f"{HOST}:443")
        wire.start_tls(HOST, daemon.ca_file)
        body = message(model, stream=True)
        wire.request("POST", "/v1/messages", HOST, body, (("Accept-Encoding", "identity"),), read=False)
        events = wire.events(wire.read_head())
        next(events)
        eventually(lambda: [row for row in daemon.stored(model) if row["token_usages"]], "the first figures")
        if ending == "the daemon stops":
            daemon.stop()
        elif ending == "the worker dies":
            daemon.kill_worker()
        if ending != "the client leaves":
            with contextlib.suppress(OSError, EOFError):
                list(events)
    record = daemon.record(model)
    assert (record["outcome"], record["usage_source"]) == (outcome, "reported")
    (tokens,) = record["token_usages"]
    true = provider.ledger.one(model).usage
    for name in ("input_tokens", "cache_read_input_tokens", "cache_write_input_tokens"):
        assert tokens[name] == true[name], name
    # The figures at the start of the stream are those of its first token.
    assert 0 < tokens["output_tokens"] < true["output_tokens"]
    assert tokens["metadata"]["usage"] == "partial"
