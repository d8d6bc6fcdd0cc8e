"""Every setting, with its default, unit and meaning. The docs page and `examples/config.yaml` are generated from here.

Frozen, and strict about unknown keys. A field marked `restart` is read once; a reload that changes it says so by name.
Lower floors never see `Config`: they get the frozen parameter types of their own that are built from it.
"""

import os
import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SecretStr, field_validator, model_validator

from aiproxyd.config.credentials import MAX_KEYS, ActorHeadersConfig, BreakerConfig, KeyConfig, TimeoutsConfig
from aiproxyd.config.identity import CoderAuthConfig, JwtAuthConfig, NetworkAuthConfig
from aiproxyd.config.network import EgressConfig, ListenAddress, ListenTlsConfig, one_or_many
from aiproxyd.config.observability import MetricsConfig, PricingConfig, TracingConfig
from aiproxyd.config.section import Section, restart
from aiproxyd.config.store import StoreConfig
from aiproxyd.model.authority import is_loopback

_PROVIDER_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\Z")
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhdw])+\Z|0\Z")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def seconds_of(duration: str) -> float:
    """Return the seconds of `90s`, `15m`, `24h`, `60d`, `2w` or a sum such as `1h30m`; `0` is none.

    Raises:
        ValueError: `duration` is none of these.
    """
    if not _DURATION.match(duration):
        message = f"{duration!r} is not a duration such as 60d, 2w, 12h or 0"
        raise ValueError(message)
    return sum(float(count) * _SECONDS[unit] for count, unit in _DURATION_PART.findall(duration))


def _duration(value: str) -> str:
    seconds_of(value)
    return value


def _is_local(listen: str) -> bool:
    return is_loopback(listen.rpartition(":")[0].strip("[]"))


def _sha256(value: str) -> str:
    # The value is not repeated: it may be the token itself.
    if not _SHA256.match(value):
        message = (
            "should be the SHA-256 of a token, 64 lower-case hexadecimal digits: printf %s TOKEN | sha256sum; this is "
            + ("in upper case" if _SHA256.match(value.lower()) else f"{len(value)} characters that are not")
        )
        raise ValueError(message)
    return value


# YAML reads a bare 0 as a number.
Duration = Annotated[
    str, BeforeValidator(lambda value: "0" if value == 0 and value is not False else value), AfterValidator(_duration)
]
Sha256 = Annotated[str, AfterValidator(_sha256)]


def default_data_dir() -> Path:
    """Return `$XDG_STATE_HOME/aiproxyd`, or its default below the home folder."""
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "aiproxyd"


class AdminTokenConfig(Section):
    """A token that opens the admin server to one person or program."""

    name: str = Field(min_length=1, max_length=120)
    """Who has it; the log names them when they read content."""
    token_sha256: Sha256
    """Lower-case hex of the token's SHA-256."""
    role: Literal["viewer", "auditor", "admin"] = "viewer"
    """`viewer` sees figures alone, `auditor` content too, `admin` also changes users and reloads."""


class AdminConfig(Section):
    """The admin server: metrics, health, records, the page."""

    listen: ListenAddress = restart("127.0.0.1:8889")
    """Address and port."""
    token: SecretStr | None = None
    """Bearer token for everything but `/healthz`, `/readyz` and `/ca-cert.pem`, with the role `admin`. It or one of `tokens` is
    required when `listen` is not loopback."""
    tokens: tuple[AdminTokenConfig, ...] = ()
    """Further tokens, each with a name and a role."""

    @field_validator("tokens")
    @classmethod
    def _unique(cls, tokens: tuple[AdminTokenConfig, ...]) -> tuple[AdminTokenConfig, ...]:
        for field in ("name", "token_sha256"):
            values = [getattr(token, field) for token in tokens]
            if len(set(values)) < len(values):
                message = f"two tokens have the same {field}"
                raise ValueError(message)
        return tokens


