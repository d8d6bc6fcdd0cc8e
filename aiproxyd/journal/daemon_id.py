"""The name of a daemon among those that share a database. It lives in the journal's folder, and goes with it."""

import uuid
from pathlib import Path

FILE = "daemon-id"


def daemon_id_of(folder: Path) -> str:
    """Return the id of the daemon whose journal is in `folder`; the first call makes it.

    Raises:
        OSError: It can neither be read nor written.
    """
    path = folder / FILE
    try:
        return str(uuid.UUID(path.read_text(encoding="ascii").strip()))
    except (FileNotFoundError, ValueError):
        # Missing, or cut by a crash. A new one does no harm: positions follow their segments.
        id_ = str(uuid.uuid4())
        temporary = path.with_name(FILE + ".tmp")
        temporary.write_text(id_ + "\n", encoding="ascii")
        temporary.replace(path)
        return id_
