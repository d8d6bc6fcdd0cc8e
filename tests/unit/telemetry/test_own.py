from prometheus_client import CollectorRegistry

from aiproxyd.telemetry.own import FAMILIES, OwnMetrics


def test_every_family_is_registered_with_its_type():
    registry = CollectorRegistry()
    OwnMetrics(registry)
    registered = {metric.name + ("_total" if metric.type == "counter" else ""): metric.type for metric in registry.collect()}
    assert registered == {family.name: family.kind for family in FAMILIES}


def test_names_end_in_a_base_unit_or_say_what_they_count():
    for family in FAMILIES:
        assert family.name.endswith(("_total", "_seconds", "_bytes", "_info", "_workers")), family.name
