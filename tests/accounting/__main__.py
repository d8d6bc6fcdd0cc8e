"""`make accounting`: counts requests and tokens of every transcript and every client, prints the table, and fails when one is off.

python -m tests.accounting [--mixed 10000] [--no-node] [--engine relay]
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.accounting import mixed, replayed, sdk_clients
from tests.accounting.table import Row, table
from tests.support import node_clients, replays
from tests.support.daemon import Daemon
from tests.support.fake_provider import FakeProvider


def main() -> int:
    """Count, print, and return 0 when nothing was missed and nothing is off."""
    parser = argparse.ArgumentParser(prog="python -m tests.accounting", description=__doc__)
    parser.add_argument("--mixed", type=int, default=10_000, help="how many mixed requests to send")
    parser.add_argument("--no-node", action="store_true", help="leave Codex and Claude Code out")
    parser.add_argument("--engine", choices=("relay", "mitmproxy"), default="relay")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="accounting-") as name:
        folder = Path(name)
        (folder / "provider").mkdir()
        # Of the ledger's 10,000 entries each holds its heads; no more than some MB.
        config = {"providers": replays.PROVIDERS, "decrypt": {"engine": arguments.engine}}
        with (
            FakeProvider(folder / "provider") as provider,
            Daemon(folder / "daemon", provider, config=config, workers=2) as daemon,
        ):
            rows = replayed.replay(daemon)
            rows += sdk_clients.run(daemon, provider)
            notes = [] if arguments.no_node else _node(rows, daemon, provider, folder)
            if arguments.mixed:
                rows += mixed.run(daemon, provider, arguments.mixed)
                found = mixed.outcomes(daemon)
                notes.append(
                    f"{sum(found.values()):,} outcomes of {arguments.mixed:,} mixed requests: "
                    + ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(found.items()))
                )
    print(table(rows))
    for note in notes:
        print(note)
    return 0 if all(row.is_exact for row in rows) else 1


def _node(rows: list[Row], daemon: Daemon, provider: FakeProvider, folder: Path) -> list[str]:
    """Add the rows of Codex and Claude Code; return a sentence for each that could not be run."""
    notes = []
    for name in ("codex", "claude"):
        prefix = f"account-{name}"
        try:
            node_clients.ask(name, daemon, folder / name, "Say hello", model=prefix)
        except (node_clients.NotInstallable, subprocess.SubprocessError) as exc:
            notes.append(f"{name} was left out: {exc}")
            continue
        rows.append(sdk_clients.compared(node_clients.PACKAGES[name], prefix, daemon, provider))
    return notes


if __name__ == "__main__":
    sys.exit(main())
