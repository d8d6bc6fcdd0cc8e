"""What is looked at together, when, and that nothing which ends a stream waits for it."""

import asyncio
import gc
import socket
import weakref

import pytest

from aiproxyd.mitm.deadlines import Deadline, Deadlines
from aiproxyd.mitm.decrypted import AbortedBy
from aiproxyd.mitm.gathering import MAX_PIECE_BYTES, MAX_PIECES, Gathering
from aiproxyd.model.observation import UnknownEventsSeen
from tests.unit.mitm.bare import Bare, hear, say
from tests.unit.mitm.stage import Memory, SeeingTap, SeenRequest, until

LOOPS = "both"

GET = b"GET /v1/models HTTP/1.1\r\nHost: api.anthropic.com\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked"
HEAD = b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"\r\n\r\n"
EVENT = b"5\r\nhello\r\n"
LAST = b"0\r\n\r\n"


@pytest.fixture
async def deadlines():
    running = Deadlines(tick_seconds=0.01)
    yield running
    running.close()


@pytest.fixture
def patience(monkeypatch):
    """What is gathered waits for longer than a test takes."""
    monkeypatch.setattr("aiproxyd.mitm.gathering.MAX_WAIT_SECONDS", 3600.0)


# What is gathered


async def test_so_many_pieces_are_looked_at_together(deadlines, patience):
    looks = []
    gathering = Gathering(deadlines, looks.append)
    for number in range(2 * MAX_PIECES + 1):
        gathering.add(b"%d " % number)
    numbers = [b"%d " % number for number in range(2 * MAX_PIECES)]
    assert looks == [b"".join(numbers[:MAX_PIECES]), b"".join(numbers[MAX_PIECES:])]


async def test_a_large_piece_is_looked_at_when_it_comes_with_what_waited_before_it(deadlines, patience):
    looks = []
    gathering = Gathering(deadlines, looks.append)
    gathering.add(b"small ")
    gathering.add(b"l" * MAX_PIECE_BYTES)
    assert looks == []
    gathering.add(b"L" * (MAX_PIECE_BYTES + 1))
    assert looks == [b"small " + b"l" * MAX_PIECE_BYTES + b"L" * (MAX_PIECE_BYTES + 1)]


async def test_a_look_takes_what_waited_first_and_is_none_when_there_is_nothing(deadlines, patience):
    looks = []
    gathering = Gathering(deadlines, looks.append)
    gathering.look()
    gathering.add(b"1 ")
    gathering.add(b"2 ")
    gathering.append(b"3 ")
    gathering.look()
    gathering.look()
    gathering.append(b"4 ")
    gathering.look()
    assert looks == [b"1 2 3 ", b"4 "]


async def test_what_waits_is_looked_at_after_a_while_each_time(deadlines, monkeypatch):
    monkeypatch.setattr("aiproxyd.mitm.gathering.MAX_WAIT_SECONDS", 0.02)
    looks = []
    gathering = Gathering(deadlines, looks.append)
    for number in range(3):
        gathering.add(b"%d" % number)
        await until(lambda number=number: len(looks) > number)
    assert looks == [b"0", b"1", b"2"]


async def test_who_looks_often_is_not_asked_to_look_besides(deadlines, patience, monkeypatch):
    started: list[Deadline] = []
    start = deadlines.start

    def kept(seconds, callback):
        started.append(start(seconds, callback))
        return started[-1]

    monkeypatch.setattr(deadlines, "start", kept)
    gathering = Gathering(deadlines, lambda _data: None)
    gathering.add(b"first")
    deadlines.now += 5
    for _ in range(MAX_PIECES):
        gathering.add(b"more")
    assert [deadline.touched for deadline in started] == [deadlines.now]


async def test_what_is_closed_never_looks(deadlines, monkeypatch):
    monkeypatch.setattr("aiproxyd.mitm.gathering.MAX_WAIT_SECONDS", 0.01)
    looks = []
    gathering = Gathering(deadlines, looks.append)
    gathering.add(b"forgotten")
    gathering.close()
    passed = asyncio.Event()
    deadlines.start(0.03, passed.set)
    await passed.wait()
    gathering.look()
    assert looks == []


# A relay that gathers


async def streaming(
    tap: SeeingTap, memory: Memory, deadlines: Deadlines, head: bytes = HEAD, *, requests: int = 1
) -> tuple[Bare, SeenRequest]:
    """A relay with an answer under way."""
    bare = Bare(tap, memory, deadlines)
    await say(bare.client, [GET * requests])
    assert await hear(bare.upstream, len(GET) * requests) == GET * requests
    await event(bare, head)
    return bare, tap.requests[0]


