"""What arrives together: the order of steps, what is on disk when, and that nothing overtakes what waits for the turn's end."""

import asyncio
import socket

import pytest

from aiproxyd.mitm.deadlines import Deadlines
from aiproxyd.mitm.decrypted import AbortedBy
from aiproxyd.mitm.relay import Relay
from aiproxyd.mitm.report import Reporter
from aiproxyd.mitm.turns import Turns
from tests.unit.mitm.bare import Bare, hear, say
from tests.unit.mitm.stage import Memory, SeeingTap, until

LOOPS = "both"

ASK = b"POST /v1/messages HTTP/1.1\r\nHost: api.anthropic.com\r\nContent-Length: 2\r\n\r\n{}"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"


class Step:
    """A part that notes its steps, and fails in one when told to."""

    def __init__(self, name: str, steps: list[str], *, fails_in: str = "") -> None:
        self.name = name
        self.steps = steps
        self.fails_in = fails_in
        self.on_look = lambda: None

    def _take(self, step: str) -> None:
        self.steps.append(f"{step} {self.name}")
        if step == self.fails_in:
            raise ZeroDivisionError

    def open_requests(self) -> None:
        self._take("open")

    def send_requests(self) -> None:
        self._take("send")

    def look(self) -> None:
        self._take("look")
        self.on_look()

    def failed(self, fault: Exception) -> None:
        self.steps.append(f"{type(fault).__name__} {self.name}")


@pytest.fixture
async def deadlines():
    running = Deadlines(tick_seconds=0.01)
    yield running
    running.close()


async def turn() -> None:
    """Wait until everything that is due now was done."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_each_step_is_taken_for_all_before_the_next_and_what_joins_later_has_its_own_turn():
    steps: list[str] = []
    turns = Turns(Reporter(Memory()))
    one, two, late = (Step(name, steps) for name in ("1", "2", "late"))
    one.on_look = lambda: turns.join(late)
    turns.join(one)
    turns.join(two)
    assert steps == []
    await turn()
    assert steps == [f"{step} {name}" for step in ("open", "send", "look") for name in "12"] + [
        "open late",
        "send late",
        "look late",
    ]


@pytest.mark.parametrize("step", ["open", "send", "look"])
async def test_a_fault_in_one_part_is_told_to_it_and_no_other_notices(step):
    steps: list[str] = []
    memory = Memory()
    reporter = Reporter(memory)
    turns = Turns(reporter)
    turns.join(Step("bad", steps, fails_in=step))
    turns.join(Step("good", steps))
    await turn()
    assert [taken for taken in steps if "good" in taken] == ["open good", "send good", "look good"]
    assert "ZeroDivisionError bad" in steps
    # The reporter is not left held.
    memory.append("told")
    reporter.flush()
    assert memory.flushed == 1


class FlushingTap(SeeingTap):
    """Tells the beginning of each request, as the real one does."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__()
        self.reporter = reporter

    def open(self, connection, head, at=None):
        self.reporter.tell(f"begun {len(self.requests)}")
        self.reporter.flush()
        return super().open(connection, head, at)


async def test_requests_that_arrive_together_are_on_disk_by_one_write_before_the_first_leaves(deadlines, monkeypatch):
    memory = Memory()
    reporter = Reporter(memory)
    tap = FlushingTap(reporter)
    bares = [Bare(tap, memory, deadlines, Turns(reporter))]
    bares.append(Bare(tap, memory, deadlines, bares[0].relay._turns))
    events: list[str] = []
    flush, forward = memory.flush, Relay._forward

    def noted_flush():
        flush()
        events.append(f"on disk: {memory.flushed}")

    def noted_forward(self, data, to):
        events.append("sent")
        forward(self, data, to)

    monkeypatch.setattr(memory, "flush", noted_flush)
    monkeypatch.setattr(Relay, "_forward", noted_forward)
    for bare in bares:
        bare.client.send(ASK)
    for bare in bares:
        assert await hear(bare.upstream, len(ASK)) == ASK
    assert events == ["on disk: 2", "sent", "sent"]
    assert [seen.calls for seen in tap.requests] == [["request_data", "request_end"]] * 2
    for bare in bares:
        bare.close()


