"""Whose credential a request goes upstream with, and how its head is changed for that. Pure; the secret is only placed, never shown.

Coder's rules, for a client that has its credential of this proxy in `Proxy-Authorization` besides what it sends to the provider:

* An entry without keys is bring-your-own-key: what the client sent goes on.
* With keys, a client that sends a credential of its own keeps it where `byok` is true. Where it is false, the entry's key takes its
  place; a client that asks for its own by `X-Coder-AI-Governance-Token` is refused.
* No credential of its own is: none, the client's token of this proxy, or the word `aiproxyd`, for SDKs that insist on a key.
* The entry's key goes to endpoints that are known to take one alone. A client could otherwise manage the organisation's account with it.
* Copilot and ChatGPT are always bring-your-own-key; the configuration refuses keys there.

The client's token of this proxy never leaves, whatever the entry says. Fails closed: what is in doubt is removed.
"""

import re
from collections.abc import Callable
from typing import Final

import msgspec

from aiproxyd.model.credential import CredentialKind, UpstreamKey
from aiproxyd.model.head import RequestHead
from aiproxyd.redaction import mask

CREDENTIAL_HEADERS: Final = ("x-api-key", "api-key", "x-goog-api-key", "authorization")
"""Where a provider's credential may stand, by the order in which one is taken when several are there."""

GOVERNANCE_TOKEN_HEADER: Final = "x-coder-ai-governance-token"  # noqa: S105  (a name)

PLACEHOLDER: Final = "aiproxyd"
"""What clients send as a key that they do not have."""

BYOK_DISABLED: Final = "Bring Your Own Key (BYOK) mode is not enabled."
"""Coder's sentence."""

_HEADER_OF_TYPE: Final = {"anthropic": "x-api-key", "azure": "api-key", "google": "x-goog-api-key"}
_AWS_CREDENTIAL_ID: Final = re.compile(r"AWS4-HMAC-SHA256\s.*?Credential=([^/,\s]+)/", re.IGNORECASE)
_AWS_HEADERS: Final = frozenset({"x-amz-date", "x-amz-security-token", "x-amz-content-sha256"})


class HeadEdit(msgspec.Struct, frozen=True):
    """How a request's head is changed. Everything else of it stays byte for byte."""

    remove: frozenset[str] = frozenset()
    """Lower-case names of fields to remove."""
    add: tuple[tuple[str, str], ...] = ()
    """Fields to add at the end, after the removal."""
    removes_query_key: bool = False
    """Whether the parameter `key` is taken out of the query."""

    @property
    def is_empty(self) -> bool:
        """Whether the head stays as it is."""
        return not (self.remove or self.add or self.removes_query_key)

    def __repr__(self) -> str:
        # The added values are secrets.
        return f"HeadEdit(remove={sorted(self.remove)}, add={[name for name, _ in self.add]})"


class CredentialDecision(msgspec.Struct, frozen=True):
    """What is to happen with a request's credential."""

    kind: CredentialKind
    uses_pool: bool = False
    """Whether a key of the entry is to be put in: `edit_with` for each attempt. Then `edit` is not used."""
    edit: HeadEdit = HeadEdit()
    """What is changed where no key is put in."""
    refusal: str = ""
    """Why the request is answered with 403; empty when it goes on."""


def decide(
    head: RequestHead,
    *,
    has_keys: bool,
    byok: bool,
    takes_key: bool,
    is_own_token: Callable[[str], bool] = lambda _credential: False,
) -> CredentialDecision:
    """Return what is to happen with the credential of a request. Total.

    Args:
        head: As the client sent it.
        has_keys: Whether the provider entry has keys.
        byok: The entry's setting.
        takes_key: Whether the entry's key may go to the endpoint: `Endpoint.takes_key`.
        is_own_token: Whether a text is the client's credential of this proxy.
    """
    found = _credentials(head)
    ours = frozenset(name for name, credential in found if is_own_token(credential))
    own = any(name not in ours and credential != PLACEHOLDER for name, credential in found)
    removal = _removing(ours)
    asks_for_byok = GOVERNANCE_TOKEN_HEADER in head.headers
    if not byok and (asks_for_byok or (own and not has_keys)):
        return CredentialDecision(CredentialKind.BYOK, refusal=BYOK_DISABLED)
    if not has_keys or (own and byok):
        return CredentialDecision(CredentialKind.BYOK, edit=removal)
    if takes_key:
        return CredentialDecision(CredentialKind.CENTRALIZED, uses_pool=True)
    if own:
        # `byok` is false: neither its key nor ours may go there.
        return CredentialDecision(CredentialKind.BYOK, refusal=BYOK_DISABLED)
    return CredentialDecision(CredentialKind.BYOK, edit=removal)


def without_token(head: RequestHead, token: str) -> HeadEdit:
    """Return the edit that takes the client's credential of this proxy off a request that is forwarded as it came otherwise."""
    ours = frozenset(name for name, credential in _credentials(head) if credential == token)
    return _removing(ours)


def _removing(names: frozenset[str]) -> HeadEdit:
    return HeadEdit(remove=names - {"?key"}, removes_query_key="?key" in names)


def edit_with(key: UpstreamKey, provider_type: str) -> HeadEdit:
    """Return the edit that replaces every credential of a request by `key`, which is no AWS key: `sigv4` signs with those."""
    header = _HEADER_OF_TYPE.get(provider_type, "authorization")
    value = f"Bearer {key.secret}" if header == "authorization" else key.secret
    return replacing(((header, value),))


def replacing(fields: tuple[tuple[str, str], ...], *, removes_query_key: bool = True) -> HeadEdit:
    """Return the edit that removes every credential of a request and adds `fields`."""
    remove = frozenset(CREDENTIAL_HEADERS) | _AWS_HEADERS | {GOVERNANCE_TOKEN_HEADER}
    return HeadEdit(remove=remove, add=fields, removes_query_key=removes_query_key)


def hint_of(key: UpstreamKey) -> str:
    """Return the masked hint of a key, for records and lists."""
    return mask(key.identity)


def without_query_key(target: str) -> str:
    """Return a request target without the parameter `key` of its query; everything else stays as it is written."""
    path, mark, query = target.partition("?")
    if not mark:
        return target
    kept = [field for field in query.split("&") if field.partition("=")[0] != "key"]
    return f"{path}?{'&'.join(kept)}" if kept else path


def _credentials(head: RequestHead) -> list[tuple[str, str]]:
    """Return the names and credentials of a request; a parameter of the query is named `?key`."""
    found = []
    for name in CREDENTIAL_HEADERS:
        for value in head.headers.all(name):
            credential = _of_authorization(value) if name == "authorization" else value.strip()
            if credential:
                found.append((name, credential))
    if "key=" in head.query:
        for field in head.query.split("&"):
            name, _, value = field.partition("=")
            if name == "key" and value:
                found.append(("?key", value))
    return found


def _of_authorization(value: str) -> str:
    if aws := _AWS_CREDENTIAL_ID.match(value):
        return aws[1]
    scheme, _, credential = value.strip().partition(" ")
    return credential.strip() or scheme
