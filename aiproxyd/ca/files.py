"""The names of a CA folder's files, and files that appear whole or not at all, with their mode from the first byte."""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

CERTIFICATE_NAME = "ca-cert.pem"
KEY_NAME = "ca-key.pem"


def write_whole(path: Path, content: bytes, *, mode: int) -> None:
    """Put `content` at `path` in one step that survives a power cut; a reader sees the old file or the new one.

    Args:
        path: Where; its folder exists.
        content: All of it.
        mode: Permission bits, whatever the umask.

    Raises:
        OSError: It could not be written; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_new(path: Path, content: bytes, *, mode: int) -> None:
    """Put `content` at `path`, where there is nothing yet.

    Raises:
        FileExistsError: There is something.
        OSError: It could not be written; nothing is left behind.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def private_folder(folder: Path) -> None:
    """Make `folder` and its parents where they are missing; what is made is for the owner alone.

    Raises:
        OSError: A part of the path is no folder, or may not be written.
    """
    for part in (*reversed(folder.parents), folder):
        # mkdir's mode is masked by the umask, which can only take rights away.
        with contextlib.suppress(FileExistsError):
            part.mkdir(mode=0o700)
    if not folder.is_dir():
        raise NotADirectoryError(20, "Not a directory", str(folder))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the one lock of `folder`, waiting for whoever has it. The kernel frees it when the holder dies."""
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
