"""What holds for every test: loopback only, no home folder of a person, hypothesis profiles."""

import ipaddress
import os
import sys

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("dev", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci" if os.environ.get("CI") else "dev")

# A proxy of the machine, or a configuration of its user, must not lead a test elsewhere.
for _name in list(os.environ):
    if _name.lower().endswith("_proxy") or _name.startswith(("AIPROXYD_", "XDG_")):
        del os.environ[_name]


def _refuse_the_world(event: str, arguments: tuple[object, ...]) -> None:
    """Raise when something connects to an address that is not this machine's."""
    if event != "socket.connect" or not isinstance(arguments[1], tuple):
        return
    host = str(arguments[1][0]).partition("%")[0]
    if host in {"localhost", "", "0.0.0.0", "::"}:
        return
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise RuntimeError(f"a test tried to connect to {host}; tests talk to loopback only")


sys.addaudithook(_refuse_the_world)


@pytest.fixture(autouse=True, scope="session")
def _no_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["HOME"] = str(tmp_path_factory.mktemp("home"))
