"""What a source of identities says about a credential, and how it says that it cannot say."""

import msgspec

from aiproxyd.exceptions import AiproxydError
from aiproxyd.model.principal import Principal


class Identified(msgspec.Struct, frozen=True):
    """An answer, good or bad."""

    principal: Principal | None
    """Whose credential it is; None when it is nobody's."""
    fresh_seconds: float | None = None
    """For how long it may be used from now on; None when only the one who asks limits that."""


NOBODY = Identified(None)


class SourceUnavailable(AiproxydError):
    """A source could not be asked, or its answer makes no sense. Whoever asked refuses."""

    def __init__(self, source: str, reason: str, sentence: str) -> None:
        """
        Args:
            source: `users`, `coder` or `jwt`.
            reason: A word for metrics: `timeout`, `unreachable`, `status`, `malformed`, `busy`, `store`.
            sentence: For the log. No credential is part of it.
        """
        super().__init__(sentence)
        self.source = source
        self.reason = reason
