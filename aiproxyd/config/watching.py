"""Notices that a file of the configuration changed. Not a reader: whoever is told loads it again.

Facts:
- Editors write a new file and rename it over the old one, and Kubernetes swaps a symbolic link (`..data`) in the folder of its volume:
  what counts is what the name leads to at the moment.
- A write that takes its time is seen before it is done, and there is no event for "done" that every file system sends.
- Not every file system tells of changes at all (NFS, some container mounts). A watch of the kernel's must stand on every folder that a
  link goes through, and again on one that was replaced.

Strategy: the few files that are named are looked at twice a second, on the beat (see `beat`), which costs 2 µs a file and holds for
every file system alike. What counts is their `stat`; a change is told once it stayed the same for `SETTLE_SECONDS`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel

from aiproxyd.beat import next_beat
from aiproxyd.config.network import SecretOfFile

# Two looks at the files this far apart must agree, or somebody is still writing.
SETTLE_SECONDS = 0.1

# A file that never comes to rest is read all the same after so long; what is wrong with it is said then.
MAX_SETTLE_SECONDS = 5.0

# How often the files are looked at.
LOOK_SECONDS = 0.5

# Where a file's state has its time of modification, in nanoseconds.
_MODIFIED = 3

type Fingerprint = tuple[tuple[Path, tuple[int, ...] | None], ...]


def files_named(config: BaseModel) -> frozenset[Path]:
    """Return the files that `config` names and that a reload reads again: every path but those that only a restart applies."""
    return frozenset(_paths_in(config))


def _paths_in(value: object) -> Iterator[Path]:
    if isinstance(value, Path):
        yield value
    elif isinstance(value, SecretOfFile):
        yield value.file
    elif isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            if field.json_schema_extra != {"reload": "restart"}:
                yield from _paths_in(getattr(value, name))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _paths_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _paths_in(item)


class FileWatcher:
    """Tells when one of a changing set of files is not what it was."""

    def __init__(self, files: Callable[[], Iterable[Path]]) -> None:
        """
        Args:
            files: Returns those that count at the moment. They need not exist.
        """
        self._files = files
        self._known = self._look()

    def acknowledge(self) -> None:
        """Take the files as they are now as known. To be called right before they are read."""
        self._known = self._look()

    async def at_rest(self) -> None:
        """Return once no file was written a moment ago: at once, as a rule."""
        for _ in range(int(MAX_SETTLE_SECONDS / SETTLE_SECONDS)):
            ages = [time.time() - state[_MODIFIED] / 1e9 for _, state in self._look() if state is not None]
            if not any(0 <= age < SETTLE_SECONDS for age in ages):
                return
            await asyncio.sleep(SETTLE_SECONDS)

    async def changes(self) -> AsyncIterator[None]:
        """Yield after each change, once the files came to rest. Endless.

        Whoever iterates calls `acknowledge`; a change that is not acknowledged is told again.
        """
        while True:
            if await self._settled() != self._known:
                yield
            await next_beat(LOOK_SECONDS)

    async def _settled(self) -> Fingerprint:
        """Return the fingerprint, once two in a row agree."""
        seen = self._look()
        if seen == self._known:
            return seen
        for _ in range(int(MAX_SETTLE_SECONDS / SETTLE_SECONDS)):
            await asyncio.sleep(SETTLE_SECONDS)
            before, seen = seen, self._look()
            if seen == before:
                break
        return seen

    def _look(self) -> Fingerprint:
        return tuple((file, _state_of(file)) for file in sorted(self._files()))


def _state_of(file: Path) -> tuple[int, ...] | None:
    try:
        state = file.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns
