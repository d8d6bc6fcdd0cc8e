"""What is done with requests to a provider besides forwarding them, and the keys and breakers that decide it. Pure.

`UpstreamRules` is the configuration of one provider entry, resolved. `Upstreams` holds what a worker remembers of each entry from
request to request, and keeps of it at a reload what is still true.
"""

from collections.abc import Callable, Mapping

import msgspec

from aiproxyd.breaker import Breakers, BreakerSettings, Line
from aiproxyd.key_pool import KeyMark, KeyPool, KeyState
from aiproxyd.model.authority import Authority
from aiproxyd.model.credential import UpstreamKey
from aiproxyd.model.head import Headers
from aiproxyd.model.principal import Principal
from aiproxyd.redaction import forms_of


class Target(msgspec.Struct, frozen=True):
    """Where requests go instead of the host that the client named: a gateway."""

    scheme: str
    """`https` or `http`."""
    authority: Authority
    path: str
    """Stands before `/{provider}` and the request's path; without a trailing slash."""


class ActorHeaders(msgspec.Struct, frozen=True):
    """Lower-case names of the headers that tell a provider who a request is from; empty for none."""

    id: str = ""
    username: str = ""
    groups: str = ""

    @property
    def names(self) -> frozenset[str]:
        """Every name; a client's own fields of these names are removed."""
        return frozenset(name for name in (self.id, self.username, self.groups) if name)

    def fields(self, principal: Principal) -> tuple[tuple[str, str], ...]:
        """Return the fields for `principal`; what no header can hold is percent-encoded as UTF-8."""
        values = ((self.id, principal.id), (self.username, principal.name), (self.groups, ",".join(principal.groups)))
        return tuple((name, _field_value(value)) for name, value in values if name and value)


class UpstreamRules(msgspec.Struct, frozen=True):
    """A provider entry's settings about its requests."""

    provider: str
    type: str
    keys: tuple[UpstreamKey, ...] = ()
    byok: bool = True
    """Whether a client may use a credential of its own."""
    breaker: BreakerSettings | None = None
    """None when there is none."""
    connect_timeout_seconds: float | None = None
    first_byte_timeout_seconds: float | None = None
    idle_timeout_seconds: float | None = None
    retry_body_max_bytes: int = 16 << 20
    """A larger request body is not kept, so its request is not sent again; one that must be signed is refused."""
    target: Target | None = None
    base: Target | None = None
    """Where requests go that name no host: those of the reverse listener. None where no single host is known."""
    actor_headers: ActorHeaders = ActorHeaders()

    @property
    def fails_over(self) -> bool:
        """Whether the provider's answers tell good keys from bad ones."""
        return self.type != "bedrock"

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing to do but forward: requests may then take the shortest way."""
        return (
            not self.keys
            and self.byok
            and self.breaker is None
            and self.first_byte_timeout_seconds is None
            and self.target is None
            and not self.actor_headers.names
        )


class Upstream:
    """One provider entry in one worker: its rules, and what is remembered of its keys and endpoints."""

    def __init__(
        self,
        rules: UpstreamRules,
        before: "Upstream | None" = None,
        *,
        on_mark: Callable[[str, KeyMark], None] = lambda _provider, _mark: None,
    ) -> None:
        """
        Args:
            rules: The entry's.
            before: The entry of this name before a reload.
            on_mark: Hears when an answer made a key unusable; with the entry's name.
        """
        self.rules = rules
        self.secret_forms = forms_of(secret for key in rules.keys for secret in key.secrets)
        """What no answer to a client may hold; see `redaction`."""
        self._on_mark = on_mark
        fails_over = rules.fails_over
        if before is None:
            self.pool = KeyPool(rules.keys, fails_over=fails_over)
        else:
            self.pool = before.pool.renewed(rules.keys, fails_over=fails_over)
        self.breakers: Breakers | None = None
        if rules.breaker is not None:
            same = before is not None and before.breakers is not None and before.rules.breaker == rules.breaker
            self.breakers = before.breakers if same and before is not None else Breakers(rules.breaker)

    def key_answered(self, index: int, status_code: int, headers: Headers, now: float) -> KeyMark | None:
        """Take note of the status that a request with a key got; return what it changed, which other workers are told, too."""
        mark = self.pool.answered(index, status_code, headers, now)
        if mark is not None:
            self._on_mark(self.rules.provider, mark)
        return mark


class Upstreams:
    """Every provider entry of a worker, by name."""

    def __init__(
        self,
        rules: Mapping[str, UpstreamRules] | None = None,
        *,
        on_mark: Callable[[str, KeyMark], None] = lambda _provider, _mark: None,
    ) -> None:
        """
        Args:
            rules: By the name of each entry.
            on_mark: Hears when an answer made a key unusable; with the entry's name.
        """
        self._on_mark = on_mark
        self.generation = 0
        """Counts reloads; what is told about a key of another generation is void."""
        self._by_name: dict[str, Upstream] = {}
        self.replace(rules or {})

    def of(self, provider: str) -> Upstream:
        """Return the entry named `provider`; one without any rule when there is none."""
        found = self._by_name.get(provider)
        return found if found is not None else Upstream(UpstreamRules(provider, ""))

    def replace(self, rules: Mapping[str, UpstreamRules], *, generation: int = 0) -> list[tuple[str, Line]]:
        """Use these rules from now on. Keys that were marked for good get another chance.

        Returns:
            The entries and lines of breakers that were not closed and are gone with the rules that they belonged to.
        """
        self.generation = generation
        before = self._by_name
        self._by_name = {name: Upstream(each, before.get(name), on_mark=self._on_mark) for name, each in rules.items()}
        return [
            (name, line)
            for name, upstream in before.items()
            if upstream.breakers is not None and self.of(name).breakers is not upstream.breakers
            for line in upstream.breakers.unclosed
        ]

    def key_counts(self, now: float) -> dict[str, dict[KeyState, int]]:
        """Return how many keys are in each state, by the name of each entry that has keys."""
        return {name: upstream.pool.counts(now) for name, upstream in self._by_name.items() if upstream.pool.keys}

    def mark(self, provider: str, mark: KeyMark, *, generation: int, now: float) -> None:
        """Take note of what another worker learnt about a key."""
        upstream = self._by_name.get(provider)
        if upstream is not None and generation == self.generation:
            upstream.pool.mark(mark, now)


def _field_value(text: str) -> str:
    if all(" " <= character <= "~" and character != "%" for character in text):
        return text.strip()
    return "".join(
        character if "!" <= character <= "~" and character != "%" else "".join(f"%{byte:02X}" for byte in character.encode())
        for character in text
    )