class CaConfig(Section):
    """An own certificate authority. Without it one is made in `data_dir/ca`."""

    cert_file: Path | None = restart(None)
    """PEM of the CA or intermediate, followed by its chain."""
    key_file: Path | None = restart(None)
    """PEM of its unencrypted private key, readable by its owner and at most its group."""
    leaf_days: int = restart(7, ge=1, le=397)
    """How many days a leaf is valid."""

    @model_validator(mode="after")
    def _both_or_neither(self) -> "CaConfig":
        if (self.cert_file is None) != (self.key_file is None):
            message = "cert_file and key_file go together"
            raise ValueError(message)
        return self


class AuthMode(StrEnum):
    """For which CONNECTs credentials are asked."""

    REQUIRED = "required"
    DECRYPTED = "decrypted"
    OFF = "off"


class UserConfig(Section):
    """A user who is known by the configuration alone."""

    name: str = Field(min_length=1, max_length=120)
    """Shown in records. No colon: it would end the name in a proxy URL."""
    token_sha256: Sha256
    """Lower-case hex of the token's SHA-256."""
    groups: tuple[str, ...] = ()
    """Groups on the principal."""

    @field_validator("name")
    @classmethod
    def _without_colon(cls, name: str) -> str:
        if ":" in name:
            message = f"{name!r} has a colon, which ends a user's name in a proxy URL"
            raise ValueError(message)
        return name


class AuthConfig(Section):
    """Who may use the proxy."""

    mode: AuthMode = AuthMode.REQUIRED
    """`required`: every CONNECT; `decrypted`: only those to provider hosts; `off`: everybody is `anonymous`."""
    realm: str = Field("AI Gateway Proxy", pattern=r'^[^"\\\r\n]{1,80}$')
    """Realm of the 407 challenge."""
    cache_seconds: float = Field(5.0, ge=0, le=300)
    """How long a worker remembers an answer, good or bad; a revocation reaches every worker within it."""
    users: tuple[UserConfig, ...] = ()
    """Users besides those of `aiproxyd user add`."""
    coder: CoderAuthConfig = CoderAuthConfig()
    jwt: JwtAuthConfig = JwtAuthConfig()
    networks: tuple[NetworkAuthConfig, ...] = ()
    """Who is charged for clients that send no credentials, by their address. Credentials that are sent count instead."""

    @field_validator("networks")
    @classmethod
    def _each_once(cls, networks: tuple[NetworkAuthConfig, ...]) -> tuple[NetworkAuthConfig, ...]:
        named = [entry.network for entry in networks]
        for network in named:
            if named.count(network) > 1:
                message = f"the network {network} is there twice"
                raise ValueError(message)
        return networks

    @field_validator("users")
    @classmethod
    def _unique(cls, users: tuple[UserConfig, ...]) -> tuple[UserConfig, ...]:
        for field in ("name", "token_sha256"):
            values = [getattr(user, field) for user in users]
            if len(set(values)) < len(values):
                message = f"two users have the same {field}"
                raise ValueError(message)
        return users


class ProviderType(StrEnum):
    """Which provider facts an entry uses; each has a file in `aiproxyd/providers/data/`."""

    ANTHROPIC = "anthropic"
    OPENAI = "openai"
    CHATGPT = "chatgpt"
    COPILOT = "copilot"
    GOOGLE = "google"
    BEDROCK = "bedrock"
    AZURE = "azure"
    OPENROUTER = "openrouter"
    VERCEL = "vercel"
    MISTRAL = "mistral"
    GROQ = "groq"
    DEEPSEEK = "deepseek"
    XAI = "xai"
    TOGETHER = "together"
    PERPLEXITY = "perplexity"
    COHERE = "cohere"
    OPENAI_COMPAT = "openai-compat"


# Their tokens belong to a person's subscription.
_ALWAYS_BYOK = frozenset({ProviderType.COPILOT, ProviderType.CHATGPT})


