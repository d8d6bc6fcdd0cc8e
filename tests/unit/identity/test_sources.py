"""Who is asked for which credential, in which order, and what becomes of those who have something open."""

import asyncio
import hashlib

import pytest

from aiproxyd.config.schema import AuthConfig
from aiproxyd.exceptions import StorageError
from aiproxyd.identity import sources as module
from aiproxyd.identity.answer import SourceUnavailable
from aiproxyd.identity.sources import RemoteSources, Sources
from aiproxyd.model.principal import Principal
from tests.support.identity_service import AUDIENCE, ISSUER, IdentityService, Signer

SESSION = "abcdefghij-0123456789abcdefghijkl"
SIGNER = Signer("key-1", "ES256")
STORED = Principal("00000000-0000-5000-8000-000000000001", "stored")


class Users:
    """Users of a store."""

    def __init__(self):
        self.by_digest = {}
        self.asked = 0
        self.is_away = False

    async def find_principal(self, token_sha256):
        self.asked += 1
        if self.is_away:
            raise StorageError("the store is away")
        return self.by_digest.get(token_sha256)


def digest_of(token):
    return hashlib.sha256(token.encode()).hexdigest()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with IdentityService(tmp_path_factory.mktemp("identity")) as service:
        service.keys = [SIGNER.public]
        yield service


@pytest.fixture
def service(shared):
    shared.users, shared.questions, shared.answers_with, shared.hangs = {}, [], None, False
    return shared


def config_of(service, **coder):
    return AuthConfig.model_validate(
        {
            "users": [{"name": "alice", "token_sha256": digest_of("alice-token")}],
            "coder": {"url": service.url, "ca_file": service.ca_file, **coder},
            "jwt": {
                "issuer": ISSUER,
                "audience": AUDIENCE,
                "jwks_url": f"{service.url}/keys",
                "jwks_ca_file": service.ca_file,
            },
        }
    )


class Rig:
    def __init__(self, service):
        self.users = Users()
        self.asked = []
        self.config = config_of(service)
        self.sources = Sources(self.config, self.users, lambda source, _seconds, reason: self.asked.append((source, reason)))

    async def name_of(self, credential):
        principal = (await self.sources.identify(credential)).principal
        return principal.name if principal is not None else None

    async def reload(self, config):
        await self.sources.replace(config, RemoteSources(config)).close()


@pytest.fixture
async def rig(service):
    rig = Rig(service)
    yield rig
    await rig.sources.close()


async def test_each_credential_is_shown_to_as_few_as_possible(service, rig):
    service.add_user(SESSION, "carol")
    rig.users.by_digest[digest_of("aip_stored")] = STORED
    assert await rig.name_of("alice-token") == "alice"
    assert (rig.users.asked, rig.asked, service.questions) == (0, [], [])
    assert await rig.name_of(SIGNER.token("dave")) == "dave"
    assert (rig.users.asked, rig.asked, service.questions) == (0, [("jwt", "")], ["/keys"])
    assert await rig.name_of("aip_stored") == "stored"
    assert await rig.name_of("aip_" + "x" * 30) is None
    assert (rig.users.asked, service.questions) == (2, ["/keys"])
    assert await rig.name_of(SESSION) == "carol"
    assert rig.asked[-2:] == [("users", ""), ("coder", "")]
    assert await rig.name_of("of-nobody-at-all") is None


@pytest.mark.parametrize("credential", ["", "x" * 5000])
async def test_what_can_be_no_credential_is_nobodys_and_nobody_is_asked(service, rig, credential):
    assert await rig.name_of(credential) is None
    assert (rig.users.asked, rig.asked, service.questions) == (0, [], [])


async def test_a_source_that_cannot_answer_is_an_error_and_not_a_no(service, rig):
    rig.users.is_away = True
    with pytest.raises(StorageError):
        await rig.sources.identify(SESSION)
    assert service.questions == [], "nor is the next one asked in its place"
    rig.users.is_away = False
    service.answers_with = 500
    for credential in (SESSION, SIGNER.token()):
        with pytest.raises(SourceUnavailable):
            await rig.sources.identify(credential)
    assert rig.asked == [("users", "store"), ("users", ""), ("coder", "status"), ("jwt", "status")]
    assert await rig.name_of("alice-token") == "alice"


async def test_a_question_that_is_open_at_a_reload_is_asked_of_the_new_sources(service, rig):
    service.add_user(SESSION, "carol")
    service.hangs = True
    asking = asyncio.ensure_future(rig.name_of(SESSION))
    async with asyncio.timeout(30):
        while not service.questions:
            await asyncio.sleep(0.01)
    await rig.reload(config_of(service, cache_seconds=1))
    service.hangs = False
    assert await asking == "carol"


async def test_sessions_that_end_while_something_is_open_are_revoked(service, rig, monkeypatch):
    monkeypatch.setattr(module, "RECHECK_SECONDS", 0.02)
    service.add_user(SESSION, "carol")
    await rig.reload(config_of(service, cache_seconds=0))
    session = (await rig.sources.identify(SESSION)).principal.session
    told = asyncio.Queue()
    held = {session}
    watching = asyncio.ensure_future(rig.sources.watch(lambda: held, told.put_nowait))
    asked = len(service.questions)
    async with asyncio.timeout(30):
        while len(service.questions) == asked:
            await asyncio.sleep(0.02)
    assert told.empty()
    await rig.reload(config_of(service, cache_seconds=1))
    service.answers_with = 500
    async with asyncio.timeout(30):
        while len(service.questions) < asked + 4:
            await asyncio.sleep(0.02)
    assert told.empty(), "neither a reload nor a deployment that fails is a revocation"
    service.answers_with = None
    del service.users[SESSION]
    assert await asyncio.wait_for(told.get(), 30) == {session}
    held = {"session:of-before"}
    without = AuthConfig()
    await rig.reload(without)
    async with asyncio.timeout(30):
        while await told.get() != {"session:of-before"}:
            pass
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
