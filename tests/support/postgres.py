"""A real PostgreSQL server for tests: in a temporary folder, on a Unix socket and on no port, gone with the session.

PostgreSQL refuses to run as root; root starts it as the user `postgres`.
"""

import getpass
import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def program(name: str) -> str | None:
    """Return the path of one of PostgreSQL's programs; Debian keeps the server's off the PATH."""
    found = shutil.which(name)
    if found is not None:
        return found
    return next((str(path) for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)), None)


def is_installed() -> bool:
    """Whether the tests can have a server."""
    return program("initdb") is not None and program("pg_ctl") is not None


class PostgresServer:
    """A running server."""

    def __init__(self, folder: Path, user: str) -> None:
        self.folder = folder
        self.user = user

    def new_database(self) -> str:
        """Make an empty database and return its URL, without a driver."""
        name = f"test_{uuid.uuid4().hex}"
        self._run("createdb", "-h", str(self.folder), "-U", self.user, name)
        return f"postgresql://{self.user}@/{name}?host={self.folder}"

    def drop_database(self, url: str) -> None:
        """Remove a database; connections to it are cut."""
        name = url.partition("@/")[2].partition("?")[0]
        self._run("dropdb", "-f", "-h", str(self.folder), "-U", self.user, name)

    def stop(self) -> None:
        """Stop at once, as in a crash."""
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop")

    def start(self) -> None:
        """Start, or start again."""
        # Without a sync at each commit: the tests are about transactions, not about disks.
        options = f"-c listen_addresses='' -c unix_socket_directories='{self.folder}' -c fsync=off -c full_page_writes=off"
        log = self.folder / "log"
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-l", str(log), "-o", options, "-w", "-t", "60", "start")

    def _run(self, name: str, *arguments: str) -> None:
        command = [program(name) or name, *arguments]
        prefix = ["runuser", "-u", self.user, "--"] if self.user != getpass.getuser() else []
        result = subprocess.run(
            [*prefix, *command], check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            cwd=self.folder, text=True, errors="replace", timeout=90,
        )  # fmt: skip
        assert result.returncode == 0, f"{command[0]}: {result.stdout}"


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Yield a server."""
    # Not below pytest's folders: those are closed to other users, and a socket's path has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="aiproxyd-pg-"))
    user = "postgres" if os.geteuid() == 0 else getpass.getuser()
    if os.geteuid() == 0:
        entry = pwd.getpwnam(user)
        os.chown(folder, entry.pw_uid, entry.pw_gid)
    server = PostgresServer(folder, user)
    try:
        server._run("initdb", "-D", str(folder / "data"), "-U", user, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
