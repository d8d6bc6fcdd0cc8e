"""Reloads of real files: what is used, what is kept, what is told, and that they come one at a time."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from aiproxyd import reloader as reloader_module
from aiproxyd.config import watching as config_watching
from aiproxyd.config.loader import load
from aiproxyd.config.schema import Config
from aiproxyd.config.watching import files_named
from aiproxyd.exceptions import AiproxydError
from aiproxyd.reloader import FAILURE, Reloader


class Daemon:
    """What a reloader works for: it keeps what it is given, and refuses or trips when it is told to."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.write("first")
        self.config = load(file, {})
        self.used: list[str] = []
        self.attempts: list[float] = []
        self.successes: list[float] = []
        self.refusal: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.at_work = self.most_at_work = 0
        self.around: list[str] = []

    def write(self, name: str, more: str = "") -> None:
        """Write a configuration with one provider of this name, as it was long ago."""
        self.file.write_text(f"providers: [{{name: {name}, type: openai}}]\n{more}")
        os.utime(self.file, (0, 0))

    def provider(self) -> str:
        return self.config.providers[0].name

    async def use(self, config: Config) -> None:
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            if self.gate is not None:
                await self.gate.wait()
            if self.refusal is not None:
                raise self.refusal
            self.config = config
            self.used.append(self.provider())
        finally:
            self.at_work -= 1

    def reload_attempted(self, at: float) -> None:
        self.attempts.append(at)

    def reload_succeeded(self, at: float) -> None:
        self.successes.append(at)

    @contextlib.contextmanager
    def reloading(self) -> Iterator[None]:
        self.around.append("begins")
        try:
            yield
        finally:
            self.around.append("ends")

    def reloader(self, **environ: str) -> Reloader:
        return Reloader(
            path=self.file,
            environ=environ,
            current=lambda: self.config,
            use=self.use,
            times=self,
            around=self.reloading,
        )


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    return Daemon(tmp_path / "config.yaml")


@contextlib.asynccontextmanager
async def watching(reloader: Reloader) -> AsyncIterator[None]:
    task = asyncio.ensure_future(reloader.watch())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until_used(daemon: Daemon, name: str) -> None:
    async with asyncio.timeout(30):
        while daemon.used[-1:] != [name]:
            await asyncio.sleep(0.01)


async def test_a_good_file_is_used_and_told(daemon: Daemon) -> None:
    daemon.write("second")
    with capture_logs() as logs:
        assert await daemon.reloader().reload() == ""
    assert daemon.used == ["second"]
    assert len(daemon.attempts) == len(daemon.successes) == 1
    assert daemon.attempts[0] <= daemon.successes[0]
    assert daemon.around == ["begins", "ends"]
    assert [(line["event"], line["providers"]) for line in logs] == [("configuration reloaded", 1)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("providers: [{name: a, type: ope", "not well-formed YAML"),
        ("", "holds no setting"),
        ("provider: []\n", "did you mean 'providers'?"),
        (None, "No such file"),
    ],
)
async def test_a_file_that_cannot_be_used_changes_nothing_and_the_next_good_one_is(
    daemon: Daemon, text: str | None, words: str
) -> None:
    reloader = daemon.reloader()
    if text is None:
        daemon.file.unlink()
    else:
        daemon.file.write_text(text)
    with capture_logs() as logs:
        mistake = await reloader.reload()
    assert mistake.startswith(f"{FAILURE}: {daemon.file}")
    assert words in mistake
    assert (daemon.used, daemon.provider(), daemon.successes) == ([], "first", [])
    assert len(daemon.attempts) == 1
    assert [(line["log_level"], line["error"]) for line in logs] == [("error", mistake)]
    daemon.write("second")
    assert await reloader.reload() == ""
    assert (daemon.used, len(daemon.attempts), len(daemon.successes)) == (["second"], 2, 1)
    assert daemon.around == ["begins", "ends"] * 2


