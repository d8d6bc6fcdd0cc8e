"""The worker's half of the journal: observations become lines of append-only segment files.

It is no database and no log: a segment is read once by each follower and then removed.

Strategy:

* One line an observation, one `write` a batch. A `write` that returned survives the death of every process (the kernel owns
  the pages); there is no `fsync`, because a power cut also ends the connections the records are about.
* A worker id names one life of one process. The lock file is locked before it gets its name, so whoever finds it by name
  and can lock it knows that the worker is gone.
* A disk that is full may take a part of a line. The rest stays at the head of the buffer and is written first when there is
  room, so a segment never holds a broken line in its middle.
* While writing fails, the buffer keeps what it has up to `MAX_PENDING_BYTES` and later observations are lost and counted. The
  oldest are kept, because the beginnings of interceptions are worth more than their middles.
"""

import fcntl
import os
import re
from pathlib import Path

import msgspec
import structlog

from aiproxyd.journal.segments import journal_bytes, lock_name, segment_name, segments_in
from aiproxyd.model.observation import Observation, RecordsLost

_log = structlog.get_logger(__name__)

MAX_SEGMENT_BYTES = 16 << 20
"""A segment that reached this size is finished and the next is begun. 16 MiB is about 30,000 interceptions without content."""

MAX_PENDING_BYTES = 1 << 20
"""What the buffer may hold while the journal cannot be written."""

# While the journal is full it is measured again at every so-manieth flush: a scan of 256 segments takes under a millisecond.
_FLUSHES_BETWEEN_MEASUREMENTS = 64

_LINE_FEED = 0x0A
_SURROGATE = re.compile("[\ud800-\udfff]")


