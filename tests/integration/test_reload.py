"""What an operator meets when the configuration changes under a running daemon."""

import os
from pathlib import Path

import pytest
import yaml

from tests.support.clients import Wire, decrypted, message
from tests.support.daemon import Daemon, Metrics, eventually

ATTEMPT = "providers_last_reload_timestamp_seconds"
SUCCESS = "providers_last_reload_success_timestamp_seconds"
PREFIXES = ("coder_ai_gateway_", "coder_ai_gateway_proxy_")

ANTHROPIC = {"name": "anthropic", "type": "anthropic"}
OPENAI = {"name": "openai", "type": "openai"}


def statuses(metrics: Metrics, prefix: str = PREFIXES[1]) -> dict[str, str]:
    return {labels["provider_name"]: labels["status"] for labels in metrics.series(prefix + "provider_info")}


def attempted_after(daemon: Daemon, before: Metrics) -> Metrics:
    """Return the metrics once there was an attempt after `before`."""

    def is_there() -> Metrics | None:
        now = daemon.metrics()
        return now if all(now.total(prefix + ATTEMPT) > before.total(prefix + ATTEMPT) for prefix in PREFIXES) else None

    found: Metrics = eventually(is_there, "an attempt to reload")
    return found


def test_a_change_of_the_file_is_noticed_however_it_is_made(own_daemon) -> None:
    daemon: Daemon = own_daemon(config={"providers": [ANTHROPIC]})

    def write(providers: list[dict[str, object]]) -> str:
        daemon.config["providers"] = providers
        return yaml.safe_dump(daemon.config)

    daemon.config_file.write_text(write([ANTHROPIC, OPENAI]))  # in place, as `>` does
    eventually(lambda: statuses(daemon.metrics()) == {"anthropic": "enabled", "openai": "enabled"}, "the change in place")

    fresh = daemon.folder / "config.yaml.new"  # as editors do
    fresh.write_text(write([{**ANTHROPIC, "enabled": False}]))
    fresh.replace(daemon.config_file)
    eventually(lambda: statuses(daemon.metrics()) == {"anthropic": "disabled"}, "the replaced file")

    # As a volume of Kubernetes does, after the first step turned the file into a link.
    for number, providers in enumerate(([OPENAI], [ANTHROPIC])):
        version = daemon.folder / f"..version_{number}"
        version.mkdir()
        (version / "config.yaml").write_text(write(providers))
        (daemon.folder / "..data_tmp").symlink_to(version.name)
        (daemon.folder / "..data_tmp").replace(daemon.folder / "..data")
        if not daemon.config_file.is_symlink():
            (daemon.folder / "link").symlink_to("..data/config.yaml")
            (daemon.folder / "link").replace(daemon.config_file)
        expected = {str(provider["name"]): "enabled" for provider in providers}
        eventually(lambda expected=expected: statuses(daemon.metrics()) == expected, "the swapped link")
    assert "not reloaded" not in daemon.log()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{old}\nprovider: []\n", "is no setting; did you mean 'providers'?"),
        ("{old}\nrecording:\n  journal_max_bytes: many\n", "recording.journal_max_bytes: 'many' should be a valid integer"),
        ("{old}\nproviders: [{{name: a, type: anthropic\n", "not well-formed YAML"),
        ("listen: 127.0.0.1:0\nauth:\n  users: [{{name: al", "line 3: not well-formed YAML"),
        ("", "holds no setting"),
        ("# a comment, and then nothing yet\n", "holds no setting"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_bad_file_keeps_the_old_configuration(relay_daemon: Daemon, text: str | None, named: str, model: str) -> None:
    daemon = relay_daemon
    good = daemon.config_file.read_text()
    before, logged = daemon.metrics(), len(daemon.log())
    try:
        if text is None:
            daemon.config_file.unlink()
        else:
            daemon.config_file.write_text(text.format(old=good))
        after = attempted_after(daemon, before)
        for prefix in PREFIXES:
            assert after.total(prefix + SUCCESS) == before.total(prefix + SUCCESS)
            assert statuses(after, prefix) == statuses(before, prefix) != {}
        eventually(lambda: named in daemon.log()[logged:], f"{named!r} in the log")
        line = next(line for line in daemon.log()[logged:].splitlines() if named in line)
        assert "configuration not reloaded, the old one stays" in line
        assert "refresh ai providers for proxy routing: " in line
        assert str(daemon.config_file) in line
        with decrypted(daemon, "api.anthropic.com") as wire:
            assert wire.request("POST", "/v1/messages", "api.anthropic.com", message(model)).status == 200
    finally:
        daemon.config_file.write_text(good)
    recovered = attempted_after(daemon, before)
    eventually(lambda: daemon.metrics().total(PREFIXES[0] + SUCCESS) > before.total(PREFIXES[0] + SUCCESS), "the recovery")
    assert statuses(recovered) == statuses(before)


def test_settings_that_need_a_restart_are_named_and_stay(own_daemon) -> None:
    daemon: Daemon = own_daemon()
    old = (daemon.listen, str(daemon.data_dir))
    before = daemon.metrics()
    try:
        daemon.write_config(data_dir=str(daemon.folder / "elsewhere"), decrypt={"engine": "mitmproxy"}, ca={"leaf_days": 3})
        attempted_after(daemon, before)
        for name in ("data_dir", "decrypt.engine", "ca.leaf_days"):
            daemon.wait_for_log(f'"setting":"{name}"')
        assert not (daemon.folder / "elsewhere").exists()
        assert daemon.is_ready()
    finally:
        daemon.write_config(data_dir=old[1])
    assert daemon.listen == old[0]


def test_a_file_that_the_configuration_names_is_watched_too(own_daemon, tmp_path: Path) -> None:
    linked = tmp_path / "elsewhere.yaml"
    daemon: Daemon = own_daemon(start=False, config={"providers": [ANTHROPIC]})
    linked.write_text(daemon.config_file.read_text())
    daemon.config_file.unlink()
    daemon.config_file.symlink_to(linked)
    daemon.start()
    before = daemon.metrics()
    linked.write_text(linked.read_text().replace("- name: anthropic", "- name: renamed"))
    attempted_after(daemon, before)
    eventually(lambda: statuses(daemon.metrics()) == {"renamed": "enabled"}, "the change of the file behind the link")


def test_a_kept_alive_connection_goes_on_under_the_new_name_of_its_provider(own_daemon, model: str, engine: str) -> None:
    daemon: Daemon = own_daemon(config={"decrypt": {"engine": engine}, "providers": [ANTHROPIC]})
    with decrypted(daemon, "api.anthropic.com") as kept:
        assert kept.request("POST", "/v1/messages", "api.anthropic.com", message(model + "-a")).status == 200
        daemon.config["providers"] = [{"name": "renamed", "type": "anthropic"}]
        daemon.write_config()
        eventually(lambda: statuses(daemon.metrics()) == {"renamed": "enabled"}, "the new name")
        assert kept.request("POST", "/v1/messages", "api.anthropic.com", message(model + "-b")).status == 200
    assert [record["provider_name"] for record in daemon.records(model, count=2)] == ["anthropic", "renamed"]


@pytest.mark.parametrize("change", [{**ANTHROPIC, "enabled": False}, OPENAI])
def test_a_kept_alive_connection_stops_being_routed_to_a_provider_that_is_disabled_or_gone(
    own_daemon, model: str, engine: str, change: dict[str, object]
) -> None:
    daemon: Daemon = own_daemon(config={"decrypt": {"engine": engine}, "providers": [ANTHROPIC]})
    with decrypted(daemon, "api.anthropic.com") as kept:
        assert kept.request("POST", "/v1/messages", "api.anthropic.com", message(model)).status == 200
        daemon.config["providers"] = [change]
        daemon.write_config()
        assert kept.receive() == b""
    with Wire(daemon) as fresh:
        status = fresh.connect("api.anthropic.com:443").status
    assert status == (403 if change.get("enabled") is False else 200)


def test_a_second_signal_right_after_the_first_is_not_lost(own_daemon) -> None:
    daemon: Daemon = own_daemon(config={"providers": [ANTHROPIC]})
    assert daemon.process is not None
    for number in range(20):
        name = f"provider-{number}"
        daemon.config["providers"] = [{"name": name, "type": "anthropic"}]
        os.kill(daemon.process.pid, 1)
        daemon.write_config()
        os.kill(daemon.process.pid, 1)
        eventually(lambda name=name: statuses(daemon.metrics()) == {name: "enabled"}, f"{name} to be in use")


def is_routed(daemon: Daemon, host: str) -> bool:
    """Return whether a CONNECT to `host` is one to a provider: counted as decrypted, not as tunnelled."""
    before = daemon.metrics()
    with Wire(daemon) as wire:
        assert wire.connect(f"{host}:443").status == 200

    def counted() -> tuple[float, float] | None:
        now, name = daemon.metrics(), "coder_ai_gateway_proxy_connect_sessions_total"
        moved = tuple(now.total(name, type=kind) - before.total(name, type=kind) for kind in ("mitm", "tunneled"))
        return moved if sum(moved) else None  # type: ignore[return-value]

    return bool(eventually(counted, "the session to be counted") == (1, 0))


def test_hot_reload_empty_create_rename_move_add_delete_and_recreate(own_daemon) -> None:
    daemon: Daemon = own_daemon(config={"providers": []})
    first, second = "api.anthropic.com", "api.openai.com"
    claude = {"name": "claude", "type": "anthropic"}
    for step, providers, routed in (
        ("create", [claude], {first}),
        ("rename", [{**claude, "name": "renamed"}], {first}),
        ("host move", [{**claude, "hosts": [second]}], {second}),
        ("add a second", [claude, OPENAI], {first, second}),
        ("delete one", [OPENAI], {second}),
        ("delete all", [], set()),
        ("recreate", [claude], {first}),
    ):
        daemon.config["providers"] = providers
        before = daemon.metrics()
        daemon.write_config()
        attempted_after(daemon, before)
        expected = {str(provider["name"]): "enabled" for provider in providers}
        for prefix in PREFIXES:
            # The series of a name that is gone are gone, too.
            eventually(lambda prefix=prefix: statuses(daemon.metrics(), prefix) == expected, f"the step {step!r}")
        assert {host for host in (first, second) if is_routed(daemon, host)} == routed, step


def test_invalid_providers_are_errors_while_valid_ones_route(own_daemon) -> None:
    broken = [
        {"name": "empty-url", "type": "openai-compat", "base_url": ""},
        {"name": "malformed", "type": "openai-compat", "base_url": "://"},
        {"name": "no-host", "type": "openai-compat", "base_url": "https://"},
    ]
    daemon: Daemon = own_daemon(config={"providers": [ANTHROPIC, {"name": "zz-second", "type": "anthropic"}, *broken]})
    errors = {"empty-url": "error", "malformed": "error", "no-host": "error"}
    assert statuses(daemon.metrics()) == {"anthropic": "enabled", "zz-second": "proxy_excluded", **errors}
    assert is_routed(daemon, "api.anthropic.com")
    daemon.config["providers"] = broken
    daemon.write_config()
    eventually(lambda: statuses(daemon.metrics()) == errors, "the entries that are all wrong")
    assert not is_routed(daemon, "api.anthropic.com")
