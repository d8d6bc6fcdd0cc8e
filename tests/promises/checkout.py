"""The files of a checkout, as git knows them; of a source distribution, as they lie."""

import functools
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# The header alone: a test that needs one puts it together (`tests.support.certificates.pem`), as it is done here, so that whoever looks
# for keys finds none.
PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE" rb" KEY-----")

_NOT_OURS = {".venv", "build", "dist", "node_modules", "bench-results", "fuzz-findings", "htmlcov"}


@functools.cache
def tracked_files() -> tuple[Path, ...]:
    """Return every tracked file that exists."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    else:
        paths = [path for path in ROOT.rglob("*") if not (_NOT_OURS | {"__pycache__"}) & set(path.relative_to(ROOT).parts)]
    return tuple(path for path in paths if path.is_file())


def package_modules() -> list[Path]:
    """Return every tracked Python file of the package."""
    return [path for path in tracked_files() if path.suffix == ".py" and path.is_relative_to(ROOT / "aiproxyd")]


def name_of(path: Path) -> str:
    """Return `path` from the root, for messages."""
    return path.relative_to(ROOT).as_posix()
