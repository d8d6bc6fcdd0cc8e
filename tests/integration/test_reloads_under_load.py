"""Two hundred reloads while everybody works: nobody notices."""

import asyncio
import collections
import contextlib
import random
import re
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import httpx
import pytest
import yaml

from aiproxyd.config.loader import load
from aiproxyd.exceptions import ConfigError
from tests.support.clients import Wire, decrypted, message
from tests.support.daemon import Daemon, eventually
from tests.support.fake_provider import FakeProvider

RELOADS = 200
STREAMS = 3

# Between two requests of a client. Without it the clients would leave nothing of a small machine to the daemon.
PAUSE_SECONDS = 0.15

ATTEMPT = "coder_ai_gateway_proxy_providers_last_reload_timestamp_seconds"
SUCCESS = "coder_ai_gateway_proxy_providers_last_reload_success_timestamp_seconds"

# Who is asked meanwhile: an entry that every good file has as it is, and one that changes its name and its place.
STEADY, MOVING = "api.anthropic.com", "api.openai.com"


class Load:
    """Clients that ask and ask until they are told to stop; every answer that is not a 200 is kept."""

    def __init__(self, daemon: Daemon, model: str) -> None:
        self.failures: list[str] = []
        self.answers: collections.Counter[str] = collections.Counter()
        self._daemon = daemon
        self._model = model
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    async def _run(self) -> None:
        trust = ssl.create_default_context(cafile=str(self._daemon.ca_file))

        def client() -> httpx.AsyncClient:
            return httpx.AsyncClient(proxy=self._daemon.proxy_url(), verify=trust, timeout=30)

        async def ask(asking: httpx.AsyncClient, host: str, what: str, number: int) -> None:
            stream = number % 3 == 0
            body = message(f"{self._model}-{what}", stream=stream)
            path = "/v1/messages" if host == STEADY else "/v1/chat/completions"
            try:
                answer = await asking.post(f"https://{host}{path}", content=body)
            except httpx.HTTPError as exc:
                self.failures.append(f"{what} {number}: {exc!r}")
                return
            self.answers[what] += 1
            if answer.status_code != 200 or (
                stream and b"stop" not in answer.content[-300:] and b"[DONE]" not in answer.content
            ):
                self.failures.append(f"{what} {number}: {answer.status_code} {answer.text[:200]}")

        async def keeps_its_connection(name: str) -> None:
            async with client() as asking:
                number = 0
                while not self._stop.is_set():
                    number += 1
                    await ask(asking, STEADY, name, number)
                    await asyncio.sleep(PAUSE_SECONDS)

        async def connects_each_time(host: str, name: str) -> None:
            number = 0
            while not self._stop.is_set():
                number += 1
                async with client() as asking:
                    await ask(asking, host, name, number)
                await asyncio.sleep(PAUSE_SECONDS)

        await asyncio.gather(
            keeps_its_connection("kept"),
            connects_each_time(STEADY, "fresh1"),
            connects_each_time(MOVING, "fresh2"),
        )


