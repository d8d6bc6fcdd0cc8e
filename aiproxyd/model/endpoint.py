"""Which requests of a provider mean what."""

import msgspec


class Endpoint(msgspec.Struct, frozen=True):
    """Requests of some methods to paths of some pattern."""

    route: str
    """The path pattern; `{}` stands for one segment, a final `*` for any rest. The `route` label of metrics."""
    api: str = ""
    """Name of the API that reads it; empty for a passthrough."""
    methods: tuple[str, ...] = ("POST",)
    websocket: str = ""
    """Name of the conversation that reads the turns of a WebSocket which begins here; empty when nobody does."""
    key: bool | None = None
    """What `takes_key` is, where its rule would be wrong."""

    @property
    def takes_key(self) -> bool:
        """Whether requests may go with a key of the operator's.

        An endpoint for every method is about things that an account keeps, such as files, batches and keys: one user could list and
        delete with it what belongs to others.
        """
        return "*" not in self.methods if self.key is None else self.key


PASSTHROUGH = Endpoint(route="other", key=False)
"""What a request is that no endpoint of its provider names."""