async def event(bare: Bare, wire: bytes = EVENT) -> None:
    await say(bare.upstream, [wire])
    assert await hear(bare.client, len(wire)) == wire


async def test_events_arrive_one_by_one_and_are_looked_at_together(deadlines, patience):
    bare, seen = await streaming(SeeingTap(is_midstream=True), Memory(), deadlines)
    for _ in range(MAX_PIECES - 1):
        await event(bare)
    assert seen.response == b""
    await event(bare)
    assert seen.response == b"hello" * MAX_PIECES
    bare.close()


async def test_before_the_first_output_each_is_looked_at(deadlines, patience):
    bare, seen = await streaming(SeeingTap(), Memory(), deadlines)
    await event(bare)
    assert seen.response == b"hello"
    seen.is_midstream = True
    for _ in range(2):
        await event(bare)
        assert seen.response == b"hellohello"
    bare.close()


@pytest.mark.parametrize("last", [LAST, EVENT + LAST, b"0\r\nX-Sum: 1\r\n\r\n"])
async def test_the_end_of_an_answer_is_seen_when_it_comes(deadlines, patience, last):
    bare, seen = await streaming(SeeingTap(is_midstream=True), Memory(), deadlines)
    await event(bare)
    assert seen.response == b""
    await event(bare, last)
    assert (seen.response, seen.is_over, seen.aborted) == (b"hello" * (1 + last.startswith(EVENT)), True, None)
    bare.close()


async def test_an_end_that_comes_in_pieces_is_seen_before_the_next_request(deadlines, patience):
    tap = SeeingTap(is_midstream=True)
    bare, seen = await streaming(tap, Memory(), deadlines)
    await event(bare, EVENT + LAST[:-1])
    await event(bare, LAST[-1:])
    assert not seen.is_over
    await say(bare.client, [GET])
    assert await hear(bare.upstream, len(GET)) == GET
    assert (seen.response, seen.is_over, len(tap.requests)) == (b"hello", True, 2)
    await event(bare, b"HTTP/1.1 204 \r\n\r\n")
    assert tap.requests[1].is_over
    bare.close()


async def test_an_end_that_comes_in_pieces_is_seen_after_a_while(deadlines, monkeypatch):
    monkeypatch.setattr("aiproxyd.mitm.gathering.MAX_WAIT_SECONDS", 0.02)
    bare, seen = await streaming(SeeingTap(is_midstream=True), Memory(), deadlines)
    await event(bare, EVENT + LAST[:-1])
    await event(bare, LAST[-1:])
    await until(lambda: seen.is_over)
    assert seen.response == b"hello"
    bare.close()


@pytest.mark.parametrize(("side", "by"), [("client", AbortedBy.CLIENT), ("upstream", AbortedBy.UPSTREAM)])
async def test_what_came_before_an_early_end_is_seen(deadlines, patience, side, by):
    bare, seen = await streaming(SeeingTap(is_midstream=True), Memory(), deadlines)
    await event(bare)
    getattr(bare, side).close()
    await until(lambda: seen.is_over)
    assert (seen.response, seen.aborted) == (b"hello", by)
    bare.close()


async def test_what_came_before_we_ended_it_is_seen(deadlines, patience):
    bare, seen = await streaming(SeeingTap(is_midstream=True), Memory(), deadlines)
    await event(bare)
    bare.close()
    assert (seen.response, seen.aborted) == (b"hello", AbortedBy.PROXY)


async def test_an_answer_of_a_known_length_is_looked_at_as_it_comes(deadlines, patience):
    bare, seen = await streaming(SeeingTap(is_midstream=True), Memory(), deadlines, HEAD.replace(CHUNKED, b"Content-Length: 9"))
    for count in (1, 2, 3):
        await event(bare, b"ha\n")
        assert seen.response == b"ha\n" * count
    assert seen.is_over
    bare.close()


async def test_a_client_that_cannot_be_told_any_more_leaves_nothing_to_look_at(deadlines, monkeypatch, caplog):
    monkeypatch.setattr("aiproxyd.mitm.gathering.MAX_WAIT_SECONDS", 0.01)
    bare, seen = await streaming(SeeingTap(is_midstream=True), Memory(), deadlines)
    bare.relay.client.socket.shutdown(socket.SHUT_WR)
    await say(bare.upstream, [EVENT])
    await until(lambda: bare.reasons)
    passed = asyncio.Event()
    deadlines.start(0.05, passed.set)
    await passed.wait()
    assert (seen.aborted, caplog.text) == (AbortedBy.CLIENT, "")
    bare.close()


