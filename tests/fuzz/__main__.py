"""Run every fuzz target beside this file, one after the other: `python -m tests.fuzz [SECONDS]`, 60 seconds each by default.

A target is a module `fuzz_*.py` that takes the seconds as its argument and ends with a status other than 0 at a fault.
"""

import os
import pathlib
import subprocess
import sys


def main() -> int:
    """Return the number of targets that found a fault."""
    seconds = (sys.argv[1:] or [os.environ.get("SECONDS", "60")])[0].removeprefix("SECONDS=")
    targets = sorted(path.stem for path in pathlib.Path(__file__).parent.glob("fuzz_*.py"))
    return sum(
        subprocess.run([sys.executable, "-m", f"tests.fuzz.{target}", seconds], check=False).returncode != 0
        for target in targets
    )


if __name__ == "__main__":
    raise SystemExit(main())
