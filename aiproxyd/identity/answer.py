"""What a source of identities says about a credential, and how it says that it cannot say."""

import asyncio

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
            reason: A word for metrics: `timeout`, `unreachable`, `status`, `malformed`, `busy`, `replaced`.
            sentence: For the log. No credential is part of it.
        """
        super().__init__(sentence)
        self.source = source
        self.reason = reason


async def answered[Answer](question: asyncio.Task[Answer], source: str) -> Answer:
    """Return the answer of a question that others may wait for as well: who leaves does not take it from them.

    Raises:
        SourceUnavailable: The source was closed with the question open.
    """
    await asyncio.wait([question])
    if question.cancelled():
        raise SourceUnavailable(source, "replaced", "the configuration changed with the question open")
    return question.result()
