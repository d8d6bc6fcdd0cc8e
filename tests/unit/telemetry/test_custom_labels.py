"""Twin of aiproxyd/telemetry/custom_labels.py."""

from aiproxyd.telemetry.custom_labels import CustomLabels


def test_values_are_taken_as_they_come_and_then_are_other() -> None:
    labels = CustomLabels(("team", "project"), values=2)
    assert labels.of({}) == ("", "")
    assert labels.of({"team": "a", "project": "x", "unasked": "z"}) == ("a", "x")
    assert labels.of({"team": "b"}) == ("b", "")
    assert labels.of({"team": "c"}) == ("other", "")
    assert labels.of({"team": "a\nb"}) == ("other", "")
    assert labels.of({"team": "a"}) == ("a", "")
    assert labels.max_tuples == 16


def test_tuples_have_a_limit_too() -> None:
    labels = CustomLabels(("a", "b"), values=100, tuples=10)
    seen = {labels.of({"a": str(x), "b": str(y)}) for x in range(20) for y in range(20)}
    assert len(seen) <= 11
    assert ("other", "other") in seen


def test_without_names_there_is_nothing() -> None:
    labels = CustomLabels((), values=5)
    assert labels.of({"team": "a"}) == ()
    assert labels.max_tuples == 1
