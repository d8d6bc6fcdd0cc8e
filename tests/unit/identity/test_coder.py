"""The users of a Coder deployment, asked for over real TLS."""

import asyncio
import hashlib
import time

import pytest

from aiproxyd.config.identity import CoderAuthConfig
from aiproxyd.exceptions import ConfigError
from aiproxyd.identity.answer import SourceUnavailable
from aiproxyd.identity.coder import CoderDeployment
from aiproxyd.model.principal import Principal, session_of
from tests.support.identity_service import IdentityService

TOKEN = "abcdefghij-0123456789abcdefghijkl"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with IdentityService(tmp_path_factory.mktemp("identity")) as service:
        yield service


@pytest.fixture
def service(shared):
    shared.users, shared.groups, shared.questions, shared.answers_with, shared.hangs = {}, {}, [], None, False
    shared.hangs_for = set()
    return shared


@pytest.fixture
async def deployment(service):
    made = []

    def make(**settings):
        made.append(CoderDeployment(CoderAuthConfig(url=service.url, **{"ca_file": service.ca_file, **settings})))
        return made[-1]

    yield make
    for each in made:
        await each.close()


async def test_a_session_token_is_its_users(service, deployment):
    id_ = service.add_user(TOKEN, "carol", "eng")
    answer = await deployment().identify(TOKEN)
    assert answer.principal == Principal(
        id_, "carol", (), evidence="coder", session=session_of(hashlib.sha256(TOKEN.encode()).digest())
    )
    assert TOKEN not in repr(answer)
    assert 0 < answer.fresh_seconds <= 5
    assert service.questions == ["/api/v2/users/me"]


async def test_groups_are_asked_for_when_they_are_wanted(service, deployment):
    service.add_user(TOKEN, "carol", "eng", "admins")
    assert (await deployment(groups=True).identify(TOKEN)).principal.groups == ("eng", "admins")


async def test_a_deployment_without_groups_is_asked_for_them_once(service, deployment):
    service.groups = None
    service.add_user(TOKEN, "carol")
    coder = deployment(groups=True, cache_seconds=0)
    for _ in range(3):
        assert (await coder.identify(TOKEN)).principal.groups == ()
    assert service.questions.count("/api/v2/groups") == 1


async def test_an_unknown_token_is_nobodys_and_is_remembered_as_that(service, deployment):
    coder = deployment()
    for _ in range(3):
        assert (await coder.identify(TOKEN)).principal is None
    assert len(service.questions) == 1


async def test_a_suspended_user_is_nobody(service, deployment):
    service.add_user(TOKEN, "carol")
    service.users[TOKEN]["status"] = "suspended"
    assert (await deployment().identify(TOKEN)).principal is None


@pytest.mark.parametrize("credential", ["", "short", "with space in it", "line\r\nX-Other: header", "tökén-tökén", "x" * 600])
async def test_what_can_be_no_token_is_not_asked_for(service, deployment, credential):
    assert (await deployment().identify(credential)).principal is None
    assert service.questions == []


async def test_many_who_wait_for_one_answer_ask_once(service, deployment):
    service.add_user(TOKEN, "carol")
    coder = deployment()
    answers = await asyncio.gather(*(coder.identify(TOKEN) for _ in range(20)))
    assert {answer.principal.name for answer in answers} == {"carol"}
    assert len(service.questions) == 1


async def test_a_revocation_takes_effect_within_the_time_of_an_answer_although_it_is_in_use(service, deployment):
    service.add_user(TOKEN, "carol")
    coder = deployment(cache_seconds=0.6)
    loop = asyncio.get_running_loop()
    assert (await coder.identify(TOKEN)).principal is not None
    await asyncio.sleep(0.4)
    del service.users[TOKEN]
    revoked_at = loop.time()
    async with asyncio.timeout(10):
        while (answer := await coder.identify(TOKEN)).principal is not None:
            # What a worker may remember is over by then, too.
            assert loop.time() + answer.fresh_seconds <= revoked_at + 0.6 + 0.1
            await asyncio.sleep(0.02)