async def test_the_times_are_those_of_arrival(deadlines):
    class Timed(SeeingTap):
        def open(self, connection, head, at=None):
            self.opened_at = at
            seen = super().open(connection, head, at)
            seen.response_head = lambda head, at=None: times.append(at)
            seen.response_data = lambda data, at=None: times.append(at)
            return seen

    times = []
    tap = Timed()
    bare = Bare(tap, Memory(), deadlines)
    reporter = bare.relay._reporter
    before = reporter.monotonic()
    bare.client.send(ASK)
    bare.relay.client.on_readable()
    arrived = reporter.monotonic()
    await hear(bare.upstream, len(ASK))
    assert before <= tap.opened_at <= arrived
    (held,) = tap.requests[0].held_seconds
    assert held > 0
    bare.upstream.send(ANSWER)
    before = reporter.monotonic()
    bare.relay.upstream.on_readable()
    arrived = reporter.monotonic()
    await until(lambda: tap.requests[0].is_over)
    assert len(times) == 2
    assert all(before <= at <= arrived for at in times)
    bare.close()


# What else happens in the same turn


async def asked(deadlines) -> tuple[Bare, SeeingTap]:
    """A relay whose request waits for its answer."""
    tap = SeeingTap()
    bare = Bare(tap, Memory(), deadlines)
    await say(bare.client, [ASK])
    assert await hear(bare.upstream, len(ASK)) == ASK
    return bare, tap


def leave(bare: Bare) -> None:
    bare.client.shutdown(socket.SHUT_WR)
    bare.relay.client.on_readable()


def reset(bare: Bare) -> None:
    bare.relay._lost(bare.relay.client, ConnectionResetError())


@pytest.mark.parametrize(
    "end", [leave, reset, lambda bare: bare.relay.close()], ids=["client leaves", "client resets", "we close"]
)
async def test_what_ends_in_the_turn_of_its_answer_had_it(deadlines, end):
    bare, tap = await asked(deadlines)
    bare.upstream.send(ANSWER)
    bare.relay.upstream.on_readable()
    end(bare)
    (seen,) = tap.requests
    assert (seen.is_over, seen.aborted, seen.response) == (True, None, b"good")
    bare.close()


async def test_a_request_in_the_turn_of_an_answer_comes_behind_it(deadlines):
    bare, tap = await asked(deadlines)
    bare.upstream.send(ANSWER)
    bare.relay.upstream.on_readable()
    bare.client.send(ASK)
    bare.relay.client.on_readable()
    assert (tap.requests[0].is_over, len(tap.requests)) == (True, 1)
    assert await hear(bare.upstream, len(ASK)) == ASK
    assert len(tap.requests) == 2
    bare.close()


async def test_an_end_of_the_provider_in_the_turn_of_a_request_comes_behind_it(deadlines):
    tap = SeeingTap()
    bare = Bare(tap, Memory(), deadlines)
    bare.client.send(ASK)
    bare.relay.client.on_readable()
    bare.upstream.shutdown(socket.SHUT_WR)
    bare.relay.upstream.on_readable()
    (seen,) = tap.requests
    assert (seen.request, seen.aborted) == (b"{}", AbortedBy.UPSTREAM)
    assert await hear(bare.upstream, len(ASK)) == ASK
    bare.close()


async def test_a_provider_that_breaks_in_the_turn_of_a_request_comes_behind_it(deadlines):
    tap = SeeingTap()
    bare = Bare(tap, Memory(), deadlines)
    bare.client.send(ASK)
    bare.relay.client.on_readable()
    bare.relay._lost(bare.relay.upstream, ConnectionResetError())
    (seen,) = tap.requests
    assert (seen.request, seen.aborted) == (b"{}", AbortedBy.UPSTREAM)
    bare.close()


