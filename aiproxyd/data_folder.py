"""The folder of a daemon: that it is there, and that it is one daemon's alone."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from aiproxyd.exceptions import AiproxydError


def own_folder(folder: Path) -> None:
    """Make `data_dir`, for its owner alone.

    Raises:
        AiproxydError: It cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise AiproxydError(f"{folder} cannot be used as data_dir: it is not a folder") from None
    except OSError as exc:
        raise AiproxydError(f"{folder} cannot be used as data_dir: {exc.strerror}") from exc


@contextlib.contextmanager
def sole_control(data_dir: Path) -> Iterator[None]:
    """Hold the lock that keeps a second daemon off the same folder.

    Raises:
        AiproxydError: Another daemon has it, or the folder cannot be used.
    """
    try:
        lock = os.open(data_dir / "control.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise AiproxydError(f"{data_dir} cannot be used as data_dir: {exc.strerror}") from exc
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AiproxydError(f"another aiproxyd uses {data_dir}; stop it or set another data_dir") from None
        yield
    finally:
        os.close(lock)
