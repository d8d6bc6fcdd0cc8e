"""Settings of who is who besides the users with a token: a Coder deployment, signed tokens, networks.

`AuthConfig` of the schema holds these sections; `identity` does what they say.
"""

import ipaddress
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from aiproxyd.config.section import Section
from aiproxyd.model.authority import is_loopback

# By a key pair. With a shared secret, whoever checks a token could make one; so those and `none` are not here.
Signature = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


def _https_url(url: str) -> str:
    """Return `url` without a trailing slash; a credential or a key must not cross a network in the clear."""
    parts = urlsplit(url)
    if parts.scheme not in {"https", "http"} or not parts.hostname or "@" in parts.netloc or parts.query or parts.fragment:
        message = "should be https://HOST[:PORT][/PATH], without credentials, query or fragment"
        raise ValueError(message)
    if parts.scheme == "http" and parts.hostname != "localhost" and not is_loopback(parts.hostname):
        message = "should begin with https://; http:// is for loopback addresses alone"
        raise ValueError(message)
    return url.rstrip("/")


class CoderAuthConfig(Section):
    """A Coder deployment whose users may use the proxy with their session tokens."""

    url: str | None = None
    """Its access URL; absent for none. Each token is asked for at `/api/v2/users/me`; http is for loopback alone."""
    ca_file: Path | None = None
    """PEM of further roots for its certificate."""
    timeout_seconds: float = Field(5.0, gt=0, le=9)
    """For one question."""
    cache_seconds: float = Field(5.0, ge=0, le=300)
    """How long a good answer is used before the deployment is asked again: a revocation there takes effect within it. Answers that
    are in use are refreshed before they are over."""
    negative_cache_seconds: float = Field(5.0, ge=0, le=300)
    """How long it is remembered that a token is nobody's."""
    max_silence_seconds: float = Field(60.0, ge=0, le=86_400)
    """How long connections of a session stand when its last good answer is over and the deployment cannot be asked. Nobody new is let
    in meanwhile."""
    groups: bool = False
    """Whether the user's groups are asked for too, at `/api/v2/groups`; a deployment without that page has none."""

    @field_validator("url")
    @classmethod
    def _url(cls, url: str | None) -> str | None:
        return _https_url(url) if url is not None else None


class JwtAuthConfig(Section):
    """Signed tokens (JWT) of an identity provider, checked here with its public keys."""

    issuer: str | None = Field(None, min_length=1, max_length=1000)
    """The exact `iss` of a token; absent for no such tokens."""
    audience: tuple[str, ...] = ()
    """One of these must be in the `aud` of a token: otherwise one that was made for another service would do."""
    jwks_url: str | None = None
    """Where the provider publishes its keys; http is for loopback alone. It or `jwks_file`."""
    jwks_file: Path | None = None
    """A file with its keys, a JSON Web Key Set."""
    jwks_ca_file: Path | None = None
    """PEM of further roots for the certificate of `jwks_url`."""
    algorithms: tuple[Signature, ...] = Field(("RS256", "PS256", "ES256", "EdDSA"), min_length=1)
    """Signatures that are accepted, all by a key pair."""
    name_claim: str | None = Field(None, min_length=1, max_length=200)
    """The claim with the user's name; `preferred_username`, else `sub`, when absent."""
    groups_claim: str = Field("groups", min_length=1, max_length=200)
    """The claim with the user's groups: a list of words, or one word."""
    clock_skew_seconds: float = Field(30.0, ge=0, le=300)
    """How far the provider's clock may be from ours."""

    @field_validator("audience", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("jwks_url")
    @classmethod
    def _url(cls, url: str | None) -> str | None:
        return _https_url(url) if url is not None else None

    @model_validator(mode="after")
    def _one_source(self) -> "JwtAuthConfig":
        if self.issuer is None:
            if self.audience or self.jwks_url is not None or self.jwks_file is not None:
                message = "issuer is missing"
                raise ValueError(message)
            return self
        if not self.audience:
            message = "audience is missing"
            raise ValueError(message)
        if (self.jwks_url is None) == (self.jwks_file is None):
            message = "needs one of jwks_url and jwks_file"
            raise ValueError(message)
        return self


class NetworkAuthConfig(Section):
    """A network whose machines need no credentials."""

    network: str
    """In CIDR notation, such as `10.1.2.0/24`; of several that hold an address the longest prefix counts."""
    user: str = Field(min_length=1, max_length=120)
    """Who is charged."""
    groups: tuple[str, ...] = ()
    """Groups on the principal."""

    @field_validator("network")
    @classmethod
    def _network(cls, network: str) -> str:
        return str(ipaddress.ip_network(network))