class JournalWriter:
    """Appends observations of one worker. For one thread; no method but the constructor raises.

    Args:
        folder: The journal's folder; made with mode 0700 when absent.
        worker_id: Unique for every start of every worker; letters, digits, `-`, `_` and `.`.
        max_segment_bytes: Size at which a segment is finished.
        max_journal_bytes: Size of the whole folder at which nothing more is written until a follower has removed some of it;
            checked when a segment is begun, so exceeded by at most one segment a worker. None is no limit.

    Raises:
        OSError: The folder cannot be written, or another process lives under this worker id.
        ValueError: The worker id cannot be a part of a file name.
    """

    def __init__(
        self, folder: Path, worker_id: str, *, max_segment_bytes: int = MAX_SEGMENT_BYTES, max_journal_bytes: int | None = None
    ) -> None:
        self.folder = folder
        self.worker_id = worker_id
        self._max_segment_bytes = max_segment_bytes
        self._max_journal_bytes = max_journal_bytes
        self._encoder = msgspec.json.Encoder()
        self._buffer = bytearray()
        self._lost = 0
        self._lost_at = 0.0
        self._failing = False
        self._flushes_until_measurement = 0
        self._segment: int | None = None
        self._segment_bytes = 0
        self._is_torn = False
        self._is_closed = False
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _take_lock(folder, worker_id)
        self._sequence = max((s.sequence for s in segments_in(folder) if s.worker_id == worker_id), default=0)
        try:
            self._begin_segment(measured=False)
        except OSError:
            os.close(self._lock)
            raise

    @property
    def has_pending(self) -> bool:
        """Whether something was appended that is not written."""
        return bool(self._buffer) or self._lost > 0

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt to write failed. A `flush` that succeeds ends it."""
        return self._failing

    def append(self, observation: Observation) -> None:
        """Put `observation` into the buffer; `flush` writes it. Never raises: what cannot be kept is counted as lost."""
        if self._is_closed:
            return
        buffer = self._buffer
        before = len(buffer)
        try:
            self._encoder.encode_into(observation, buffer, -1)
        except UnicodeEncodeError:
            # A lone surrogate: JSON bodies may hold one (`"\ud800"`), UTF-8 may not.
            buffer[before:] = self._encoder.encode(_without_surrogates(msgspec.to_builtins(observation)))
        except (ValueError, TypeError, OverflowError) as exc:
            del buffer[before:]
            self._lose(observation)
            _log.error("observation cannot be encoded", kind=type(observation).__name__, error=str(exc))
            return
        buffer += b"\n"
        if self._failing and len(buffer) > MAX_PENDING_BYTES:
            del buffer[before:]
            self._lose(observation)

    def flush(self) -> None:
        """Write what is pending, in one `write` where the disk takes it. Never raises; `is_failing` tells."""
        if self._is_closed or not (self._buffer or self._lost):
            return
        try:
            self._write()
        except OSError as exc:
            if not self._failing:
                _log.error("journal cannot be written", worker_id=self.worker_id, error=exc.strerror or str(exc))
            self._failing = True
            return
        if self._failing:
            _log.info("journal can be written again", worker_id=self.worker_id)
            self._failing = False

    def close(self) -> None:
        """Write what is pending and let go of the lock. The writer is spent: what is told to it later goes nowhere."""
        self.flush()
        self._is_closed = True
        if self._segment is not None:
            os.close(self._segment)
            self._segment = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _lose(self, observation: Observation) -> None:
        self._lost += 1
        self._lost_at = observation.at

    def _write(self) -> None:
        if self._segment is None or (self._segment_bytes >= self._max_segment_bytes and not self._is_torn):
            self._begin_segment(measured=True)
        assert self._segment is not None
        while self._buffer:
            self._write_once(self._segment)
        if self._lost:
            lost = RecordsLost(at=self._lost_at, count=self._lost)
            self._buffer += self._encoder.encode(lost) + b"\n"
            # From here the loss is a line like any other.
            self._lost = 0
            while self._buffer:
                self._write_once(self._segment)

    def _write_once(self, segment: int) -> None:
        written = os.write(segment, self._buffer)
        if written:
            self._is_torn = self._buffer[written - 1] != _LINE_FEED
        self._segment_bytes += written
        del self._buffer[:written]

    def _begin_segment(self, *, measured: bool) -> None:
        """Open the next segment; the old one stays in use when that fails for want of descriptors.

        Raises:
            OSError: There is no segment to write to, or the journal is full.
        """
        if measured:
            self._check_journal_size()
        name = segment_name(self.worker_id, self._sequence + 1)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            segment = os.open(self.folder / name, flags, 0o600)
        except OSError:
            if self._segment is None:
                raise
            return
        if self._segment is not None:
            os.close(self._segment)
        self._segment = segment
        self._segment_bytes = 0
        self._sequence += 1

    def _check_journal_size(self) -> None:
        if self._max_journal_bytes is None:
            return
        if self._failing and self._flushes_until_measurement > 0:
            self._flushes_until_measurement -= 1
            raise OSError(_full_text(self._max_journal_bytes))
        if journal_bytes(self.folder) >= self._max_journal_bytes:
            self._flushes_until_measurement = _FLUSHES_BETWEEN_MEASUREMENTS
            raise OSError(_full_text(self._max_journal_bytes))


def _full_text(max_journal_bytes: int) -> str:
    return f"the journal holds its limit of {max_journal_bytes} bytes"


def _take_lock(folder: Path, worker_id: str) -> int:
    final = folder / lock_name(worker_id)
    unnamed = folder / f"{lock_name(worker_id)}.{os.getpid()}"
    lock = os.open(final, os.O_RDWR | os.O_CLOEXEC) if final.exists() else -1
    try:
        if lock >= 0:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        lock = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unnamed.rename(final)
    except OSError:
        if lock >= 0:
            os.close(lock)
        raise
    return lock


def _without_surrogates(value: object) -> object:
    match value:
        case str():
            return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", value)
        case dict():
            return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
        case list() | tuple():
            return [_without_surrogates(item) for item in value]
        case _:
            return value
