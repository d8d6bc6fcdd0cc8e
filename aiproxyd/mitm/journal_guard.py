"""Refuses AI traffic while it cannot be recorded, where the operator asked for that (`recording.on_journal_failure: refuse`)."""

from typing import Protocol

from mitmproxy import http

from aiproxyd.mitm.connect import VERDICT, refusal
from aiproxyd.model.verdict import Action, Verdict


class Journal(Protocol):
    """What the guard needs of a journal: `journal.writer.JournalWriter` has it."""

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt to write failed."""

    def flush(self) -> None:
        """Try to write."""


CANNOT_RECORD = "this proxy cannot record AI requests right now and refuses them; tell its operator"


class JournalGuard:
    """Stands behind the connect addon: turns DECRYPT into a refusal while the journal fails."""

    name = "aiproxyd_journal_guard"

    def __init__(self, journal: Journal, *, refuse: bool) -> None:
        self.refuse = refuse
        """Whether to refuse at all; without it the traffic goes on and the loss is counted."""
        self._journal = journal

    def is_refusing(self) -> bool:
        """Return whether AI traffic is refused now."""
        if not self.refuse:
            return False
        if self._journal.is_failing:
            # The refused connections bring nothing to write, so try here: the disk may have room again.
            self._journal.flush()
        return self._journal.is_failing

    def http_connect(self, flow: http.HTTPFlow) -> None:
        """Refuse a CONNECT that would be decrypted and could not be recorded."""
        verdict = flow.metadata.get(VERDICT)
        if not isinstance(verdict, Verdict) or verdict.action is not Action.DECRYPT:
            return
        if self.is_refusing():
            refused = Verdict(
                Action.REFUSE,
                "journal",
                principal=verdict.principal,
                provider=verdict.provider,
                status_code=503,
                message=CANNOT_RECORD,
            )
            flow.metadata[VERDICT] = refused
            flow.response = refusal(refused, realm="")
