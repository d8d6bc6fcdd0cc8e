"""What the fake provider really answered, request by request: the truth that records are compared with."""

import dataclasses
import threading
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass
class Entry:
    """One request and its answer, as the provider saw them."""

    serial: int
    connection: int
    """Number of the connection it came on."""
    protocol: str
    """`http/1.1` or `h2`."""
    sni: str
    method: str
    target: str
    head: bytes
    """The request head as it came, without its empty line; empty for h2."""
    headers: list[tuple[str, str]]
    model: str = ""
    script: str = ""
    request_bytes: int = 0
    """Body bytes after transfer coding, still content-coded."""
    request_sha256: str = ""
    status: int = 0
    response_head: bytes = b""
    coding: str = "identity"
    response_bytes: int = 0
    """Body bytes before transfer coding, content-coded."""
    response_sha256: str = ""
    usage: dict[str, int] = dataclasses.field(default_factory=dict)
    response_id: str = ""
    response_model: str = ""
    tool_calls: list[dict[str, str]] = dataclasses.field(default_factory=list)
    thoughts: list[str] = dataclasses.field(default_factory=list)
    end: str = "open"
    """`open`, then `complete`, `cut`, `reset` or `client_left`."""

    def header(self, name: str) -> str:
        """Return the first value of `name`, empty when it is absent."""
        return next((value for field, value in self.headers if field.lower() == name.lower()), "")

    @property
    def credential(self) -> str:
        """The key that the request came with, whatever its header."""
        key = self.header("x-api-key") or self.header("api-key") or self.header("x-goog-api-key")
        return key or self.header("authorization").removeprefix("Bearer ")

    def as_json(self) -> dict[str, Any]:
        """Return the entry as JSON values."""
        fields = dataclasses.asdict(self)
        return {name: value.decode("latin-1") if isinstance(value, bytes) else value for name, value in fields.items()}


class Ledger:
    """Every entry, in the order requests came. Safe to read from any thread."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._changed = threading.Condition()

    def add(self, entry: Entry) -> None:
        """Keep a new entry."""
        with self._changed:
            self._entries.append(entry)
            self._changed.notify_all()

    def changed(self) -> None:
        """Wake those who wait: an entry has new facts."""
        with self._changed:
            self._changed.notify_all()

    def entries(self, model: str | None = None) -> list[Entry]:
        """Return the entries whose model (or script, for requests without one) begins with `model`."""
        with self._changed:
            return [entry for entry in self._entries if model is None or (entry.model or entry.script).startswith(model)]

    def one(self, model: str) -> Entry:
        """Return the only entry of `model`."""
        (entry,) = self.entries(model)
        return entry

    def wait_for(self, predicate: Callable[[list[Entry]], Any], timeout_seconds: float = 20.0) -> list[Entry]:
        """Return all entries as soon as `predicate` holds for them.

        Raises:
            TimeoutError: It did not hold in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: predicate(self._entries), timeout_seconds):
                raise TimeoutError(
                    f"the ledger never satisfied the condition: {[entry.as_json() for entry in self._entries[-5:]]}"
                )
            return list(self._entries)
