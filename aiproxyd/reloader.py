"""Reloads: reads the configuration again when a file of it changes, at SIGHUP, or when an administrator asks, one at a time.

Not the one who uses it: that is control, which builds everything first and then swaps it whole, or refuses. Whatever goes wrong, the
configuration in use stays.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

import structlog

from aiproxyd.config.loader import config_file, load
from aiproxyd.config.schema import Config
from aiproxyd.config.watching import FileWatcher, files_named
from aiproxyd.exceptions import AiproxydError

log = structlog.get_logger("aiproxyd.reloader")

# Coder's words for a reload that failed, which operators look for.
FAILURE = "refresh ai providers for proxy routing"


class ReloadTimes(Protocol):
    """Where the times of reloads are shown."""

    def reload_attempted(self, at: float) -> None:
        """Note the Unix time of an attempt."""

    def reload_succeeded(self, at: float) -> None:
        """Note the Unix time of an attempt that changed the configuration."""


class Reloader:
    """The one place where a configuration is replaced."""

    def __init__(
        self,
        *,
        path: Path | None,
        environ: Mapping[str, str],
        current: Callable[[], Config],
        use: Callable[[Config], Awaitable[None]],
        times: ReloadTimes,
        around: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Prepare; nothing is watched before `watch`.

        Args:
            path: As for `load`.
            environ: As for `load`.
            current: Returns the configuration in use.
            use: Uses another one whole; raises AiproxydError, and changes nothing, when it cannot.
            times: Told of every attempt.
            around: Entered for each attempt, until it succeeded or failed.
        """
        self._path = path
        self._environ = environ
        self._use = use
        self._times = times
        self._around = around
        self._current = current
        self._file = config_file(path, environ)
        self._walked: Config | None = None
        self._named: frozenset[Path] = frozenset()
        self._watcher = FileWatcher(self._files)
        self._one_at_a_time = asyncio.Lock()
        self._wanted = asyncio.Event()

    def _files(self) -> frozenset[Path]:
        """Return the files that count. A configuration is walked through once, which takes 0.2 ms, and its files are looked at often."""
        config = self._current()
        if config is not self._walked:
            self._walked = config
            self._named = files_named(config) | ({self._file} if self._file is not None else frozenset())
        return self._named

    async def reload(self) -> str:
        """Read the configuration again and use it, or keep the old one and return what is wrong."""
        async with self._one_at_a_time:
            with self._around():
                return await self._reload()

    async def _reload(self) -> str:
        # A signal may come while the file is being written.
        await self._watcher.at_rest()
        self._watcher.acknowledge()
        self._times.reload_attempted(time.time())
        try:
            config = await asyncio.to_thread(load, self._path, self._environ, again=True)
            await self._use(config)
        except AiproxydError as exc:
            mistake = f"{FAILURE}: {exc}"
        except Exception as exc:
            # The boundary of a reload: what trips in here must not take the way to the next one with it.
            log.exception("a reload failed for a reason of our own")
            mistake = f"{FAILURE}: an error of this program's own: {exc!r}"
        else:
            self._times.reload_succeeded(time.time())
            log.info("configuration reloaded", providers=len(config.providers))
            return ""
        log.error("configuration not reloaded, the old one stays", error=mistake)
        return mistake

    def request(self) -> None:
        """Reload soon. Requests that come while one waits are that one."""
        self._wanted.set()

    async def watch(self) -> None:
        """Reload at each request and each change of a file. Endless."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._at_request())
            tasks.create_task(self._at_change())

    async def _at_request(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            await self.reload()

    async def _at_change(self) -> None:
        async for _ in self._watcher.changes():
            await self.reload()
