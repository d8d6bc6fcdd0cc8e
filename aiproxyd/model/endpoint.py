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


PASSTHROUGH = Endpoint(route="other")
"""What a request is that no endpoint of its provider names."""
