"""Codex and Claude Code themselves: installed from npm in pinned versions, run once without a terminal through a daemon.

They are kept below `build/`, which git ignores, and are installed when they are first asked for: some 800 MB.
"""

import os
import shutil
import subprocess
from pathlib import Path

from tests.support.daemon import ROOT, Daemon

FOLDER = ROOT / "build" / "node-clients"

PACKAGES = {"codex": "@openai/codex@0.169.0", "claude": "@anthropic-ai/claude-code@2.1.329"}

INSTALL_TIMEOUT_SECONDS = 600.0
RUN_TIMEOUT_SECONDS = 120.0


class NotInstallable(Exception):
    """There is no npm, or what it needs cannot be reached; the message says what it said."""


def install(name: str) -> Path:
    """Return the program `codex` or `claude`, installed if it is not.

    Raises:
        NotInstallable: It cannot be.
    """
    package = PACKAGES[name]
    folder = FOLDER / package.rpartition("@")[2]
    program = folder / "node_modules" / ".bin" / name
    if (folder / "installed").exists():
        return program
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        raise NotInstallable("npm and node are not on PATH")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _run([npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), package])
        script = folder / "node_modules" / package.rpartition("@")[0] / "install.cjs"
        if script.exists():
            # Puts the native program of this machine in its place; newer npm leaves such scripts out unless asked.
            _run([node, str(script)])
        _run([str(program), "--version"])
    except (subprocess.SubprocessError, OSError) as exc:
        output = getattr(exc, "stderr", None) or b""
        raise NotInstallable(f"{package}: {exc} {output.decode(errors='replace')[-500:]}") from exc
    (folder / "installed").touch()
    return program


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_TIMEOUT_SECONDS)


def environment(daemon: Daemon, home: Path) -> dict[str, str]:
    """Return the environment in which both go through `daemon`, and know nobody but it."""
    return daemon.client_environment() | {
        "HOME": str(home),
        "NO_PROXY": "localhost,127.0.0.1,::1",
        "NODE_EXTRA_CA_CERTS": str(daemon.ca_file),
        "OPENAI_API_KEY": "sk-proj-0123456789abcdef",
        "CODEX_API_KEY": "sk-proj-0123456789abcdef",
        "CODEX_HOME": str(home / ".codex"),
        "ANTHROPIC_API_KEY": "sk-ant-api03-0123456789abcdef",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
    }


def ask(name: str, daemon: Daemon, folder: Path, prompt: str, *, model: str, options: tuple[str, ...] = ()) -> str:
    """Run a client once on `prompt` in a new repository `shop` below `folder`, and return what it printed.

    Args:
        name: `codex` or `claude`.
        daemon: Which it goes through.
        folder: For its home and the repository.
        prompt: What it is asked.
        model: The model's name; may hold a pace script.
        options: Further arguments.

    Raises:
        NotInstallable: It cannot be installed.
        subprocess.CalledProcessError: It failed; the error holds what it printed.
    """
    program = install(name)
    home, work = folder / "home", folder / "shop"
    (home / ".codex").mkdir(parents=True, exist_ok=True)
    work.mkdir(exist_ok=True)
    plain = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    subprocess.run(["git", "init", "-q", "-b", "main", str(work)], check=True, env=plain)
    arguments = {
        "codex": ["exec", "--skip-git-repo-check", *options, "-m", model, prompt],
        "claude": ["-p", prompt, "--model", model, *options],
    }[name]
    done = subprocess.run(
        [str(program), *arguments],
        cwd=work,
        env=environment(daemon, home),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_SECONDS,
        check=True,
    )
    return done.stdout
