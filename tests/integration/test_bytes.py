"""The bytes are not ours: what a client sends and what a provider sends arrive as they were, however they are cut and coded."""

import hashlib
import itertools

import pytest

from tests.support.clients import Wire, decrypted, message
from tests.support.coding import CODINGS, encode
from tests.support.daemon import Daemon
from tests.support.expectations import assert_matches
from tests.support.fake_provider import FakeProvider

HOST = "api.anthropic.com"
TARGET = "/v1/messages?beta=true"

# What a client may send of its own that nobody between may touch.
ODD_FIELDS = (
    ("x-API-key", "sk-ant-odd"),
    ("X-Twice", "1"),
    ("X-Twice", "2"),
    ("X-Empty", ""),
    ("accept-ENCODING", "identity"),
    ("Cookie", "a=1; b=2"),
)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
@pytest.mark.parametrize("coding", CODINGS)
def test_every_coding_and_framing_arrives_as_sent_both_ways(
    daemon: Daemon, provider: FakeProvider, model: str, coding: str, framing: str
) -> None:
    model += f"+coding={coding}+framing={framing}+length=3000"
    question = encode(coding, message(model, "Ünïcode 🦊", stream=True))
    fields = (("Content-Encoding", coding),) if coding != "identity" else ()
    with decrypted(daemon, HOST) as wire:
        answer = wire.request("POST", TARGET, HOST, question, fields)
    assert answer is not None
    entry = provider.ledger.one(model)
    assert entry.request_sha256 == sha256(question)
    assert sha256(answer.body) == entry.response_sha256
    assert_matches(daemon.record(model), entry, prompt="Ünïcode 🦊")