async def test_who_cannot_use_it_says_why_and_a_fault_of_ours_does_not_take_the_next_one_away(daemon: Daemon) -> None:
    reloader = daemon.reloader()
    daemon.write("second")
    daemon.refusal = AiproxydError("a worker cannot read a file")
    assert await reloader.reload() == f"{FAILURE}: a worker cannot read a file"
    daemon.refusal = ZeroDivisionError("ours")
    with capture_logs() as logs:
        assert "an error of this program's own: ZeroDivisionError('ours')" in await reloader.reload()
    assert any(line.get("exc_info") for line in logs)
    assert not daemon.successes
    daemon.refusal = None
    assert await reloader.reload() == ""
    assert daemon.used == ["second"]


async def test_the_environment_is_read_as_at_the_start(daemon: Daemon) -> None:
    assert await daemon.reloader(AIPROXYD_DRAIN_TIMEOUT_SECONDS="7").reload() == ""
    assert daemon.config.drain_timeout_seconds == 7


async def test_reloads_come_one_at_a_time(daemon: Daemon) -> None:
    reloader = daemon.reloader()
    daemon.gate = asyncio.Event()
    several = [asyncio.ensure_future(reloader.reload()) for _ in range(5)]
    async with asyncio.timeout(30):
        while not daemon.at_work:
            await asyncio.sleep(0.01)
    assert len(daemon.attempts) == 1
    daemon.gate.set()
    assert await asyncio.gather(*several) == [""] * 5
    assert (daemon.most_at_work, len(daemon.used)) == (1, 5)


async def test_a_file_that_is_being_written_is_read_when_it_is_at_rest(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_watching, "SETTLE_SECONDS", 1.0)
    reloader = daemon.reloader()
    daemon.file.write_text("providers: [{name: sec")
    reloading = asyncio.ensure_future(reloader.reload())
    await asyncio.sleep(0)  # it looks, and finds that the file was written just now
    assert not daemon.attempts
    daemon.file.write_text("providers: [{name: second, type: openai}]\n")
    assert await reloading == ""
    assert daemon.used == ["second"]


async def test_requests_and_changes_of_the_file_lead_to_reloads(daemon: Daemon) -> None:
    reloader = daemon.reloader()
    async with watching(reloader):
        reloader.request()
        reloader.request()  # is the same one
        await until_used(daemon, "first")
        daemon.file.write_text("providers: [{name: second, type: openai}]\n")
        await until_used(daemon, "second")
        replacement = daemon.file.with_suffix(".new")
        replacement.write_text("providers: [{name: third, type: openai}]\n")
        replacement.replace(daemon.file)
        await until_used(daemon, "third")
    assert len(daemon.attempts) == 3


async def test_a_file_that_the_configuration_in_use_names_is_watched(daemon: Daemon, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("sk-first-0123456789\n")
    daemon.file.write_text(f"providers: [{{name: keyed, type: openai, keys: [{{file: {key}}}]}}]\n")
    os.utime(daemon.file, (0, 0))
    reloader = daemon.reloader()
    async with watching(reloader):
        reloader.request()
        await until_used(daemon, "keyed")
        daemon.used.clear()
        key.write_text("sk-second-0123456789\n")
        await until_used(daemon, "keyed")


async def test_without_a_file_there_is_nothing_to_watch_and_the_environment_can_be_read_again(daemon: Daemon) -> None:
    environ = {"AIPROXYD_DRAIN_TIMEOUT_SECONDS": "5"}
    reloader = Reloader(path=None, environ=environ, current=lambda: daemon.config, use=daemon.use, times=daemon)
    assert await reloader.reload() == ""
    assert daemon.config.drain_timeout_seconds == 5


async def test_a_file_that_another_configuration_names_is_watched_from_then_on_without_a_walk_each_time(
    daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walks: list[Config] = []

    def walked(config: Config) -> frozenset[Path]:
        walks.append(config)
        return files_named(config)

    monkeypatch.setattr(reloader_module, "files_named", walked)
    key = tmp_path / "second.key"
    key.write_text("one")
    reloader = daemon.reloader()
    async with watching(reloader):
        daemon.file.write_text(f"providers: [{{name: second, type: openai, keys: [{{file: {key}}}]}}]\n")
        await until_used(daemon, "second")
        daemon.used.clear()
        key.write_text("two")
        await until_used(daemon, "second")
    assert len(walks) == len({id(config) for config in walks}) <= 3
