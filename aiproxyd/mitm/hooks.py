"""Runs the hooks of mitmproxy addons without mitmproxy's way of forgiving them.

`AddonManager.trigger_event` logs what a hook raises and goes on, which lets a broken policy pass everything. Here the caller learns of
it and decides. Otherwise the meaning is the same: addons in order, sub-addons included, `AddonHalt` ends the round.
"""
# mypy: disallow-untyped-calls=False

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from mitmproxy import addonmanager, exceptions
from mitmproxy.addonmanager import AddonManager

from aiproxyd.mitm.limited import limited

type Hook = Callable[..., Awaitable[None] | None]

# A hook that waits longer than the slowest look-up we know (`identity.remote` gives up after 10 s) has lost its answer.
HOOK_TIMEOUT_SECONDS = 15.0


class HookTable:
    """Which functions of which addons a hook calls, looked up once per hook."""

    def __init__(self, addons: AddonManager) -> None:
        self._addons = addons
        self._chain: list[Any] = []
        self._hooks: dict[str, tuple[Hook, ...]] = {}

    def run(self, name: str, *arguments: object) -> Awaitable[None] | None:
        """Call the hook `name` of every addon.

        Returns:
            None when all of it is done, or what must be awaited for the rest.

        Raises:
            Exception: Whatever a hook raises. Those after it were not called.
        """
        hooks = self._find(name)
        for index, hook in enumerate(hooks):
            try:
                result = hook(*arguments)
            except exceptions.AddonHalt:
                return None
            if result is not None:
                return limited(_run_rest(result, hooks[index + 1 :], arguments), HOOK_TIMEOUT_SECONDS)
        return None

    def _find(self, name: str) -> tuple[Hook, ...]:
        if self._chain != self._addons.chain:
            self._chain = list(self._addons.chain)
            self._hooks = {}
        hooks = self._hooks.get(name)
        if hooks is None:
            hooks = self._hooks[name] = tuple(_collect(name, self._chain))
        return hooks


def _collect(name: str, chain: Iterable[Any]) -> Iterable[Hook]:
    for addon in addonmanager.traverse(chain):
        hook = getattr(addon, name, None)
        # A script may have imported a module of the same name (`from mitmproxy import log`); mitmproxy skips those too.
        if callable(hook):
            yield hook


async def _run_rest(result: Awaitable[None], rest: Iterable[Hook], arguments: tuple[object, ...]) -> None:
    try:
        await result
        for hook in rest:
            following = hook(*arguments)
            if following is not None:
                await following
    except exceptions.AddonHalt:
        return
