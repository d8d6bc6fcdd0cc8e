"""`aiproxyd version`: what is installed."""

import importlib.metadata
import platform

import typer

from aiproxyd import __version__


def version() -> None:
    """Print the version of aiproxyd, and of what it stands on.

    For example:

      aiproxyd version
    """
    typer.echo(
        f"aiproxyd {__version__} (Python {platform.python_version()}, mitmproxy {importlib.metadata.version('mitmproxy')})"
    )
