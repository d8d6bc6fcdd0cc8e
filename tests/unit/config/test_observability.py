"""Twin of aiproxyd/config/observability.py: what of metrics and their gateway can be said, and what becomes of it."""

from typing import Any

import pytest
from pydantic import ValidationError

from aiproxyd.config.observability import MetricsConfig, PushConfig
from aiproxyd.config.schema import Config
from aiproxyd.telemetry import bifrost, coder, gen_ai, own, worker_processes

FAMILIES = (*coder.FAMILIES, *own.FAMILIES, *worker_processes.FAMILIES, *bifrost.FAMILIES, *gen_ai.FAMILIES)


@pytest.mark.parametrize("label", sorted({label for family in FAMILIES for label in family.labels}))
@pytest.mark.parametrize("setting", ["labels", "header_labels"])
def test_a_label_that_a_metric_has_is_taken(setting: str, label: str) -> None:
    with pytest.raises(ValidationError, match=label):
        MetricsConfig.model_validate({setting: {label: "x-team"}})


@pytest.mark.parametrize("label", ["le", "quantile", "job", "instance", "__name__", "1st", "a-b", ""])
def test_a_label_that_prometheus_needs_or_cannot_read_is_refused(label: str) -> None:
    with pytest.raises(ValidationError):
        MetricsConfig.model_validate({"labels": {label: "x"}})


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "user-agent", "x team", ""])
def test_a_header_that_is_a_secret_or_the_providers_is_no_label(header: str) -> None:
    with pytest.raises(ValidationError, match="header"):
        MetricsConfig.model_validate({"header_labels": {"team": header}})


def test_a_label_cannot_be_constant_and_of_a_header() -> None:
    with pytest.raises(ValidationError, match="team"):
        MetricsConfig.model_validate({"labels": {"team": "a"}, "header_labels": {"team": "x-team"}})


def test_nothing_is_pushed_by_default() -> None:
    assert PushConfig().to_settings("host") is None


def test_a_gateway_gets_the_machines_name_unless_it_is_told_another() -> None:
    push = {"url": "http://127.0.0.1:9091", "basic_user": "u", "basic_password": "secret"}
    settings = PushConfig.model_validate(push).to_settings("host")
    assert settings is not None
    assert (settings.job, settings.instance, settings.basic_password) == ("aiproxyd", "host", "secret")
    settings = PushConfig.model_validate(push | {"job": "j", "instance": "i"}).to_settings("host")
    assert settings is not None
    assert (settings.job, settings.instance) == ("j", "i")


@pytest.mark.parametrize(
    "push",
    [
        {"url": "ftp://host"},
        {"url": "http://user:secret@host"},
        {"url": "http://host?query"},
        {"interval_seconds": 0},
        {"job": ""},
        {"job": "a/b"},
        {"instance": "a/b"},
        {"basic_user": "u"},
        {"basic_password": "p"},
    ],
)
def test_a_gateway_that_cannot_be_is_refused(push: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PushConfig.model_validate(push)


def test_workers_hear_nothing_of_the_gateway() -> None:
    push = {"url": "http://127.0.0.1:9091", "basic_user": "u", "basic_password": "a-secret"}
    config = Config.model_validate({"metrics": {"push": push}})
    assert b"a-secret" not in config.for_workers()
    assert b"9091" not in config.for_workers()


@pytest.mark.parametrize("header", ["X-Api-Key", "x-goog-api-key", "x-amz-security-token", "x-auth-token"])
def test_a_header_that_holds_a_credential_is_no_label(header: str) -> None:
    with pytest.raises(ValidationError, match="holds credentials"):
        MetricsConfig.model_validate({"header_labels": {"team": header}})