async def test_an_answer_in_the_turn_of_a_request_is_that_request_s(deadlines):
    tap = SeeingTap()
    bare = Bare(tap, Memory(), deadlines)
    bare.client.send(ASK)
    bare.relay.client.on_readable()
    bare.upstream.send(ANSWER)
    bare.relay.upstream.on_readable()
    assert await hear(bare.client, len(ANSWER)) == ANSWER
    assert await hear(bare.upstream, len(ASK)) == ASK
    (seen,) = tap.requests
    assert (seen.request, seen.response, seen.is_over, seen.aborted) == (b"{}", b"good", True, None)
    bare.close()


async def test_what_came_before_that_which_cannot_be_followed_is_seen(deadlines):
    tap = SeeingTap()
    bare = Bare(tap, Memory(), deadlines)
    await say(bare.client, [ASK + b"GET / HTTP/9\r\n\r\n"])
    await until(lambda: tap.requests and tap.requests[0].is_over)
    (seen,) = tap.requests
    assert seen.calls == ["request_data", "request_end", "lose_sight"]
    bare.close()


async def test_an_answer_that_ends_with_its_connection_in_one_turn_is_whole(deadlines):
    bare, tap = await asked(deadlines)
    bare.upstream.send(b"HTTP/1.1 200 OK\r\n\r\ngood")
    bare.relay.upstream.on_readable()
    bare.upstream.shutdown(socket.SHUT_WR)
    bare.relay.upstream.on_readable()
    (seen,) = tap.requests
    assert (seen.is_over, seen.aborted, seen.response) == (True, None, b"good")
    bare.close()


async def test_a_connection_that_is_closed_in_the_turn_of_a_request_neither_sends_nor_tells_it(deadlines):
    tap = SeeingTap()
    bare = Bare(tap, Memory(), deadlines)
    bare.client.send(ASK)
    bare.relay.client.on_readable()
    bare.relay.close()
    await turn()
    assert tap.requests == []
    assert bare.upstream.recv(100) == b""
    bare.close()


async def test_a_connection_that_drains_in_the_turn_of_a_request_serves_it_and_ends(deadlines):
    tap = SeeingTap()
    bare = Bare(tap, Memory(), deadlines)
    bare.client.send(ASK)
    bare.relay.client.on_readable()
    bare.relay.drain()
    assert await hear(bare.upstream, len(ASK)) == ASK
    assert not bare.reasons
    await say(bare.upstream, [ANSWER])
    assert await hear(bare.client, len(ANSWER)) == ANSWER
    await until(lambda: bare.reasons)
    assert (bare.reasons, tap.requests[0].aborted) == (["eof"], None)
    bare.close()


async def test_a_head_that_is_whole_in_the_turn_of_its_deadline_is_in_time(deadlines):
    tap = SeeingTap()
    bare = Bare(tap, Memory(), deadlines)
    await say(bare.client, [ASK[:20]])
    await until(lambda: bare.relay._head_deadline is not None)
    bare.client.send(ASK[20:])
    bare.relay.client.on_readable()
    bare.relay._head_too_slow()
    assert await hear(bare.upstream, len(ASK)) == ASK
    assert not bare.reasons
    bare.close()


async def test_a_fault_of_ours_in_a_step_closes_that_connection_alone(deadlines, caplog):
    memory = Memory()
    tap = SeeingTap()
    turns = Turns(Reporter(memory))
    bad, good = (Bare(tap, memory, deadlines, turns) for _ in range(2))

    def fail(_head):
        tap.on_open = lambda head: None
        raise ZeroDivisionError

    tap.on_open = fail
    for bare in (bad, good):
        bare.client.send(ASK)
        bare.relay.client.on_readable()
    assert await hear(good.upstream, len(ASK)) == ASK
    assert (bad.reasons, good.reasons) == (["error"], [])
    assert bad.upstream.recv(100) == b""
    assert "a connection is closed because its relay failed" in caplog.text
    for bare in (bad, good):
        bare.close()