async def test_a_closed_connection_is_not_kept_for_what_it_had_gathered(deadlines, patience):
    bare, _ = await streaming(SeeingTap(is_midstream=True), Memory(), deadlines)
    await event(bare)
    relay = weakref.ref(bare.relay)
    bare.close()
    del bare
    gc.collect()
    assert relay() is None


async def test_answers_to_pipelined_requests_are_looked_at_one_by_one(deadlines, patience):
    bare, seen = await streaming(SeeingTap(is_midstream=True), Memory(), deadlines, requests=2)
    await event(bare)
    assert seen.response == b"hello"
    bare.close()


async def test_a_request_in_the_middle_of_a_stream_ends_the_gathering(deadlines, patience):
    bare, seen = await streaming(SeeingTap(is_midstream=True), Memory(), deadlines)
    await event(bare)
    assert seen.response == b""
    await say(bare.client, [GET])
    assert await hear(bare.upstream, len(GET)) == GET
    assert seen.response == b"hello"
    for count in (2, 3):
        await event(bare)
        assert seen.response == b"hello" * count
    bare.close()


async def test_what_cannot_be_followed_is_counted_after_a_while(deadlines, monkeypatch):
    monkeypatch.setattr("aiproxyd.mitm.gathering.MAX_WAIT_SECONDS", 0.02)
    memory = Memory()
    bare, seen = await streaming(SeeingTap(is_midstream=True), memory, deadlines)
    await event(bare, b"no chunk\r\n")
    await until(lambda: seen.is_over)
    (unknown,) = memory.of(UnknownEventsSeen)
    assert (unknown.counts, seen.calls[-1]) == ({"chunk_size": 1}, "lose_sight")
    bare.close()


async def test_a_connection_that_drains_takes_no_request_behind_the_end_it_had_not_looked_at(deadlines, patience):
    tap = SeeingTap(is_midstream=True)
    bare, seen = await streaming(tap, Memory(), deadlines)
    await event(bare, EVENT + LAST[:-1])
    await event(bare, LAST[-1:])
    bare.relay.drain()
    assert not bare.reasons
    await say(bare.client, [GET])
    await until(lambda: bare.reasons)
    assert (seen.is_over, seen.aborted, len(tap.requests)) == (True, None, 1)
    bare.close()


async def test_a_fault_of_ours_in_what_waited_closes_the_connection(deadlines, monkeypatch, caplog):
    monkeypatch.setattr("aiproxyd.mitm.gathering.MAX_WAIT_SECONDS", 0.02)
    bare, seen = await streaming(SeeingTap(is_midstream=True), Memory(), deadlines)
    monkeypatch.setattr(seen, "response_data", lambda *_: 1 // 0)
    await event(bare)
    await until(lambda: bare.reasons)
    assert bare.reasons == ["error"]
    assert "a connection is closed because its relay failed" in caplog.text
    bare.close()


async def test_no_request_is_begun_on_a_connection_that_a_fault_in_what_waited_has_closed(deadlines, patience, monkeypatch):
    tap = SeeingTap(is_midstream=True)
    bare, seen = await streaming(tap, Memory(), deadlines)
    monkeypatch.setattr(seen, "response_data", lambda *_: 1 // 0)
    await event(bare)
    await say(bare.client, [GET])
    await until(lambda: bare.reasons)
    assert (seen.is_over, len(tap.requests)) == (True, 1)
    bare.close()


async def test_no_request_is_begun_while_a_drained_connection_says_its_last_words(deadlines, patience):
    tap = SeeingTap(is_midstream=True)
    bare, seen = await streaming(tap, Memory(), deadlines)
    await event(bare, EVENT + LAST[:-1])
    bare.relay.client.write(bytes(1 << 24))  # more than the client takes
    await say(bare.upstream, [LAST[-1:]])
    await until(lambda: bare.relay.upstream.is_paused)
    bare.relay.drain()
    assert not seen.is_over
    await say(bare.client, [GET])
    await until(lambda: seen.is_over)
    assert (bare.reasons, seen.aborted, len(tap.requests)) == ([], None, 1)
    bare.close()
