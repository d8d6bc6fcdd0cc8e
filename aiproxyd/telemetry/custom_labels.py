"""Labels whose values come from request headers: which value stands for what a client sent. Clients choose them, so they are few."""

from collections.abc import Mapping, Sequence

from aiproxyd.telemetry.families import OTHER, Admission, label_text


class CustomLabels:
    """Gives the values of the labels that an operator named, at most so many different ones each, and so many tuples in all."""

    def __init__(self, names: Sequence[str], values: int, tuples: int = 2_000) -> None:
        """Know nothing yet.

        Args:
            names: The labels.
            values: How many different values each may have, besides `other` and the empty one.
            tuples: How many combinations of them.
        """
        self.names = tuple(names)
        self.max_tuples = min(tuples + 1, (values + 2) ** len(self.names)) if self.names else 1
        self._admissions = [Admission(values) for _ in self.names]
        self._tuples = tuples
        self._known: set[tuple[str, ...]] = set()
        self._others = (OTHER,) * len(self.names)

    def of(self, sent: Mapping[str, str]) -> tuple[str, ...]:
        """Return the label values for what a request's headers held; a header that was not sent is empty."""
        if not self.names:
            return ()
        key = tuple(
            admission.admit(label_text(sent[name])) if sent.get(name) else ""
            for name, admission in zip(self.names, self._admissions, strict=True)
        )
        if key not in self._known:
            if len(self._known) >= self._tuples:
                return self._others
            self._known.add(key)
        return key
