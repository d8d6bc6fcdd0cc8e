"""Start line and header fields of an HTTP message, as the tap sees them. Not a parser: `wire.http1` makes these."""

from collections.abc import Iterable, Iterator


class Headers:
    """Header fields in the order they came, found without regard to case.

    Names are lower-case; values are latin-1 text with outer white space removed. Immutable.
    """

    __slots__ = ("_fields", "_first")

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        # A list and a whole dict, because they are made without a step of the interpreter's for each field.
        self._fields = [(name.lower(), value) for name, value in fields]
        # The first of a name is the last one that is put in.
        self._first = dict(reversed(self._fields))

    def first(self, name: str) -> str | None:
        """Return the first value of the lower-case `name`, or None."""
        return self._first.get(name)

    def all(self, name: str) -> list[str]:
        """Return every value of the lower-case `name`, in order."""
        if name not in self._first:
            return []
        return [value for field, value in self._fields if field == name]

    def tokens(self, name: str) -> list[str]:
        """Return the comma-separated elements of every `name` field, lower-case, without empty ones (RFC 9110 §5.6.1)."""
        return [part for value in self.all(name) for item in value.split(",") if (part := item.strip().lower())]

    def has_any(self, names: frozenset[str]) -> bool:
        """Return whether a field has one of the lower-case `names`."""
        return not self._first.keys().isdisjoint(names)

    def __contains__(self, name: object) -> bool:
        return name in self._first

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Headers) and self._fields == other._fields

    def __hash__(self) -> int:
        return hash(tuple(self._fields))

    def __repr__(self) -> str:
        # Values may be credentials; names are enough to debug with.
        return f"Headers({', '.join(name for name, _ in self._fields)})"


class RequestHead:
    """Start line and header fields of a request. `path` is the target without its query; `query` is without the `?`."""

    __slots__ = ("headers", "method", "path", "query", "version")

    def __init__(self, method: str, target: str, headers: Headers, version: str = "1.1") -> None:
        self.method = method
        path, _, query = target.partition("?")
        self.path = path
        self.query = query
        self.headers = headers
        self.version = version

    def __repr__(self) -> str:
        return f"RequestHead({self.method} {self.path})"


class ResponseHead:
    """Status and header fields of a final (not 1xx, except 101) response."""

    __slots__ = ("headers", "status_code", "version")

    def __init__(self, status_code: int, headers: Headers, version: str = "1.1") -> None:
        self.status_code = status_code
        self.headers = headers
        self.version = version

    def __repr__(self) -> str:
        return f"ResponseHead({self.status_code})"
