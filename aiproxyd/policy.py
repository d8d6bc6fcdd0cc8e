"""The verdict on a CONNECT, from facts alone. Fails closed: what is not allowed is refused, with a sentence a person can act on."""

from collections.abc import Collection

from aiproxyd.classify import ProviderStatus, ProviderTable
from aiproxyd.model.authority import Authority
from aiproxyd.model.principal import Principal
from aiproxyd.model.verdict import Action, Verdict


def needs_credentials(authority: Authority, *, auth_mode: str, providers: ProviderTable) -> bool:
    """Return whether `authority` may be reached by an authenticated client only.

    Args:
        authority: The destination.
        auth_mode: `required`, `decrypted` or `off`.
        providers: For `decrypted`: who is claimed.
    """
    if auth_mode == "off":
        return False
    if auth_mode == "decrypted":
        return providers.claimant(authority) is not None
    return True


def decide(
    authority: Authority,
    *,
    principal: Principal | None,
    providers: ProviderTable,
    allowed_ports: Collection[int],
) -> Verdict:
    """Return what is to happen with a CONNECT to `authority` whose client is already known.

    Total; every verdict has a reason. Ports come first, so that a scan of ports learns nothing about providers.
    """
    provider = providers.claimant(authority)
    if authority.port not in allowed_ports and provider is None:
        return Verdict(
            Action.REFUSE,
            "port",
            principal=principal,
            status_code=403,
            message=f"port {authority.port} is not one of those this proxy may connect to "
            f"({', '.join(map(str, sorted(allowed_ports)))}); ask its operator for egress.allowed_ports",
        )
    if provider is None:
        return Verdict(Action.TUNNEL, "no_provider", principal=principal)
    if provider.status is ProviderStatus.ENABLED:
        return Verdict(Action.DECRYPT, "provider", principal=principal, provider=provider.name)
    if provider.when_disabled == "tunnel":
        return Verdict(Action.TUNNEL, f"provider_{provider.status}", principal=principal, provider=provider.name)
    return Verdict(
        Action.REFUSE,
        f"provider_{provider.status}",
        principal=principal,
        provider=provider.name,
        status_code=403,
        message=f"the AI provider {provider.name!r} is {provider.status.replace('_', ' ')} on this proxy; ask its operator",
    )
