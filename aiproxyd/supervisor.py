"""Keeps the worker processes alive: starts them, talks with them, restarts what dies, drains them at the end.

Not a judge of what they do: it only knows processes and channels.
"""

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import structlog

from aiproxyd.channel import (
    Accepted,
    Adopt,
    Answer,
    Authenticate,
    Channel,
    Configure,
    Drain,
    Forget,
    Holding,
    KeyMarked,
    Message,
    Propose,
    Ready,
    Rejected,
    Revoked,
)
from aiproxyd.exceptions import AiproxydError, ConfigError
from aiproxyd.identity.answer import Identified

log = structlog.get_logger("aiproxyd.supervisor")

# A worker imports and listens within a second on an idle machine; a loaded one gets a minute.
START_TIMEOUT_SECONDS = 60.0

# First wait before a dead worker's successor starts, and the longest. It doubles with each early death.
FIRST_BACKOFF_SECONDS = 0.1
MAX_BACKOFF_SECONDS = 10.0

# A worker that lived so long did not die of what killed the one before.
HEALTHY_SECONDS = 30.0

# Threads of the event loop, which resolve names alone. libuv gives look-ups half of its threads, 2 of 4 where nobody says otherwise,
# and a look-up cannot be cancelled: two names whose servers are silent would stop every other connection for seconds.
RESOLVER_THREADS = 64

# A worker builds what a configuration needs in milliseconds; one that says nothing for so long does not follow.
PROPOSAL_TIMEOUT_SECONDS = 10.0

# Beyond its drain timeout a worker has so long to write its last observations.
EXIT_GRACE_SECONDS = 3.0


class WorkerProcess:
    """One running worker."""

    def __init__(self, worker_id: str, process: asyncio.subprocess.Process, channel: Channel) -> None:
        self.worker_id = worker_id
        self.process = process
        self.channel = channel
        self.is_ready = asyncio.Event()
        self.objection: tuple[int, asyncio.Future[str | None]] | None = None
        """Number of the proposal that is open, and what the worker has against it: nothing, or a sentence; None when it died."""
        self.started_at = time.monotonic()
        self.sessions: frozenset[str] = frozenset()
        """Those with something open in it."""