class ProviderConfig(Section):
    """One provider whose hosts are decrypted."""

    name: str
    """Lower-case letters, digits and single hyphens; the `provider` label of metrics."""
    type: ProviderType
    """Decides endpoints, parsers and defaults."""
    base_url: str | None = None
    """`https://host[:port][/prefix]`; the type's own hosts when absent. Exempt from the private-address rule."""
    hosts: tuple[str, ...] | None = None
    """Hosts that are decrypted, `*` for one label or a part of it; those of `base_url` or of the type when absent."""
    enabled: bool = True
    """A disabled provider is not decrypted."""
    when_disabled: Literal["refuse", "tunnel"] = "refuse"
    """What a CONNECT to a disabled or broken provider gets."""
    keys: tuple[KeyConfig, ...] = Field((), max_length=MAX_KEYS)
    """The organisation's keys, in the order they are tried; without one each user brings their own. Bedrock takes one."""
    byok: bool = True
    """Whether a user may bring an own key. Where it is false and there are keys, they replace it."""
    breaker: BreakerConfig = BreakerConfig()
    """When requests are refused because the provider fails."""
    timeouts: TimeoutsConfig = TimeoutsConfig()
    """How long the provider may take."""
    retry_body_max_bytes: int = Field(16 << 20, ge=0, le=1 << 30)
    """A larger request body is not kept, so its request is not sent again with another key."""
    target: str | None = None
    """`http(s)://host[:port][/prefix]` of an AI gateway that gets the decrypted requests instead of the provider."""
    actor_headers: ActorHeadersConfig = ActorHeadersConfig()
    """Whether the provider is told who a request is from."""

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        if not _PROVIDER_NAME.match(name):
            message = f"{name!r} is not lower-case letters, digits and single hyphens"
            raise ValueError(message)
        return name

    @model_validator(mode="after")
    def _keys_fit(self) -> "ProviderConfig":
        if not self.keys:
            return self
        message = ""
        if self.type in _ALWAYS_BYOK:
            message = f"keys: each user of {self.type.value} logs in on their own, so the provider takes none"
        elif self.target is not None:
            message = "keys: the gateway that target names has its own"
        elif self.type is ProviderType.BEDROCK and len(self.keys) > 1:
            message = "keys: bedrock takes one, because its errors do not tell whether a key is to blame"
        elif self.type is not ProviderType.BEDROCK and any(key.is_aws for key in self.keys):
            message = "keys: AWS credentials are for providers of the type bedrock"
        if message:
            raise ValueError(message)
        return self


class DecryptConfig(Section):
    """How decrypted connections are carried."""

    engine: Literal["relay", "mitmproxy"] = restart("relay")
    """`relay`: below HTTP, bytes as they came; `mitmproxy`: mitmproxy's HTTP layers. HTTP/2 always takes the latter."""
    http2: bool = restart(False)
    """Whether clients may negotiate HTTP/2."""
    client_tls_timeout_seconds: float = Field(15.0, gt=0)
    """For the client's TLS handshake."""
    head_timeout_seconds: float = Field(30.0, gt=0)
    """For a request head, from its first byte to its last."""
    idle_timeout_seconds: float = Field(3600.0, gt=0)
    """Without a byte in either direction; a reasoning model may be silent for long."""
    max_head_bytes: int = Field(65536, ge=4096, le=1 << 20)
    """For a request or response head."""


class ContentRecording(StrEnum):
    """How much of a request is kept."""

    FULL = "full"
    METADATA = "metadata"


class RecordingConfig(Section):
    """What is kept of an interception."""

    content: ContentRecording = ContentRecording.FULL
    """`metadata` keeps no prompt, no tool arguments and no reasoning; they do not even reach the journal."""
    on_journal_failure: Literal["forward", "refuse"] = "forward"
    """When a worker cannot write its journal: forward unrecorded and count the loss, or refuse AI traffic."""
    journal_max_bytes: int = Field(4 << 30, ge=1 << 20)
    """Size of the journal at which the rule above applies. It grows while the store is down."""
    max_request_body_bytes: int = Field(32 << 20, ge=1 << 16)
    """A larger request body (decoded) is forwarded but not read."""
    max_response_body_bytes: int = Field(16 << 20, ge=1 << 16)
    """A larger response document (decoded), or event of a stream, is forwarded but not read."""
    project: bool = True
    """Whether the folder, repository and branch that a tool works in are kept, where the tool tells them to its model."""
    retention: Duration = "60d"
    """Age at which records are deleted; `0` keeps them."""
    content_retention: Duration = "0"
    """Age at which prompts, reasoning, tool arguments and error messages are deleted from records that stay; `0` keeps them as long
    as the records."""
    figures_retention: Duration = "400d"
    """Age at which requests, tokens and cost by day, user, model, provider, client and project are deleted, whose records are gone;
    `0` keeps them."""

    def ages(self) -> dict[str, float]:
        """Return the ages at which things are deleted, in seconds: `records`, `content`, `figures`."""
        kept = (("records", self.retention), ("content", self.content_retention), ("figures", self.figures_retention))
        return {name: seconds_of(duration) for name, duration in kept}


