"""Streams flow: nothing is held back, and whatever breaks one, the record says what happened."""

import json
import ssl
import time
from collections.abc import Callable

import anthropic
import httpx
import openai
import pytest

from tests.support.clients import decrypted, message
from tests.support.daemon import Daemon, eventually
from tests.support.expectations import assert_matches, prompts_of
from tests.support.fake_provider import FakeProvider

HOST = "api.anthropic.com"
TARGET = "/v1/messages"


@pytest.mark.parametrize("coding", ["identity", "gzip", "br", "zstd"])
def test_the_client_sees_each_chunk_before_the_provider_sends_the_next(
    daemon: Daemon, provider: FakeProvider, model: str, coding: str
) -> None:
    model += f"+gate={model}+coding={coding}+events=30"
    gate = provider.gate(model.partition("+")[0])
    trust = ssl.create_default_context(cafile=str(daemon.ca_file))
    seen = b""
    with (
        httpx.Client(proxy=daemon.proxy_url(), verify=trust, timeout=20) as client,
        client.stream("POST", f"https://{HOST}{TARGET}", content=message(model, stream=True)) as response,
    ):
        for data in response.iter_bytes():
            before = seen.count(b"\n\n")
            seen += data
            # Had the proxy waited for one more piece, this loop would wait for ever: the provider waits for the gate.
            assert seen.count(b"\n\n") == before + 1 == gate.sent_pieces
            gate.release()
    assert b"message_stop" in seen
    assert_matches(daemon.record(model), provider.ledger.one(model), prompt="hello")


