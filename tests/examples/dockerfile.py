"""A Dockerfile as far as a test can follow it without Docker: instructions, and its shell commands run elsewhere."""

import json
import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple


class Instruction(NamedTuple):
    """One line of a Dockerfile, continuation lines joined."""

    word: str
    rest: str

    @property
    def arguments(self) -> list[str]:
        """The words of the rest, whether written as JSON or plainly, without options."""
        words = json.loads(self.rest) if self.rest.startswith("[") else shlex.split(self.rest)
        return [word for word in words if not word.startswith("--")]


def stages(path: Path) -> list[list[Instruction]]:
    """Return the instructions of each stage, its FROM first."""
    found: list[list[Instruction]] = []
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            found.append([])
        found[-1].append(Instruction(word, " ".join(rest.split())))
    return found


def run(command: str, *, folder: Path, replaced: dict[str, str], environ: dict[str, str]) -> None:
    """Run a RUN instruction's command with other paths.

    Args:
        command: As in the Dockerfile.
        folder: The stage's working folder.
        replaced: Paths of the image, and what stands for them here.
        environ: The whole environment.
    """
    for path, stand_in in replaced.items():
        command = command.replace(path, stand_in)
    done = subprocess.run(
        ["sh", "-ec", command], cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
