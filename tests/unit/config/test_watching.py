"""A change of a file is told however it was made, once it is done, and nothing else is."""

import asyncio
import contextlib
import itertools
import os
import threading
import time
from pathlib import Path

import pytest
from pydantic import Field

from aiproxyd.config import watching
from aiproxyd.config.schema import Config
from aiproxyd.config.section import Section, restart
from aiproxyd.config.watching import FileWatcher, files_named


class Told:
    """What a watcher told, in the background."""

    def __init__(self, *files: Path) -> None:
        self.files = set(files)
        self.count = 0
        self.watcher = FileWatcher(lambda: self.files)
        self._changed = asyncio.Event()

    async def _listen(self):
        async for _ in self.watcher.changes():
            self.watcher.acknowledge()
            self.count += 1
            self._changed.set()

    async def __aenter__(self):
        self._task = asyncio.ensure_future(self._listen())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def once(self):
        async with asyncio.timeout(20):
            await self._changed.wait()
        self._changed.clear()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "config" / "config.yaml"
    file.parent.mkdir()
    file.write_text("one")
    return file


async def test_a_file_that_is_written_in_place_is_told(file):
    async with Told(file) as told:
        file.write_text("two")
        await told.once()
        file.write_text("three")
        await told.once()


async def test_a_file_that_is_replaced_by_another_is_told_each_time(file):
    async with Told(file) as told:
        for number in range(3):
            fresh = file.with_suffix(".new")
            fresh.write_text(f"fresh {number}")
            fresh.replace(file)
            await told.once()


async def test_a_volume_of_kubernetes_that_swaps_its_link_is_told_each_time(tmp_path):
    volume = tmp_path / "volume"
    for number in range(3):
        (volume / f"..2026_{number}").mkdir(parents=True)
        (volume / f"..2026_{number}" / "config.yaml").write_text(f"number {number}")
    (volume / "..data").symlink_to("..2026_0")
    (volume / "config.yaml").symlink_to("..data/config.yaml")
    async with Told(volume / "config.yaml") as told:
        for number in (1, 2):
            (volume / "..data_tmp").symlink_to(f"..2026_{number}")
            (volume / "..data_tmp").replace(volume / "..data")
            await told.once()


async def test_a_link_to_a_file_elsewhere_is_followed(file, tmp_path):
    link = tmp_path / "links" / "config.yaml"
    link.parent.mkdir()
    link.symlink_to(file)
    async with Told(link) as told:
        file.write_text("two")
        await told.once()


async def test_a_file_that_comes_and_goes_is_told(file):
    late = file.parent / "late.key"
    async with Told(file, late) as told:
        late.write_text("here")
        await told.once()
        late.unlink()
        await told.once()


async def test_a_folder_that_is_replaced_is_looked_into_again(file, tmp_path):
    async with Told(file) as told:
        file.parent.rename(tmp_path / "old")
        file.parent.mkdir()
        file.write_text("of the new folder")
        await told.once()
        file.write_text("and once more")
        await told.once()


async def test_files_that_are_named_later_are_watched_too(file, tmp_path):
    other = tmp_path / "keys" / "anthropic.key"
    other.parent.mkdir()
    other.write_text("key one")
    async with Told(file) as told:
        told.files.add(other)
        file.write_text("names the key")
        await told.once()
        other.write_text("key two")
        await told.once()


async def test_files_are_looked_at_as_often_as_is_said_and_no_thread_waits_for_them(file, monkeypatch):
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.05)
    threads = threading.active_count()
    looked_at: list[float] = []

    def files() -> set[Path]:
        looked_at.append(asyncio.get_running_loop().time())
        return {file}

    changes = FileWatcher(files).changes()
    waiting = asyncio.ensure_future(anext(changes))
    async with asyncio.timeout(20):
        while len(looked_at) < 6:
            await asyncio.sleep(0.01)
    assert threading.active_count() == threads
    assert not waiting.done()
    # The first two are of the beginning; a beat is 1.25 periods away at most, and 0.25 at least.
    assert all(later - earlier > 0.2 * watching.LOOK_SECONDS for earlier, later in itertools.pairwise(looked_at[1:]))
    file.write_text("two")
    await asyncio.wait_for(waiting, 20)
    await changes.aclose()


async def test_a_file_that_is_being_written_is_told_when_it_came_to_rest(file, monkeypatch):
    monkeypatch.setattr(watching, "SETTLE_SECONDS", 0.5)
    async with Told(file) as told:
        with file.open("a") as writing:
            for _ in range(20):
                writing.write("more\n")
                writing.flush()
                await asyncio.sleep(0.05)
            assert told.count == 0
        await told.once()
    assert told.count == 1


async def test_neighbours_of_the_file_and_what_was_acknowledged_are_not_told(file):
    async with Told(file) as told:
        (file.parent / "neighbour").write_text("noise")
        file.write_text("read already, by a signal")
        told.watcher.acknowledge()
        (file.parent / "last").write_text("noise")
        file.write_text("told")
        await told.once()
        assert told.count == 1


class _Key(Section):
    file: Path | None = None


class _Provider(Section):
    name: str = "p"
    keys: tuple[_Key, ...] = ()
    by_name: dict[str, Path] = Field(default_factory=dict)


class _Example(Section):
    data_dir: Path = restart(Path("/state"))
    cert_file: Path | None = None
    providers: tuple[_Provider, ...] = ()


def test_every_path_that_a_reload_reads_again_is_found_in_a_configuration():
    config = _Example(
        cert_file=Path("/tls.crt"),
        providers=(_Provider(keys=(_Key(file=Path("/one")), _Key()), by_name={"a": Path("/two")}),),
    )
    assert files_named(config) == {Path("/tls.crt"), Path("/one"), Path("/two")}
    assert files_named(_Example()) == frozenset()


def test_a_file_that_holds_the_url_of_the_upstream_proxy_is_one_of_them_and_its_text_is_not_shown(tmp_path):
    held = tmp_path / "proxy"
    held.write_text("http://u:hunter2@proxy.corp:1\n")
    config = Config.model_validate({"egress": {"upstream_proxy": {"file": str(held)}}})
    assert held in files_named(config)
    assert config.egress.upstream_proxy.get_secret_value() == "http://u:hunter2@proxy.corp:1"
    assert "hunter2" not in repr(config)


async def test_a_file_that_was_written_a_moment_ago_is_waited_for_and_another_is_not(file):
    watcher = FileWatcher(lambda: {file})
    old = file.stat().st_mtime - 10
    os.utime(file, (old, old))
    before = time.monotonic()
    await watcher.at_rest()
    assert time.monotonic() - before < watching.SETTLE_SECONDS
    with file.open("a") as writing:
        resting = asyncio.ensure_future(watcher.at_rest())
        for _ in range(10):
            writing.write("more")
            writing.flush()
            await asyncio.sleep(watching.SETTLE_SECONDS / 4)
            assert not resting.done()
    await resting


async def test_a_clock_that_is_behind_the_files_does_not_hold_up_a_reload(file):
    future = file.stat().st_mtime + 3600
    os.utime(file, (future, future))
    async with asyncio.timeout(watching.SETTLE_SECONDS):
        await FileWatcher(lambda: {file}).at_rest()