class ClientConfig(Section):
    """A tool that is to be told from others. Needs one sign: a user agent, or a header."""

    name: str = Field(min_length=1, max_length=64)
    """Shown in records, and the `client` label of metrics."""
    user_agent_prefix: str | None = Field(None, min_length=1, max_length=200)
    """Beginning of its user agent, without regard to case."""
    header: str | None = Field(None, pattern=r"^[A-Za-z0-9-]{1,64}$")
    """A header that only it sends."""
    header_value: str | None = Field(None, min_length=1, max_length=200)
    """The exact value of that header; any when absent."""
    session_header: str | None = Field(None, pattern=r"^[A-Za-z0-9_-]{1,64}$")
    """The header of its session id."""
    version_header: str | None = Field(None, pattern=r"^[A-Za-z0-9-]{1,64}$")
    """The header of its version; the number in its user agent when absent."""

    @model_validator(mode="after")
    def _one_sign(self) -> "ClientConfig":
        if self.user_agent_prefix is None and self.header is None:
            message = "needs user_agent_prefix or header"
            raise ValueError(message)
        if self.header_value is not None and self.header is None:
            message = "header_value needs header"
            raise ValueError(message)
        return self


class LoggingConfig(Section):
    """What the daemon says on standard error."""

    format: Literal["auto", "human", "json"] = restart("auto")
    """`auto` is `human` on a terminal and `json` elsewhere."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe level that is written."""
    structured_interceptions: str = restart("off")
    """Whether what is recorded is also written as log lines `interception log`, prompts, tool arguments and reasoning included:
    `off`, `stderr`, or the absolute path of a file (in JSON unless `format` is `human`)."""
    structured_interceptions_max_bytes: int = restart(100 << 20, ge=1 << 16)
    """Size at which that file is put aside as `FILE.1` and begun again."""
    structured_interceptions_files: int = restart(5, ge=1, le=1000)
    """How many files that were put aside are kept."""

    @field_validator("structured_interceptions")
    @classmethod
    def _destination(cls, destination: str) -> str:
        if destination in {"off", "stderr"} or Path(destination).is_absolute():
            return destination
        message = f"{destination!r} is neither off nor stderr nor an absolute path"
        raise ValueError(message)