async def test_an_answer_that_is_in_use_is_refreshed_before_it_is_over(service, deployment):
    service.add_user(TOKEN, "carol")
    coder = deployment(cache_seconds=0.4)
    for _ in range(20):
        assert (await coder.identify(TOKEN)).principal is not None
        await asyncio.sleep(0.05)
    assert 3 <= len(service.questions) <= 7


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (500, "status"),
        (403, "status"),
        (302, "status"),
        (b"<html>", "malformed"),
        (b"[]", "malformed"),
        (b'{"id":"no uuid","username":"carol"}', "malformed"),
        (b'{"id":7,"username":"carol"}', "malformed"),
        (b"x" * ((1 << 20) + 1), "malformed"),
    ],
)
async def test_an_answer_that_makes_no_sense_is_an_error_and_never_a_principal(service, deployment, answer, reason):
    service.add_user(TOKEN, "carol")
    coder = deployment()
    service.answers_with = answer
    with pytest.raises(SourceUnavailable) as caught:
        await coder.identify(TOKEN)
    assert caught.value.reason == reason
    assert TOKEN not in str(caught.value)
    service.answers_with = None
    assert (await coder.identify(TOKEN)).principal is not None


async def test_a_deployment_that_says_nothing_is_an_error_in_time(service, deployment):
    service.hangs = True
    with pytest.raises(SourceUnavailable, match="did not answer in") as caught:
        await deployment(timeout_seconds=0.2).identify(TOKEN)
    assert caught.value.reason == "timeout"


async def test_a_certificate_that_is_not_trusted_is_an_error(service, deployment):
    service.add_user(TOKEN, "carol")
    with pytest.raises(SourceUnavailable, match=r"cannot be asked: .*CERTIFICATE_VERIFY_FAILED") as caught:
        await deployment(ca_file=None).identify(TOKEN)
    assert caught.value.reason == "unreachable"
    assert service.questions == []


async def test_while_it_is_away_who_is_known_works_on_until_the_answer_is_over(tmp_path):
    with IdentityService(tmp_path) as service:
        service.add_user(TOKEN, "carol")
        coder = CoderDeployment(CoderAuthConfig(url=service.url, ca_file=service.ca_file, cache_seconds=0.5))
        assert (await coder.identify(TOKEN)).principal is not None
        service.stop()
        assert (await coder.identify(TOKEN)).principal is not None
        await asyncio.sleep(0.6)
        with pytest.raises(SourceUnavailable) as caught:
            await coder.identify(TOKEN)
        assert caught.value.reason == "unreachable"
        await coder.close()


def test_a_ca_file_that_cannot_be_used_is_a_mistake(tmp_path):
    for content in (None, b"nothing"):
        file = tmp_path / "roots.pem"
        if content:
            file.write_bytes(content)
        with pytest.raises(ConfigError, match=r"auth.coder.ca_file: .*roots.pem cannot be used"):
            CoderDeployment(CoderAuthConfig(url="https://127.0.0.1", ca_file=file))


async def _session(coder, token=TOKEN):
    return (await coder.identify(token)).principal.session


async def test_a_session_with_something_open_is_asked_for_again_and_its_end_is_told_once(service, deployment):
    service.add_user(TOKEN, "carol")
    other = TOKEN[::-1]
    service.add_user(other, "carol")
    coder = deployment(cache_seconds=0)
    sessions = {await _session(coder), await _session(coder, other)}
    assert len(sessions) == 2, "each token of a user ends by itself"
    assert await coder.recheck(sessions) == set()
    assert len(service.questions) == 2, "an answer that is young enough is not asked for again"
    del service.users[TOKEN]
    over = set()
    async with asyncio.timeout(30):
        while not over:
            over = await coder.recheck(sessions)
            await asyncio.sleep(0.05)
    assert over == {session_of(hashlib.sha256(TOKEN.encode()).digest())}
    assert await coder.recheck(sessions - over) == set()


async def test_a_deployment_that_is_silent_ends_no_session(service, deployment, monkeypatch):
    monkeypatch.setattr("aiproxyd.identity.coder._RECHECK_FLOOR_SECONDS", 0.0)
    service.add_user(TOKEN, "carol")
    coder = deployment(cache_seconds=0)
    session = await _session(coder)
    service.answers_with = 500
    assert await coder.recheck({session}) == set()
    service.answers_with = None
    assert await coder.recheck({session}) == set()
    service.answers_with = 401
    assert await coder.recheck({session}) == {session}


