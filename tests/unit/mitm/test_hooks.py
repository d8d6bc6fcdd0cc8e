import asyncio

import pytest
from mitmproxy import exceptions

from aiproxyd.mitm import hooks
from aiproxyd.mitm.hooks import HookTable
from aiproxyd.mitm.host import AddonHost


class Notes:
    """An addon that notes that it was called."""

    def __init__(self, name: str, notes: list[str], addons: tuple[object, ...] = ()) -> None:
        self.name = name
        self.addons = addons
        self._notes = notes

    def request(self, flow: object) -> None:
        self._notes.append(f"{self.name} {flow}")

    async def response(self, flow: object) -> None:
        await asyncio.sleep(0)
        self._notes.append(f"{self.name} {flow}")


async def test_every_addon_is_called_in_order_sub_addons_included():
    notes: list[str] = []
    host = AddonHost(Notes("a", notes, (Notes("b", notes),)), Notes("c", notes))
    assert HookTable(host.addons).run("request", 1) is None
    assert notes == ["a 1", "b 1", "c 1"]


async def test_what_waits_is_awaited_in_order():
    notes: list[str] = []
    host = AddonHost(Notes("a", notes), Notes("b", notes))
    pending = HookTable(host.addons).run("response", 1)
    assert pending is not None
    await pending
    assert notes == ["a 1", "b 1"]


async def test_a_hook_that_nobody_has_is_nothing():
    assert HookTable(AddonHost().addons).run("tls_clienthello", 1) is None


async def test_what_a_hook_raises_reaches_the_caller_and_ends_the_round():
    notes: list[str] = []

    class Raises:
        def request(self, flow: object) -> None:
            raise KeyError("x")

        async def response(self, flow: object) -> None:
            raise KeyError("x")

    host = AddonHost(Raises(), Notes("b", notes))
    with pytest.raises(KeyError):
        HookTable(host.addons).run("request", 1)
    pending = HookTable(host.addons).run("response", 1)
    assert pending is not None
    with pytest.raises(KeyError):
        await pending
    assert notes == []


async def test_halting_ends_the_round_quietly():
    notes: list[str] = []

    class Halts:
        def request(self, flow: object) -> None:
            raise exceptions.AddonHalt

        async def response(self, flow: object) -> None:
            raise exceptions.AddonHalt

    host = AddonHost(Halts(), Notes("b", notes))
    assert HookTable(host.addons).run("request", 1) is None
    pending = HookTable(host.addons).run("response", 1)
    assert pending is not None
    await pending
    assert notes == []


async def test_a_module_of_the_same_name_is_no_hook():
    class Imports:
        request = asyncio  # as a script does that imports a module called like a hook

    assert HookTable(AddonHost(Imports()).addons).run("request", 1) is None


async def test_addons_that_come_later_are_called_too():
    notes: list[str] = []
    host = AddonHost(Notes("a", notes))
    table = HookTable(host.addons)
    table.run("request", 1)
    host.addons.add(Notes("b", notes))
    table.run("request", 2)
    assert notes == ["a 1", "a 2", "b 2"]


async def test_a_hook_that_never_returns_is_given_up(monkeypatch):
    monkeypatch.setattr(hooks, "HOOK_TIMEOUT_SECONDS", 0.01)

    class Hangs:
        async def request(self, flow: object) -> None:
            await asyncio.Event().wait()

    pending = HookTable(AddonHost(Hangs()).addons).run("request", 1)
    assert pending is not None
    with pytest.raises(TimeoutError):
        await pending
