"""Vendors' schemas, as check-jsonschema carries them: nothing is fetched."""

import subprocess
import sys
from pathlib import Path


def assert_matches(schema: str, *files: Path) -> None:
    """Fail unless each file follows the schema that check-jsonschema knows by this name, such as `vendor.compose-spec`."""
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *files],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
