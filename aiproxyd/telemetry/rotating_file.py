"""A file of lines that is put aside when it has grown, and begun again: `FILE`, `FILE.1` the one before, and so on.

Writing never raises. A full disk loses lines, says so once, and says so again when it writes.
"""

import os
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from aiproxyd.exceptions import AiproxydError

log = structlog.get_logger("aiproxyd.log_file")


class RotatingFile:
    """One open file."""

    def __init__(self, path: Path, *, max_bytes: int, files: int) -> None:
        """Open `path` for appending, for its owner alone.

        Args:
            path: The file; its folder exists.
            max_bytes: Size at which it is put aside.
            files: How many that were put aside are kept.

        Raises:
            AiproxydError: It cannot be written.
        """
        self._file = -1
        self._path = path
        self._max_bytes = max_bytes
        self._files = files
        self.lost_lines = 0
        """Lines that could not be written."""
        try:
            self._open()
        except OSError as exc:
            raise AiproxydError(f"{path} cannot be written: {exc.strerror}") from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def write(self, line: str) -> None:
        """Append `line` and its end, whole or not at all as far as the disk allows."""
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        try:
            if self._size and self._size + len(data) > self._max_bytes:
                self._rotate()
            written = os.write(self._file, data)
            self._size += written
            if written < len(data):
                # The rest of a torn line would join the next one.
                os.ftruncate(self._file, self._size - written)
                self._size -= written
                raise OSError(28, "No space left on device")
        except OSError as exc:
            if not self.lost_lines:
                log.error("the interception log cannot be written", path=str(self._path), error=exc.strerror)
            self.lost_lines += 1
            return
        if self.lost_lines:
            log.warning("the interception log is written again", path=str(self._path), lost_lines=self.lost_lines)
            self.lost_lines = 0

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _open(self) -> None:
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._file).st_size

    def _rotate(self) -> None:
        for number in range(self._files - 1, 0, -1):
            older = self._aside(number)
            if older.exists():
                older.replace(self._aside(number + 1))
        self._path.replace(self._aside(1))
        before = self._file
        self._open()
        os.close(before)

    def _aside(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")
