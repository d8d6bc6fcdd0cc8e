"""What an operator meets when the configuration changes under a running daemon."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.clients import Wire, decrypted, message
from tests.support.daemon import Daemon, Metrics, eventually
from tests.support.fake_provider import FakeProvider

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
def test_reload_refresh_error_keeps_the_previous_snapshot_and_recovery_applies(
    relay_daemon: Daemon, text: str | None, named: str, model: str
) -> None:
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


# Lines of the acceptance list of Coder's proxy. One daemon is reloaded from line to line; each begins with a state of its own.

FIRST_HOST, SECOND_HOST = "api.anthropic.com", "api.openai.com"
CLAUDE = {"name": "claude", "type": "anthropic"}
BROKEN = [
    {"name": "empty-url", "type": "openai-compat", "base_url": ""},
    {"name": "malformed", "type": "openai-compat", "base_url": "://"},
    {"name": "no-host", "type": "openai-compat", "base_url": "https://"},
]
ERRORS = {"empty-url": "error", "malformed": "error", "no-host": "error"}


class Reloadable:
    """A daemon whose providers are replaced while it runs."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon

    def use(self, *providers: dict[str, object], but: dict[str, str] | None = None) -> None:
        """Return when exactly these providers are shown; `enabled`, but for those that `but` says more of."""
        statuses_of = {str(entry["name"]): "enabled" for entry in providers} | (but or {})
        if self.daemon.config.get("providers") == list(providers):
            return
        before = self.daemon.metrics()
        self.daemon.config["providers"] = list(providers)
        self.daemon.write_config()
        self.daemon.reload()
        attempted_after(self.daemon, before)
        for prefix in PREFIXES:
            # The series of a name that is gone are gone, too.
            eventually(lambda prefix=prefix: statuses(self.daemon.metrics(), prefix) == statuses_of, "the providers")

    def routed(self) -> set[str]:
        """Return which of the two hosts belong to a provider."""
        return {host for host in (FIRST_HOST, SECOND_HOST) if is_routed(self.daemon, host)}


@pytest.fixture(scope="module")
def reloadable(tmp_path_factory: pytest.TempPathFactory, provider: FakeProvider) -> Iterator[Reloadable]:
    with Daemon(tmp_path_factory.mktemp("reloadable"), provider, config={"providers": []}) as daemon:
        yield Reloadable(daemon)


def test_hot_reload_empty_is_not_routed(reloadable: Reloadable) -> None:
    reloadable.use()
    assert reloadable.routed() == set()


def test_hot_reload_create(reloadable: Reloadable) -> None:
    reloadable.use()
    reloadable.use(CLAUDE)
    assert reloadable.routed() == {FIRST_HOST}


def test_hot_reload_rename_and_the_old_metric_series_is_gone(reloadable: Reloadable) -> None:
    reloadable.use(CLAUDE)
    reloadable.use({**CLAUDE, "name": "renamed"})
    assert reloadable.routed() == {FIRST_HOST}
    for prefix in PREFIXES:
        assert statuses(reloadable.daemon.metrics(), prefix) == {"renamed": "enabled"}


def test_hot_reload_host_move(reloadable: Reloadable) -> None:
    reloadable.use(CLAUDE)
    reloadable.use({**CLAUDE, "hosts": [SECOND_HOST]})
    # It is shown as it was before, so that `use` returns while the change may be under way.
    eventually(lambda: reloadable.routed() == {SECOND_HOST}, "the move")


def test_hot_reload_add_second(reloadable: Reloadable) -> None:
    reloadable.use(CLAUDE)
    reloadable.use(CLAUDE, OPENAI)
    assert reloadable.routed() == {FIRST_HOST, SECOND_HOST}


def test_hot_reload_delete_one(reloadable: Reloadable) -> None:
    reloadable.use(CLAUDE, OPENAI)
    reloadable.use(OPENAI)
    assert reloadable.routed() == {SECOND_HOST}


def test_hot_reload_delete_all(reloadable: Reloadable) -> None:
    reloadable.use(CLAUDE, OPENAI)
    reloadable.use()
    assert reloadable.routed() == set()


def test_hot_reload_recreate(reloadable: Reloadable) -> None:
    reloadable.use(CLAUDE)
    reloadable.use()
    reloadable.use(CLAUDE)
    assert reloadable.routed() == {FIRST_HOST}


def test_reload_timestamps_are_above_zero(reloadable: Reloadable) -> None:
    reloadable.use(CLAUDE)
    reloadable.use(OPENAI)
    metrics = reloadable.daemon.metrics()
    for prefix in PREFIXES:
        assert metrics.total(prefix + SUCCESS) >= metrics.total(prefix + ATTEMPT) > 0


def test_reload_invalid_providers_get_the_status_error_while_valid_ones_route(reloadable: Reloadable) -> None:
    reloadable.use()
    reloadable.use(ANTHROPIC, *BROKEN, but=ERRORS)
    assert reloadable.routed() == {FIRST_HOST}


def test_reload_duplicate_host_first_wins_second_is_excluded(reloadable: Reloadable) -> None:
    reloadable.use()
    reloadable.use({"name": "zz-second", "type": "anthropic"}, ANTHROPIC, but={"zz-second": "proxy_excluded"})
    assert reloadable.routed() == {FIRST_HOST}


def test_reload_all_invalid_is_an_empty_router(reloadable: Reloadable) -> None:
    reloadable.use(ANTHROPIC)
    reloadable.use(*BROKEN, but=ERRORS)
    assert reloadable.routed() == set()
