"""What every command that reads the configuration shares: its option, and the reading."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from aiproxyd.config.schema import Config

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", metavar="FILE", help="The configuration file; AIPROXYD_CONFIG when absent.", show_default=False
    ),
]


def read_configuration(path: Path | None) -> "Config":
    """Return the configuration that a command runs with.

    Raises:
        ConfigError: It is not usable.
    """
    from aiproxyd.config.loader import load

    return load(path, os.environ)
