import pytest
from prometheus_client import CollectorRegistry, generate_latest

from aiproxyd.telemetry import coder, own
from aiproxyd.telemetry.families import (
    MAX_LABEL_CHARACTERS,
    Admission,
    counter,
    create_registry,
    gauge,
    histogram,
    label_text,
)


def test_the_worst_case_is_the_product_of_its_factors_and_of_a_histograms_series():
    factors = ((3, "apples"), (4, "pears"))
    assert counter("a_total", "A.", ("x", "y"), factors).max_series == 12
    assert gauge("a", "A.", ("x", "y"), factors).max_series == 12
    assert histogram("a", "A.", ("x", "y"), factors, buckets=(1, 2)).max_series == 12 * 5
    assert counter("a_total", "A.").max_series == 1


@pytest.mark.parametrize("family", coder.FAMILIES + own.FAMILIES, ids=lambda family: family.name)
def test_a_family_has_a_worst_case_exactly_if_it_has_labels(family):
    assert bool(family.labels) == bool(family.worst_case)


def test_no_name_is_used_twice():
    names = [family.name for family in coder.FAMILIES + own.FAMILIES]
    assert len(set(names)) == len(names)


def test_a_family_registers_itself_under_its_name():
    registry = CollectorRegistry()
    counter("a_total", "A.", ("x",)).counter(registry).labels("1").inc()
    gauge("b", "B.").gauge(registry).set(2)
    histogram("c_seconds", "C.", buckets=(1, 2)).histogram(registry).observe(1.5)
    assert registry.get_sample_value("a_total", {"x": "1"}) == 1
    assert registry.get_sample_value("b") == 2
    assert registry.get_sample_value("c_seconds_bucket", {"le": "2.0"}) == 1


def test_a_label_value_is_printable_and_short():
    assert label_text("claude-sonnet-4-5") == "claude-sonnet-4-5"
    assert label_text("") == "unknown"
    assert label_text("a\nb") == "other"
    assert label_text("a" * MAX_LABEL_CHARACTERS) == "a" * MAX_LABEL_CHARACTERS
    assert label_text("a" * (MAX_LABEL_CHARACTERS + 1)) == "other"


def test_the_first_values_are_admitted_and_the_rest_is_other():
    admission = Admission(2)
    assert [admission.admit(value) for value in ("a", "b", "c", "a", "b")] == ["a", "b", "other", "a", "b"]


def test_asking_for_a_label_admits_nothing():
    admission = Admission(1)
    assert admission.label("a") == "a"
    assert admission.admit("b") == "b"
    assert admission.label("a") == "other"


def test_what_is_no_label_value_takes_no_place():
    admission = Admission(1)
    assert admission.admit("a\x00") == "other"
    assert admission.admit("b") == "b"


def test_the_registry_tells_of_the_process_and_has_no_created_series():
    registry = create_registry()
    counter("a_total", "A.").counter(registry).inc()
    text = generate_latest(registry).decode()
    assert "process_resident_memory_bytes" in text
    assert "_created" not in text
