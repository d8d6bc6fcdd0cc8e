import pytest

from aiproxyd.mitm import names
from aiproxyd.mitm.names import Names


async def test_an_answer_is_kept_for_a_moment() -> None:
    resolver = Names()
    first = await resolver.resolve("localhost", 443)
    assert first[0][4][1] == 443
    assert await resolver.resolve("localhost", 443) is first
    assert (await resolver.resolve("localhost", 8443))[0][4][1] == 8443


async def test_an_old_answer_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "KEPT_SECONDS", 0.0)
    resolver = Names()
    first = await resolver.resolve("localhost", 443)
    again = await resolver.resolve("localhost", 443)
    assert again == first
    assert again is not first


async def test_a_failure_is_not_kept() -> None:
    resolver = Names()
    for _ in range(2):
        with pytest.raises(OSError, match=r".+"):
            await resolver.resolve("does-not-exist.invalid", 443)
    assert not resolver._kept


async def test_how_many_names_are_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_MAX_KEPT", 3)
    resolver = Names()
    for port in range(1, 9):
        await resolver.resolve("127.0.0.1", port)
        assert len(resolver._kept) <= 3