@pytest.mark.parametrize("split", [1, 7, 1000])
@pytest.mark.parametrize("coding", ["identity", "gzip", "zstd"])
def test_any_split_of_writes_and_chunks_gives_the_same_bytes_and_the_same_record(
    daemon: Daemon, provider: FakeProvider, model: str, coding: str, split: int
) -> None:
    model += f"+coding={coding}+split={split}+chunk={split}+tools=1"
    tool = {"name": "get_weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
    question = encode(coding, message(model, "Hi", stream=True, tools=[tool]))
    chunks = [question[start : start + split] for start in range(0, len(question), split)]
    fields = (("Content-Encoding", coding),) if coding != "identity" else ()
    with decrypted(daemon, HOST) as wire:
        answer = wire.request("POST", TARGET, HOST, chunks, fields)
    assert answer is not None
    entry = provider.ledger.one(model)
    assert entry.request_sha256 == sha256(question)
    assert sha256(answer.body) == entry.response_sha256
    assert_matches(daemon.record(model), entry, prompt="Hi")


def test_heads_arrive_with_their_fields_in_order(daemon: Daemon, provider: FakeProvider, model: str) -> None:
    body = message(model)
    with decrypted(daemon, HOST) as wire:
        answer = wire.request("POST", TARGET, HOST, body, ODD_FIELDS)
    assert answer is not None
    entry = provider.ledger.one(model)
    assert entry.headers == [("Host", HOST), *ODD_FIELDS, ("Content-Length", str(len(body)))]
    sent = entry.response_head.split(b"\r\n")
    got = answer.head.split(b"\r\n")
    assert [line.partition(b":")[0] for line in got] == [line.partition(b":")[0] for line in sent]
    assert [line.partition(b":")[2].strip() for line in got] == [line.partition(b":")[2].strip() for line in sent]
    assert answer.header("x-odd-case") == "kept  as it is"


def test_the_relay_changes_no_byte_of_a_head(relay_daemon: Daemon, provider: FakeProvider, model: str) -> None:
    body = message(model)
    head = f"POST {TARGET} HTTP/1.1\r\nhOST:{HOST}\r\nX-Tight:1\r\nX-Wide:   2  \r\ncontent-length: {len(body)}".encode()
    with decrypted(relay_daemon, HOST) as wire:
        wire.send(head + b"\r\n\r\n" + body)
        answer = wire.read_answer()
    entry = provider.ledger.one(model)
    assert entry.head == head
    assert answer.head == entry.response_head


def test_a_chunked_answer_keeps_its_chunks_in_the_relay(relay_daemon: Daemon, model: str) -> None:
    model += "+coding=identity+chunk=10"
    with decrypted(relay_daemon, HOST) as wire:
        answer = wire.request("POST", TARGET, HOST, message(model, stream=True))
    assert answer is not None
    assert max(answer.chunks) == 10


def test_trailers_arrive(daemon: Daemon, provider: FakeProvider, model: str) -> None:
    model += "+trailers=3"
    with decrypted(daemon, HOST) as wire:
        answer = wire.request("POST", TARGET, HOST, message(model, stream=True))
    assert answer is not None
    assert answer.trailers == b"".join(f"X-Trailer-{number}: value {number}\r\n".encode() for number in range(3))
    assert_matches(daemon.record(model), provider.ledger.one(model), prompt="hello")


def test_early_hints_arrive_before_the_answer(daemon: Daemon, provider: FakeProvider, model: str) -> None:
    model += "+informational=2"
    with decrypted(daemon, HOST) as wire:
        answer = wire.request("POST", TARGET, HOST, message(model))
    assert answer is not None
    assert answer.status == 200
    assert_matches(daemon.record(model), provider.ledger.one(model), prompt="hello")


def test_an_answer_before_the_end_of_the_request_arrives(daemon: Daemon, provider: FakeProvider, model: str) -> None:
    script = f"{model}+early=1+status=429+framing=length"
    with decrypted(daemon, HOST) as wire:
        wire.send(f"POST {TARGET}&pace={script} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 2000000\r\n\r\n".encode())
        wire.send(b"x" * 100)
        answer = wire.read_answer()
        assert answer.status == 429
        provider.ledger.wait_for(lambda entries: any(entry.script == script and entry.end == "complete" for entry in entries))


def test_pipelined_requests_are_answered_in_order(relay_daemon: Daemon, provider: FakeProvider, model: str) -> None:
    bodies = [message(f"{model}-{number}", stream=number % 2 == 0) for number in range(5)]
    with decrypted(relay_daemon, HOST) as wire:
        wire.send(
            b"".join(
                f"POST {TARGET} HTTP/1.1\r\nHost: {HOST}\r\nAccept-Encoding: identity\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                + body
                for body in bodies
            )
        )
        answers = [wire.read_answer() for _ in bodies]
    entries = provider.ledger.entries(model)
    assert [sha256(answer.body) for answer in answers] == [entry.response_sha256 for entry in entries]
    records = relay_daemon.records(model, count=5)
    for record, entry in zip(records, entries, strict=True):
        assert_matches(record, entry, prompt="hello")


def test_requests_of_different_kinds_follow_each_other_on_one_connection(
    daemon: Daemon, provider: FakeProvider, model: str
) -> None:
    names = []
    with decrypted(daemon, HOST) as wire:
        for number, (framing, coding) in enumerate(itertools.product(["chunked", "length"], ["identity", "br"])):
            names.append(f"{model}-{number}+framing={framing}+coding={coding}")
            answer = wire.request("POST", TARGET, HOST, message(names[-1], stream=number % 2 == 1))
            assert answer is not None
            assert sha256(answer.body) == provider.ledger.one(names[-1]).response_sha256
            head = wire.request("GET", "/v1/models", HOST)
            assert head is not None
            assert head.status == 200
    assert len({entry.connection for entry in provider.ledger.entries(model)}) == 1
    daemon.records(model, count=4)


def test_hop_by_hop_fields_of_the_proxy_never_reach_a_provider(daemon: Daemon, provider: FakeProvider, model: str) -> None:
    fields = (("Proxy-Authorization", "Basic c2VjcmV0"), ("Proxy-Connection", "keep-alive"), ("X-Kept", "1"))
    with decrypted(daemon, HOST) as wire:
        answer = wire.request("POST", TARGET, HOST, message(model), fields)
    assert answer is not None
    assert answer.status == 200
    entry = provider.ledger.one(model)
    assert entry.header("proxy-authorization") == ""
    assert entry.header("proxy-connection") == ""
    assert entry.header("x-kept") == "1"


def test_tls_with_the_provider_names_the_host_the_client_asked_for(daemon: Daemon, provider: FakeProvider, model: str) -> None:
    with decrypted(daemon, "api.openai.com") as wire:
        wire.request("POST", "/v1/chat/completions", "api.openai.com", message(model))
    assert provider.ledger.one(model).sni == "api.openai.com"


def test_a_request_cut_by_the_client_reaches_the_provider_as_cut(daemon: Daemon, provider: FakeProvider, model: str) -> None:
    script = f"{model}+x"
    with Wire(daemon) as wire:
        wire.connect(f"{HOST}:443")
        wire.start_tls(HOST, daemon.ca_file)
        wire.send(f"POST {TARGET}&pace={script} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 2000\r\n\r\nx".encode())
        provider.ledger.wait_for(lambda entries: any(entry.script == script for entry in entries))
    provider.ledger.wait_for(lambda entries: any(entry.script == script and entry.end == "client_left" for entry in entries))