class Config(Section):
    """The whole configuration."""

    listen: tuple[ListenAddress, ...] = restart(("127.0.0.1:8888",))
    """Addresses and ports of the proxy. May be empty where `listen_tls` has some."""
    listen_tls: ListenTlsConfig = ListenTlsConfig()
    listen_gateway: tuple[ListenAddress, ...] = restart(())
    """Addresses and ports of the reverse listener, for clients that are given a base URL, `http://ADDRESS:PORT/{provider}/v1`, instead of
    a proxy. Plain HTTP; off when empty. Anything but loopback needs `auth.mode` to ask for credentials."""
    admin: AdminConfig = AdminConfig()
    data_dir: Path = restart(None, validate_default=True)
    """Folder of the CA, journal and store; `$XDG_STATE_HOME/aiproxyd` when absent."""
    workers: int = restart(0, ge=0, le=256)
    """Worker processes; 0 is one a core."""
    drain_timeout_seconds: float = Field(30.0, ge=0)
    """How long streams may go on after SIGTERM."""
    ca: CaConfig = CaConfig()
    auth: AuthConfig = AuthConfig()
    providers: tuple[ProviderConfig, ...] = (
        ProviderConfig(name="anthropic", type=ProviderType.ANTHROPIC),
        ProviderConfig(name="openai", type=ProviderType.OPENAI),
        ProviderConfig(name="chatgpt", type=ProviderType.CHATGPT),
        ProviderConfig(name="copilot", type=ProviderType.COPILOT),
        ProviderConfig(name="google", type=ProviderType.GOOGLE),
    )
    """Providers whose traffic is decrypted."""
    clients: tuple[ClientConfig, ...] = ()
    """Tools that are told apart besides those that are known; these come first."""
    decrypt: DecryptConfig = DecryptConfig()
    egress: EgressConfig = EgressConfig()
    recording: RecordingConfig = RecordingConfig()
    store: StoreConfig = StoreConfig()
    logging: LoggingConfig = LoggingConfig()
    metrics: MetricsConfig = MetricsConfig()
    tracing: TracingConfig = TracingConfig()
    pricing: PricingConfig = PricingConfig()

    @field_validator("data_dir", mode="before")
    @classmethod
    def _data_dir(cls, value: object) -> object:
        return default_data_dir() if value is None else value

    @field_validator("listen", "listen_gateway", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return one_or_many(value)

    @model_validator(mode="after")
    def _whole(self) -> "Config":
        names = [provider.name for provider in self.providers]
        for name in names:
            if names.count(name) > 1:
                message = f"providers: two entries are named {name!r}"
                raise ValueError(message)
        if not self.listen and not self.listen_tls.listen:
            message = "listen: empty, and listen_tls.listen as well; the proxy would have no address"
            raise ValueError(message)
        if self.auth.mode is AuthMode.OFF and not all(_is_local(address) for address in self.listen_gateway):
            message = "listen_gateway: an address that is not loopback needs auth.mode to ask for credentials"
            raise ValueError(message)
        if not (self.admin.token or self.admin.tokens) and not _is_local(self.admin.listen):
            message = "admin.token: required because admin.listen is not a loopback address"
            raise ValueError(message)
        return self

    @property
    def store_url(self) -> str:
        """The store's SQLAlchemy URL, its default filled in."""
        if self.store.url is not None:
            return self.store.url.get_secret_value()
        return f"sqlite+aiosqlite:///{self.data_dir / 'aiproxyd.sqlite3'}"

    def for_workers(self) -> bytes:
        """Return the JSON of what workers need; `Config` reads it back. No secret but `egress.upstream_proxy`: keys travel beside it."""
        return self.model_dump_json(exclude=_NOT_FOR_WORKERS).encode()


_NOT_FOR_WORKERS: Any = {
    "admin": True,
    "store": True,
    "auth": {"users", "coder", "jwt"},
    "metrics": {"token", "basic_user", "basic_password", "push"},
    "tracing": {"headers"},
    "pricing": True,
    "providers": {"__all__": {"keys"}},
}


def restart_fields_changed(old: Config, new: Config) -> list[str]:
    """Return the dotted names of the changed settings that only a restart applies."""
    return list(_restart_fields_changed("", old, new))


def _restart_fields_changed(prefix: str, old: BaseModel, new: BaseModel) -> Iterator[str]:
    for name, field in type(old).model_fields.items():
        before, after = getattr(old, name), getattr(new, name)
        if isinstance(before, BaseModel) and isinstance(after, BaseModel):
            yield from _restart_fields_changed(f"{prefix}{name}.", before, after)
        elif before != after and field.json_schema_extra == {"reload": "restart"}:
            yield f"{prefix}{name}"


def keeping_restart_fields(old: Config, new: Config) -> Config:
    """Return `new` with the settings of `old` that only a restart applies: those who run already and who start later must agree."""
    return _keeping_restart_fields(old, new)


def _keeping_restart_fields[M: BaseModel](old: M, new: M) -> M:
    kept: dict[str, Any] = {}
    for name, field in type(old).model_fields.items():
        before, after = getattr(old, name), getattr(new, name)
        if isinstance(before, BaseModel) and isinstance(after, BaseModel):
            kept[name] = _keeping_restart_fields(before, after)
        elif field.json_schema_extra == {"reload": "restart"}:
            kept[name] = before
    return new.model_copy(update=kept)