class Supervisor:
    """All workers of a control process."""

    def __init__(
        self,
        *,
        listen: Mapping[str, Sequence[socket.socket]],
        configuration: Configure,
        identify: Callable[[str], Awaitable[Identified]],
        key_marked: Callable[[KeyMarked], None] = lambda _marked: None,
    ) -> None:
        """Prepare; nothing runs before `start`.

        Args:
            listen: Bound, listening sockets that every worker inherits, by what they are for (see `worker`).
            configuration: For every worker.
            identify: Answers whose credential it is; raises AiproxydError when nobody can tell.
            key_marked: Hears what a worker learnt about a key, besides the other workers.
        """
        self.restarts = 0
        self._listen = listen
        self._configuration = configuration
        self._identify = identify
        self._key_marked = key_marked
        self._workers: dict[int, WorkerProcess] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._answers: set[asyncio.Task[None]] = set()
        self._is_stopping = False
        self._revision = 0

    @property
    def pids(self) -> list[int]:
        """Process ids of the live workers."""
        return [worker.process.pid for worker in self._workers.values()]

    @property
    def pids_by_slot(self) -> dict[int, int]:
        """Process ids of the live workers by their number, which a successor takes over."""
        return {slot: worker.process.pid for slot, worker in self._workers.items()}

    @property
    def ready_workers(self) -> int:
        """How many workers accept connections."""
        return sum(worker.is_ready.is_set() for worker in self._workers.values())

    async def start(self, count: int) -> None:
        """Start `count` workers and return when all accept connections.

        Raises:
            AiproxydError: One died or was not ready in time; the others are stopped.
        """
        for slot in range(count):
            await self._spawn(slot)
        waiting = [asyncio.ensure_future(self._wait_ready(worker)) for worker in self._workers.values()]
        self._keepers = [asyncio.ensure_future(self._keep(slot)) for slot in range(count)]
        try:
            async with asyncio.timeout(START_TIMEOUT_SECONDS):
                await asyncio.gather(*waiting)
        except (TimeoutError, AiproxydError) as exc:
            await self.stop(0)
            raise AiproxydError(f"a worker could not start: {exc or 'it was not ready in time'}; see the log above") from exc
        finally:
            for wait in waiting:
                wait.cancel()

    async def configure(self, configuration: Configure) -> None:
        """Make every worker use a new configuration, and those that start later; or nobody. Not to be called again meanwhile.

        Raises:
            ConfigError: A worker cannot use it; all keep the one they have.
        """
        self._revision += 1
        revision = self._revision
        asked = [worker for worker in self._workers.values() if worker.is_ready.is_set()]
        objections = [self._propose(worker, revision, configuration) for worker in asked]
        if objections:
            await asyncio.wait(objections, timeout=PROPOSAL_TIMEOUT_SECONDS)
        for worker, objection in zip(asked, objections, strict=True):
            worker.objection = None
            reason = objection.result() if objection.done() else "it did not answer in time"
            if reason:
                objection.cancel()
                raise ConfigError(f"worker {worker.process.pid} cannot use it: {reason}")
        self._configuration = configuration
        for worker in self._workers.values():
            # One that started meanwhile was told the configuration before.
            worker.channel.send(Adopt(revision=revision) if worker in asked else configuration)

    def _propose(self, worker: WorkerProcess, revision: int, configuration: Configure) -> asyncio.Future[str | None]:
        objection: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        worker.objection = revision, objection
        worker.channel.send(Propose(revision=revision, configuration=configuration))
        return objection

    def forget_answers(self) -> None:
        """Make every worker ask again for every credential."""
        self._tell(Forget())

    def revoke(self, holders: Iterable[str]) -> None:
        """Make every worker close what these have open (see `Principal`), and ask again for every credential."""
        self._tell(Forget())
        self._tell(Revoked(holders=tuple(holders)))

    def sessions(self) -> set[str]:
        """Return the sessions that have something open in a worker, as far as they told."""
        return set().union(*(worker.sessions for worker in self._workers.values()))

    async def stop(self, timeout_seconds: float) -> None:
        """Drain every worker; kill those that are still there when the time is over.

        A second call with 0, while the first one waits, closes at once.
        """
        self._is_stopping = True
        self._tell(Drain(timeout_seconds=timeout_seconds))
        if self._keepers:
            _, late = await asyncio.wait(self._keepers, timeout=timeout_seconds + EXIT_GRACE_SECONDS)
            if late:
                log.warning("workers did not exit in time and are killed", pids=self.pids)
        for worker in list(self._workers.values()):
            with contextlib.suppress(ProcessLookupError):
                worker.process.kill()
            await worker.process.wait()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    def _tell(self, message: Message, *, but: WorkerProcess | None = None) -> None:
        for worker in self._workers.values():
            if worker is not but:
                worker.channel.send(message)

    async def _spawn(self, slot: int) -> WorkerProcess:
        worker_id = str(uuid.uuid4())
        ours, theirs = socket.socketpair()
        listen = {kind: [socket_.fileno() for socket_ in sockets] for kind, sockets in self._listen.items()}
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "aiproxyd.worker",
                    "--id",
                    worker_id,
                    "--channel",
                    str(theirs.fileno()),
                    "--listen",
                    ",".join(f"{kind}:{descriptor}" for kind, descriptors in listen.items() for descriptor in descriptors),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=[theirs.fileno(), *itertools.chain.from_iterable(listen.values())],
                    env={"UV_THREADPOOL_SIZE": str(RESOLVER_THREADS), **os.environ, "PYTHONUNBUFFERED": "1"},
                )
        except OSError:
            ours.close()
            raise
        worker = WorkerProcess(worker_id, process, await Channel.open(ours))
        worker.channel.send(self._configuration)
        self._workers[slot] = worker
        return worker

    async def _wait_ready(self, worker: WorkerProcess) -> None:
        ready = asyncio.ensure_future(worker.is_ready.wait())
        exited = asyncio.ensure_future(worker.process.wait())
        try:
            await asyncio.wait([ready, exited], return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
            exited.cancel()
        if not worker.is_ready.is_set():
            raise AiproxydError(f"worker {worker.process.pid} ended with status {worker.process.returncode}")

    async def _keep(self, slot: int) -> None:
        """Converse with the worker of `slot`, and with its successors until we stop."""
        backoff_seconds = FIRST_BACKOFF_SECONDS
        while True:
            worker = self._workers[slot]
            await self._converse(worker)
            status = await self._await_exit(worker)
            del self._workers[slot]
            if self._is_stopping:
                return
            if time.monotonic() - worker.started_at > HEALTHY_SECONDS:
                backoff_seconds = FIRST_BACKOFF_SECONDS
            self.restarts += 1
            log.error(
                "worker died and is restarted",
                pid=worker.process.pid,
                worker_id=worker.worker_id,
                status=status,
                restart_seconds=backoff_seconds,
            )
            is_spawned = False
            while not is_spawned:
                await asyncio.sleep(backoff_seconds)
                backoff_seconds = min(backoff_seconds * 2, MAX_BACKOFF_SECONDS)
                if self._is_stopping:
                    return
                try:
                    await self._spawn(slot)
                    is_spawned = True
                except OSError as exc:
                    # No process, memory or descriptor to be had just now, or an upgrade replaces our files: try again.
                    log.error("a worker cannot be started", error=str(exc), restart_seconds=backoff_seconds)

    async def _await_exit(self, worker: WorkerProcess) -> int:
        """Return the exit status; a worker that closed its channel but lingers is killed, unless it drains."""
        try:
            async with asyncio.timeout(None if self._is_stopping else EXIT_GRACE_SECONDS):
                return await worker.process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                worker.process.send_signal(signal.SIGKILL)
            return await worker.process.wait()
        finally:
            worker.channel.close()

    async def _converse(self, worker: WorkerProcess) -> None:
        while (message := await worker.channel.receive()) is not None:
            match message:
                case Ready():
                    worker.is_ready.set()
                case Accepted(revision=revision):
                    _settle(worker, revision, "")
                case Rejected(revision=0, reason=reason):
                    log.error("worker keeps its old configuration", pid=worker.process.pid, reason=reason)
                case Rejected(revision=revision, reason=reason):
                    _settle(worker, revision, reason)
                case Authenticate():
                    # A task each: a slow identity service must not hold up the questions behind it.
                    task = asyncio.ensure_future(self._answer(worker, message))
                    self._answers.add(task)
                    task.add_done_callback(self._answers.discard)
                case Holding(sessions=sessions):
                    worker.sessions = sessions
                case KeyMarked():
                    self._key_marked(message)
                    self._tell(message, but=worker)
                case _:
                    log.error("worker sent what only control may send", pid=worker.process.pid)
                    return

        if worker.objection is not None:
            # Its successor starts with whatever is in use by then.
            _settle(worker, worker.objection[0], None)

    async def _answer(self, worker: WorkerProcess, question: Authenticate) -> None:
        try:
            answer = await self._identify(question.credential)
        except AiproxydError as exc:
            log.error("a credential could not be checked", error=str(exc))
            worker.channel.send(Answer(question=question.question, failure=str(exc)))
        else:
            worker.channel.send(
                Answer(question=question.question, principal=answer.principal, fresh_seconds=answer.fresh_seconds)
            )


def _settle(worker: WorkerProcess, revision: int, reason: str | None) -> None:
    """Take what a worker has against a proposal, unless nobody waits for it any more."""
    if worker.objection is not None and worker.objection[0] == revision and not worker.objection[1].done():
        worker.objection[1].set_result(reason)
