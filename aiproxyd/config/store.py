"""The section about the database that keeps the records. It names the kinds of databases; `storage` speaks with them."""

import re

from pydantic import SecretStr, field_validator

from aiproxyd.config.section import Section, restart

STORE_SCHEMES = ("sqlite", "sqlite+aiosqlite", "postgresql", "postgres", "postgresql+asyncpg")
"""What a store's URL may begin with."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}\Z")


class StoreConfig(Section):
    """Where records are kept."""

    url: SecretStr | None = restart(None)
    """SQLAlchemy URL, `sqlite:////PATH` or `postgresql://USER:PASSWORD@HOST/NAME`; `sqlite+aiosqlite:///{data_dir}/aiproxyd.sqlite3`
    when absent."""

    @field_validator("url")
    @classmethod
    def _scheme(cls, url: SecretStr | None) -> SecretStr | None:
        if url is None:
            return None
        scheme, mark, _ = url.get_secret_value().partition("://")
        if scheme in STORE_SCHEMES and mark:
            return url
        # Only a scheme is repeated: what has none may be a password.
        said = f"{scheme!r}" if mark and _SCHEME.match(scheme) else "this"
        message = f"{said} is no kind of store; a URL begins with {', '.join(f'{each}://' for each in STORE_SCHEMES)}"
        raise ValueError(message)
