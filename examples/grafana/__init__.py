"""Grafana dashboards, generated from the definitions of the metrics. See `generate`."""