class Files:
    """Good, bad and half-written configurations, in an order that is the same in each run."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._order = random.Random(7)
        self.good = daemon.config_file.read_text()
        self._base = yaml.safe_load(self.good)
        self.expected: dict[str, str] = {}
        """Name and status of the providers of the newest good file."""

    def next_good(self) -> str:
        """A file that says the same to whoever is being served, and something else besides."""
        draw = self._order
        providers: list[dict[str, Any]] = [{"name": "steady", "type": "anthropic"}]
        moving = f"moving-{draw.randrange(1000)}"
        providers.append({"name": moving, "type": "openai"})
        self.expected = {"steady": "enabled", moving: "enabled"}
        if draw.random() < 0.5:
            providers.append({"name": "zz-twice", "type": "openai"})
            self.expected["zz-twice"] = "proxy_excluded"
        if draw.random() < 0.5:
            providers.append({"name": "off", "type": "google", "enabled": False})
            self.expected["off"] = "disabled"
        if draw.random() < 0.5:
            providers.append({"name": "broken", "type": "openai-compat", "base_url": "nowhere"})
            self.expected["broken"] = "error"
        draw.shuffle(providers)
        config = {**self._base, "providers": providers, "drain_timeout_seconds": draw.randrange(5, 20)}
        self.good = yaml.safe_dump(config, sort_keys=False)
        return self.good

    def bad(self) -> str:
        return self._order.choice(
            [
                self.good + "\nworkerz: 3\n",
                self.good.replace("type: anthropic", "type: anthropomorphic"),
                self.good.replace("providers:", "providers: ["),
                "",
                "just words",
                "\x00\x01",
            ]
        )

    def half(self) -> str:
        """The beginning of a good file that whoever reads it can tell from a whole one: not every cut can be."""
        while True:
            cut = self.good[: self._order.randrange(len(self.good))]
            self._daemon.config_file.with_suffix(".half").write_text(cut)
            try:
                load(self._daemon.config_file.with_suffix(".half"), {}, again=True)
            except ConfigError:
                return cut

    def kinds(self) -> Iterator[str]:
        kinds = ["good"] * 70 + ["bad"] * 50 + ["half"] * 40 + ["slow"] * 20 + ["quiet"] * 20
        assert len(kinds) == RELOADS
        self._order.shuffle(kinds)
        yield from kinds


@pytest.mark.timeout(900)
def test_two_hundred_reloads_of_good_bad_and_half_written_files_under_load(
    own_daemon, provider: FakeProvider, model: str
) -> None:
    steady = {"name": "steady", "type": "anthropic"}
    daemon: Daemon = own_daemon(workers=2, config={"providers": [steady, {"name": "moving", "type": "openai"}]})
    files = Files(daemon)
    gate = provider.gate(model)
    done: collections.Counter[str] = collections.Counter()

    with contextlib.ExitStack() as stack:
        streams = []
        for number in range(STREAMS):
            wire = stack.enter_context(decrypted(daemon, STEADY))
            body = message(f"{model}-stream{number}+gate={model}", stream=True)
            wire.request("POST", "/v1/messages", STEADY, body, (("Accept-Encoding", "identity"),), read=False)
            events = wire.events(wire.read_head())
            next(events)
            streams.append(events)

        said, before = Said(daemon), state_of(daemon)
        with Load(daemon, model) as load_:
            for kind in files.kinds():
                succeeds = kind in {"good", "slow", "quiet"}
                said.catch_up()
                reload(daemon, files, kind)
                # The log says when to look at the metrics: to make them again and again would be the test's load, not the clients'.
                said.wait_for("configuration reloaded" if succeeds else "configuration not reloaded", kind)

                def is_over(before: State = before, *, succeeds: bool = succeeds) -> State | None:
                    now = state_of(daemon)
                    return now if now.attempt > before.attempt and (not succeeds or now.success >= now.attempt) else None

                after: State = eventually(is_over, f"the {kind} file to be read")
                assert (after.success > before.success) == succeeds, kind
                assert after.statuses == (files.expected if succeeds else before.statuses)
                before = after
                done[kind] += 1
        assert load_.failures == []
        assert all(load_.answers[name] > 50 for name in ("kept", "fresh1", "fresh2")), load_.answers

        gate.release(1000)
        for events in streams:
            assert b"message_stop" in list(events)[-1]

    assert sum(done.values()) == RELOADS
    asked = sum(load_.answers.values())
    records = daemon.records(model, count=asked + STREAMS, timeout_seconds=60)
    assert {record["outcome"] for record in records} == {"completed"}
    assert "Traceback" not in daemon.log()
    with Wire(daemon) as wire:
        assert wire.connect("api.anthropic.com:443").status == 200


def reload(daemon: Daemon, files: Files, kind: str) -> None:
    """Write the next file of this kind, and say so; `quiet` leaves that to the file."""
    match kind:
        case "good":
            daemon.config_file.write_text(files.next_good())
            daemon.reload()
        case "bad":
            daemon.config_file.write_text(files.bad())
            daemon.reload()
        case "half":
            daemon.config_file.write_text(files.half())
            daemon.reload()
        case "slow":
            # A signal in the middle of a write.
            text = files.next_good()
            with daemon.config_file.open("w") as writing:
                writing.write(text[: len(text) // 2])
                writing.flush()
                daemon.reload()
                time.sleep(0.02)
                writing.write(text[len(text) // 2 :])
        case "quiet":
            fresh = daemon.config_file.with_suffix(".new")
            fresh.write_text(files.next_good())
            fresh.replace(daemon.config_file)


class Said:
    """What the daemon's log says from some moment on, without reading all of it each time."""

    def __init__(self, daemon: Daemon) -> None:
        self._file = daemon.log_file
        self._from = 0

    def catch_up(self) -> None:
        """Begin at the end of what was said."""
        self._from = self._file.stat().st_size

    def wait_for(self, text: str, what: str) -> None:
        """Return once `text` was said."""
        deadline = time.monotonic() + 30
        with self._file.open("rb") as log:
            log.seek(self._from)
            seen = b""
            while text.encode() not in seen:
                assert time.monotonic() < deadline, f"{what}: {text!r} was not said within 30 s, but {seen!r}"
                time.sleep(0.01)
                seen += log.read()


class State(NamedTuple):
    """What the metrics say about reloads."""

    attempt: float
    success: float
    statuses: dict[str, str]


def state_of(daemon: Daemon) -> State:
    """Read the few lines that matter here: to parse all of them takes longer than a reload."""
    text = daemon.get("/metrics")[1].decode()
    times = [float(re.findall(rf"^{name} (\S+)$", text, re.MULTILINE)[0]) for name in (ATTEMPT, SUCCESS)]
    info = r'^coder_ai_gateway_proxy_provider_info{provider_name="(.+?)",provider_type=".+?",status="(.+?)"} 1.0$'
    return State(*times, dict(re.findall(info, text, re.MULTILINE)))