async def test_a_slow_answer_holds_up_none_but_its_own(service, deployment, monkeypatch):
    monkeypatch.setattr("aiproxyd.identity.coder._RECHECK_FLOOR_SECONDS", 0.0)
    monkeypatch.setattr("aiproxyd.identity.coder.RECHECK_WAIT_SECONDS", 0.2)
    slow, ended = [TOKEN[number:] + TOKEN[:number] for number in range(7)], TOKEN[::-1]
    for token in (*slow, ended):
        service.add_user(token, "carol")
    coder = deployment(cache_seconds=0, timeout_seconds=9)
    sessions = {await _session(coder, token) for token in (*slow, ended)}
    service.hangs_for = set(slow)
    del service.users[ended]
    over, told = set(), []
    while not over:
        began = time.monotonic()
        over = await coder.recheck(sessions, lambda seconds, reason: told.append((seconds, reason)))
        # Not the nine seconds after which each of the others fails.
        assert time.monotonic() - began < 5
    assert over == {session_of(hashlib.sha256(ended.encode()).digest())}
    assert [reason for _, reason in told] == [""]
    # An answer that comes late is told in a later round.
    sessions -= over
    late = slow[0]
    del service.users[late]
    service.hangs_for.discard(late)
    async with asyncio.timeout(30):
        while not (over := await coder.recheck(sessions)):
            pass
    assert over == {session_of(hashlib.sha256(late.encode()).digest())}
    service.hangs_for = set()


async def test_a_deployment_that_is_silent_for_too_long_has_ended_the_session(service, deployment, monkeypatch):
    monkeypatch.setattr("aiproxyd.identity.coder._RECHECK_FLOOR_SECONDS", 0.0)
    service.add_user(TOKEN, "carol")
    coder = deployment(cache_seconds=0, max_silence_seconds=0.5)
    session = await _session(coder)
    began = time.monotonic()
    service.answers_with = 500
    reasons, over = [], set()
    async with asyncio.timeout(30):
        while not over:
            over = await coder.recheck({session}, lambda _seconds, reason: reasons.append(reason))
            await asyncio.sleep(0.01)
    assert time.monotonic() - began >= 0.4
    assert over == {session}
    assert set(reasons) == {"status"}
    # Who vouches again lets it in again.
    service.answers_with = None
    assert await _session(coder) == session
    assert await coder.recheck({session}) == set()


async def test_a_session_that_nobody_vouched_for_is_over(deployment):
    assert await deployment().recheck({"session:of-another"}) == {"session:of-another"}


async def test_a_token_without_connections_is_not_kept_for_ever(service, deployment, monkeypatch):
    monkeypatch.setattr("aiproxyd.identity.coder.KEPT_SECONDS", 0.0)
    service.add_user(TOKEN, "carol")
    coder = deployment(cache_seconds=0)
    session = await _session(coder)
    assert await coder.recheck(set()) == set()
    assert await coder.recheck({session}) == {session}


async def test_sessions_of_the_same_deployment_are_known_to_another_configuration_of_it_alone(service, deployment):
    service.add_user(TOKEN, "carol")
    before, same = deployment(), deployment(cache_seconds=60)
    session = await _session(before)
    same.adopt(before)
    assert await same.recheck({session}) == set()
    elsewhere = CoderDeployment(CoderAuthConfig(url="https://127.0.0.2:1"))
    elsewhere.adopt(same)
    assert await elsewhere.recheck({session}) == {session}
    await elsewhere.close()


async def test_a_question_that_is_open_at_the_end_says_so(service, deployment):
    service.hangs = True
    coder = deployment()
    asking = asyncio.ensure_future(coder.identify(TOKEN))
    async with asyncio.timeout(30):
        while not service.questions:
            await asyncio.sleep(0.01)
    await coder.close()
    for question in (asking, coder.identify(TOKEN)):
        with pytest.raises(SourceUnavailable) as caught:
            await question
        assert caught.value.reason == "replaced"
