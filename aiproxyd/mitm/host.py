"""The place where addons live, without `mitmproxy.master.Master`.

`Master` imports every addon that mitmproxy ships (web applications, LDAP, script loading; 17 MB and 0.15 s a process), hangs a handler
into the root logger that formats every record of the process, and in `run` takes over the loop's exception handler and installs an
eager task factory that uvloop does not survive on CPython before 3.13.3. None of it is needed to call hooks. What addons and layers do
need is here: options, the addon chain, and `mitmproxy.ctx`, which is global: one host a process.

A contract test compares the options with those that mitmproxy registers.
"""
# mypy: disallow-untyped-calls=False

import asyncio
from collections.abc import Callable
from typing import Any

from mitmproxy import ctx, hooks
from mitmproxy.addonmanager import AddonManager
from mitmproxy.options import Options

from aiproxyd.mitm import safe_layers

# What mitmproxy's layers read and its `Proxyserver` addon would register. (name, type, default)
LAYER_OPTIONS: tuple[tuple[str, Any, Any], ...] = (
    ("connection_strategy", str, "eager"),
    ("store_streamed_bodies", bool, False),
    ("stream_large_bodies", str | None, None),
    ("body_size_limit", str | None, None),
    ("keep_host_header", bool, False),
    ("proxy_debug", bool, False),
    ("normalize_outbound_headers", bool, True),
    ("validate_inbound_headers", bool, True),
)


class _NoCommands:
    """Takes the commands that addons offer to mitmproxy's consoles, and forgets them."""

    def add(self, path: str, func: Callable[..., Any]) -> None:
        pass

    def collect_commands(self, addon: object) -> None:
        pass


class AddonHost:
    """Stands in for a `Master` in everything an addon may ask of one."""

    def __init__(self, *addons: object, **option_values: Any) -> None:
        """Load the addons. Needs a running loop.

        Args:
            addons: In the order their hooks are called.
            option_values: Values of mitmproxy options.
        """
        self.options = Options()
        for name, kind, default in LAYER_OPTIONS:
            self.options.add_option(name, kind, default, "")
        for name, kind, default, meaning in safe_layers.OPTIONS:
            self.options.add_option(name, kind, default, meaning)
        self.commands = _NoCommands()
        self.addons = AddonManager(self)
        self.event_loop = asyncio.get_running_loop()
        self.should_exit = asyncio.Event()
        ctx.master = self  # type: ignore[assignment]
        ctx.options = self.options
        self.addons.add(*addons)
        self.options.update(**option_values)

    async def running(self) -> None:
        """Tell the addons that work begins."""
        await self.addons.trigger_event(hooks.RunningHook())

    async def done(self) -> None:
        """Tell the addons that it is over."""
        await self.addons.trigger_event(hooks.DoneHook())

    def shutdown(self) -> None:
        """Note that an addon wishes to stop. The daemon's life is not an addon's to end, so nothing follows."""
        self.should_exit.set()
