"""The errors a caller can act on. Eight classes; a ninth needs a caller that acts differently.

AiproxydError
├── ConfigError            where in the file, what was expected; the CLI exits 2, a reload keeps the old configuration
├── WireError              the peer's bytes are not what its API documents
│   ├── EventTooLarge
│   ├── MalformedBody
│   └── UnknownContentCoding
├── StorageError           the database refused; the fold retries and says so
└── CertificateError       the CA is missing, unreadable, expired, or its key is too open
"""


class AiproxydError(Exception):
    """Root of every error this package raises on purpose."""


class ConfigError(AiproxydError):
    """A configuration value is not usable; the message names the file, the path in it and what was expected."""


class WireError(AiproxydError, ValueError):
    """The peer's bytes are not what its API documents. The decoder that raised it is spent."""


class EventTooLarge(WireError):
    """One unfinished piece of a stream exceeds its limit."""

    def __init__(self, *, held_bytes: int, max_bytes: int) -> None:
        super().__init__(held_bytes, max_bytes)
        self.held_bytes = held_bytes
        self.max_bytes = max_bytes

    def __str__(self) -> str:
        return f"an unfinished event holds {self.held_bytes} bytes; the limit is {self.max_bytes} bytes"


class MalformedBody(WireError):
    """A body, an event or a head does not follow its grammar."""


class UnknownContentCoding(WireError):
    """A content coding that no decoder is known for."""

    def __init__(self, coding: str) -> None:
        super().__init__(coding)
        self.coding = coding

    def __str__(self) -> str:
        return f"content coding {self.coding!r} is not one of gzip, deflate, br, zstd, identity"


class StorageError(AiproxydError):
    """The database refused or cannot be reached."""


class CertificateError(AiproxydError):
    """A certificate or key is missing, unreadable, expired, mismatched, or readable by others."""
