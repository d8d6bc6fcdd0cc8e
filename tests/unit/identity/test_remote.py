"""A worker asks once, remembers briefly, and never takes silence for a yes."""

import asyncio
import socket

import msgspec
import pytest

from aiproxyd.channel import Answer, Channel
from aiproxyd.exceptions import AiproxydError
from aiproxyd.identity.remote import MAX_REMEMBERED_ANSWERS, RemoteIdentity
from aiproxyd.model.principal import Principal

ALICE = Principal(id="1", name="alice")


class Rig:
    """A worker's end with its identity, and control's end in the hands of the test."""

    @classmethod
    async def make(cls, cache_seconds=60.0):
        rig = cls()
        a, b = socket.socketpair()
        rig.worker, rig.control = await Channel.open(a), await Channel.open(b)
        rig.identity = RemoteIdentity(rig.worker, cache_seconds=cache_seconds)
        rig.asked = []
        rig.tasks = [asyncio.ensure_future(rig.listen())]
        return rig

    async def listen(self):
        while (message := await self.worker.receive()) is not None:
            self.identity.answered(message)
        self.identity.lose_control()

    async def answer(self, principal=None, failure=""):
        question = await self.control.receive()
        self.asked.append(question.credential)
        self.control.send(Answer(question=question.question, principal=principal, failure=failure))

    async def close(self):
        self.worker.close()
        self.control.close()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.fixture
async def rig():
    rig = await Rig.make()
    yield rig
    await rig.close()


async def test_both_answers_are_remembered(rig):
    for principal in (ALICE, None):
        token = f"token of {principal}"
        first = asyncio.ensure_future(rig.identity.authenticate(token))
        await rig.answer(principal)
        assert await first == principal
        assert await rig.identity.authenticate(token) == principal
    assert len(rig.asked) == 2


async def test_many_who_wait_for_one_answer_ask_once(rig):
    waiting = [asyncio.ensure_future(rig.identity.authenticate("t")) for _ in range(20)]
    await rig.answer(ALICE)
    assert await asyncio.gather(*waiting) == [ALICE] * 20
    assert rig.asked == ["t"]


async def test_a_client_that_leaves_does_not_take_the_answer_from_the_others(rig):
    leaving, staying = (asyncio.ensure_future(rig.identity.authenticate("t")) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    await rig.answer(ALICE)
    assert await staying == ALICE


async def test_an_answer_from_before_a_revocation_is_not_remembered(rig):
    before = asyncio.ensure_future(rig.identity.authenticate("t"))
    question = await rig.control.receive()
    # Control looked the token up before its user was revoked; its answer and the order to forget cross either way.
    rig.identity.forget()
    after = asyncio.ensure_future(rig.identity.authenticate("t"))
    again = await rig.control.receive()
    assert again.question != question.question
    rig.control.send(Answer(question=question.question, principal=ALICE))
    assert await before == ALICE
    rig.control.send(Answer(question=again.question, principal=None))
    assert await after is None
    assert await rig.identity.authenticate("t") is None


async def test_an_answer_that_comes_right_before_the_order_to_forget_is_not_remembered(rig):
    before = asyncio.ensure_future(rig.identity.authenticate("t"))
    question = await rig.control.receive()
    rig.identity.answered(Answer(question=question.question, principal=ALICE))
    rig.identity.forget()
    assert await before == ALICE
    after = asyncio.ensure_future(rig.identity.authenticate("t"))
    await rig.answer(None)
    assert await after is None


async def test_nothing_is_remembered_when_the_time_is_zero():
    rig = await Rig.make(cache_seconds=0)
    for principal in (ALICE, None):
        waiting = asyncio.ensure_future(rig.identity.authenticate("t"))
        await rig.answer(principal)
        assert await waiting == principal
    await rig.close()


async def test_forgetting_asks_again(rig):
    for principal in (ALICE, None):
        waiting = asyncio.ensure_future(rig.identity.authenticate("t"))
        await rig.answer(principal)
        assert await waiting == principal
        rig.identity.forget()


async def test_a_failure_is_an_error_and_is_not_remembered(rig):
    waiting = asyncio.ensure_future(rig.identity.authenticate("t"))
    await rig.answer(failure="database is gone")
    with pytest.raises(AiproxydError, match="database is gone"):
        await waiting
    waiting = asyncio.ensure_future(rig.identity.authenticate("t"))
    await rig.answer(ALICE)
    assert await waiting == ALICE


async def test_the_loss_of_control_is_an_error(rig):
    waiting = asyncio.ensure_future(rig.identity.authenticate("t"))
    await rig.control.receive()
    rig.control.close()
    with pytest.raises(AiproxydError, match="control is gone"):
        await waiting


async def test_bytes_that_are_no_text_are_nobodys(rig):
    assert await rig.identity.authenticate("\udcff") is None


async def test_what_is_remembered_is_bounded(rig):
    async def answer_all():
        while True:
            await rig.answer(None)

    rig.tasks.append(asyncio.ensure_future(answer_all()))
    for number in range(MAX_REMEMBERED_ANSWERS + 10):
        await rig.identity.authenticate(str(number))
    rig.tasks[-1].cancel()
    assert len(rig.identity._remembered) == MAX_REMEMBERED_ANSWERS


async def test_that_a_session_was_met_is_known_once_one_was_and_for_good(rig):
    for principal, is_met in (
        (None, False),
        (ALICE, False),
        (msgspec.structs.replace(ALICE, session="session:1"), True),
        (ALICE, True),
    ):
        asking = asyncio.ensure_future(rig.identity.authenticate(f"token of {principal}, {is_met}"))
        await rig.answer(principal)
        await asking
        assert rig.identity.met_session.is_set() is is_met
