"""Tells whether anybody wrote to a SQLite database since, without asking it. Not what was written.

Facts:
- A commit writes to the WAL and a checkpoint to the database itself, neither through memory, so the kernel notes time and size of both.
- The size alone says little: a WAL is begun again at its front and stays as long as it was.
- Others see a commit once its bytes are on the disk, not when they were written: who asks in between has the old answer for the new time.
"""

import time
from pathlib import Path

# For so long after a write nobody can tell. Times of files come in steps, of 1 to 10 ms as a rule and of 2 s at most: within one step a
# second write has the time of the first. And a disk that is busy takes its seconds for a sync.
_UNSURE_SECONDS = 10.0


def written_at(file: Path) -> tuple[tuple[int, ...], ...] | None:
    """Return what is another value after any later write to the database `file`, by whatever process; None while nobody can tell."""
    states: list[tuple[int, ...]] = []
    file = file.resolve()  # the WAL lies beside what a link leads to
    for part in (file, file.with_name(f"{file.name}-wal")):
        try:
            state = part.stat()
        except FileNotFoundError:
            states.append(())
            continue
        except OSError:
            return None
        if state.st_mtime > time.time() - _UNSURE_SECONDS:
            return None
        states.append((state.st_ino, state.st_size, state.st_mtime_ns))
    return tuple(states)