def test_an_sdk_sees_each_word_before_the_provider_sends_the_next(
    daemon: Daemon, provider: FakeProvider, through: Callable[[Daemon], None], model: str
) -> None:
    through(daemon)
    model += f"+gate={model}+events=20"
    gate = provider.gate(model.partition("+")[0])
    # message_start, content_block_start and ping come before the first word.
    gate.release(3)
    with anthropic.Anthropic(api_key="k", max_retries=0, timeout=20) as client:
        options = {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
        with client.messages.stream(**options) as stream:
            for number, _ in enumerate(stream.text_stream):
                assert gate.sent_pieces == 4 + number
                gate.release(1 if number < 19 else 4)
    assert_matches(daemon.record(model), provider.ledger.one(model), prompt="Hi")


def test_chunks_of_a_response_stream_are_not_held_back_either(
    daemon: Daemon, provider: FakeProvider, through: Callable[[Daemon], None], model: str
) -> None:
    through(daemon)
    model += f"+gate={model}+events=10"
    gate = provider.gate(model.partition("+")[0])
    with openai.OpenAI(api_key="k", max_retries=0, timeout=20) as client:
        for number, _ in enumerate(client.responses.create(model=model, input="Hi", stream=True)):
            assert gate.sent_pieces == number + 1
            gate.release()
    assert_matches(daemon.record(model), provider.ledger.one(model), prompt="Hi")


def test_a_chunk_of_a_request_reaches_the_provider_before_the_client_sends_the_next(
    daemon: Daemon, provider: FakeProvider, model: str
) -> None:
    body = message(model, "x" * 1000)
    with decrypted(daemon, HOST) as wire:
        wire.send(f"POST {TARGET}?pace={model} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        for start in range(0, len(body), 100):
            wire.send(body[start : start + 100])
            sent = min(start + 100, len(body))
            eventually(
                lambda sent=sent: [entry.request_bytes for entry in provider.ledger.entries(model)] == [sent], "the piece"
            )
        assert wire.read_answer().status == 200
    daemon.records(model, count=1)


def test_a_client_that_leaves_mid_stream_ends_the_request_upstream(daemon: Daemon, provider: FakeProvider, model: str) -> None:
    model += "+pause=0.02+endless=1"
    with decrypted(daemon, HOST) as wire:
        wire.request("POST", TARGET, HOST, message(model, stream=True), (("Accept-Encoding", "identity"),), read=False)
        events = wire.events(wire.read_head())
        for _ in range(10):
            next(events)
    provider.ledger.wait_for(lambda entries: any(entry.model == model and entry.end == "client_left" for entry in entries))
    record = daemon.record(model)
    assert record["outcome"] == "client_aborted"
    # What the provider said it will bill is kept: the figures of message_start.
    assert record["token_usages"][0]["input_tokens"] == provider.ledger.one(model).usage["input_tokens"]
    assert prompts_of(record) == ["hello"]


@pytest.mark.parametrize("how", ["cut", "reset"])
def test_a_provider_that_breaks_off_is_seen_as_broken_by_the_client(
    daemon: Daemon, provider: FakeProvider, model: str, how: str
) -> None:
    model += f"+{how}=6+pause=0.01"
    with decrypted(daemon, HOST) as wire:
        wire.request("POST", TARGET, HOST, message(model, stream=True), (("Accept-Encoding", "identity"),), read=False)
        head = wire.read_head()
        seen = []
        with pytest.raises((EOFError, ConnectionError)):
            seen.extend(wire.events(head))
    if how == "cut":
        assert len(seen) == 6
    record = daemon.record(model)
    assert record["outcome"] == "upstream_aborted"
    assert record["token_usages"][0]["input_tokens"] == provider.ledger.one(model).usage["input_tokens"]


def test_a_document_that_is_cut_is_recorded_as_such(daemon: Daemon, model: str) -> None:
    model += "+cut=1"
    with decrypted(daemon, HOST) as wire:
        wire.request("POST", TARGET, HOST, message(model), read=False)
        with pytest.raises((EOFError, ConnectionError)):
            wire.read_answer()
    assert daemon.record(model)["outcome"] == "upstream_aborted"


def test_a_provider_that_hangs_up_before_answering_gives_a_502(daemon: Daemon, model: str) -> None:
    script = f"{model}+reset=0+early=1"
    with decrypted(daemon, HOST) as wire:
        wire.send(f"GET /v1/models?pace={script}+framing=length HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        try:
            status = wire.read_answer().status
        except (EOFError, ConnectionError):
            status = 0
    # Either is honest: an error that says so, or the same broken connection; never a hang, never an invented success.
    assert status in {0, 502}


def test_a_broken_event_stream_arrives_whole_and_is_recorded_as_not_understood(
    daemon: Daemon, provider: FakeProvider, model: str
) -> None:
    model += "+broken=4+coding=identity"
    with decrypted(daemon, HOST) as wire:
        answer = wire.request("POST", TARGET, HOST, message(model, stream=True))
    assert answer is not None
    assert len(answer.body) == provider.ledger.one(model).response_bytes
    record = daemon.record(model)
    assert record["outcome"] == "parse_failed"
    assert prompts_of(record) == ["hello"]


def test_an_answer_in_a_wrong_coding_arrives_and_is_recorded_as_not_understood(
    daemon: Daemon, provider: FakeProvider, model: str
) -> None:
    model += "+coding=unheard-of"
    with decrypted(daemon, HOST) as wire:
        answer = wire.request("POST", TARGET, HOST, message(model, stream=True))
    assert answer is not None
    assert len(answer.body) == provider.ledger.one(model).response_bytes
    assert daemon.record(model)["outcome"] == "parse_failed"


def test_an_event_of_20_mb_arrives_whole(daemon: Daemon, provider: FakeProvider, model: str) -> None:
    model += "+huge=4+coding=identity"
    with decrypted(daemon, HOST) as wire:
        answer = wire.request("POST", TARGET, HOST, message(model, stream=True))
    assert answer is not None
    assert len(answer.body) == provider.ledger.one(model).response_bytes > 20 << 20
    # The limit for one event is 16 MiB: what is larger is forwarded but not read.
    assert daemon.record(model)["outcome"] == "parse_failed"


def test_many_events_in_one_write_are_each_counted(daemon: Daemon, provider: FakeProvider, model: str) -> None:
    model += "+events=2000+framing=length"
    with decrypted(daemon, HOST) as wire:
        answer = wire.request("POST", TARGET, HOST, message(model, stream=True))
    assert answer is not None
    assert_matches(daemon.record(model), provider.ledger.one(model), prompt="hello")


def test_a_silent_provider_keeps_the_stream_open(daemon: Daemon, provider: FakeProvider, model: str) -> None:
    model += "+stall=3"
    with decrypted(daemon, HOST) as wire:
        wire.request("POST", TARGET, HOST, message(model, stream=True), (("Accept-Encoding", "identity"),), read=False)
        events = wire.events(wire.read_head())
        first = [next(events) for _ in range(3)]
        assert json.loads(first[0].partition(b"data: ")[2])["type"] == "message_start"
        wire.socket.settimeout(1.0)
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            next(events)
        assert time.monotonic() - started >= 1.0
    assert daemon.record(model)["outcome"] == "client_aborted"


def test_a_response_without_usage_says_so(daemon: Daemon, model: str) -> None:
    model += "+silent_usage=1"
    with decrypted(daemon, HOST) as wire:
        wire.request("POST", TARGET, HOST, message(model, stream=True))
    record = daemon.record(model)
    assert record["outcome"] == "completed"
    assert record["usage_source"] in {"estimated", "none"}


def test_a_request_that_is_no_json_is_forwarded_and_recorded(daemon: Daemon, provider: FakeProvider, model: str) -> None:
    body = b"\x00\xff not json " + model.encode()
    with decrypted(daemon, HOST) as wire:
        answer = wire.request("POST", f"{TARGET}?pace={model}+status=400", HOST, body)
    assert answer is not None
    assert answer.status == 400
    assert provider.ledger.one(model).request_bytes == len(body)
    eventually(
        lambda: [
            record for record in daemon.stored() if record["model"] not in model and record["outcome"] == "upstream_error"
        ],
        "it",
    )
