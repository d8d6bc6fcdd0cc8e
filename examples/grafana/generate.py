"""Writes `dashboards/*.json` again. Run `python -m examples.grafana.generate` after a change of a metric or of a panel."""

import json
from pathlib import Path

from examples.grafana.dashboards import dashboards
from examples.grafana.panels import as_json

FOLDER = Path(__file__).parent / "dashboards"


def rendered() -> dict[Path, str]:
    """Return what each file should hold."""
    return {
        FOLDER / f"{dashboard.uid.removeprefix('aiproxyd-')}.json": json.dumps(as_json(dashboard), indent=2) + "\n"
        for dashboard in dashboards()
    }


def main() -> None:
    """Write the files and remove those of dashboards that are gone."""
    files = rendered()
    for path in set(FOLDER.glob("*.json")) - set(files):
        path.unlink()
    for path, text in files.items():
        path.write_text(text)


if __name__ == "__main__":
    main()
