"""Which addresses may be dialled, and that exactly the checked one is."""

import asyncio
import errno
import socket

import pytest

from aiproxyd.mitm.egress import AddressBlocked, AddressRule, DialFailed, Egress, EgressSettings
from aiproxyd.model.authority import Authority

BLOCKED = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.0.9",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "64:ff9b::8.8.8.8",
    "64:ff9b:1::1",
    "2002::1",
    "2002:0a00:0001::1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.1.2.3",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "::10.0.0.1",
    "2001:0:4136:e378:8000:63bf:f5ff:fffe",  # Teredo of 10.0.0.1
    "not an address",
    "",
]
ALLOWED = [
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.1",
    "172.15.255.255",
    "172.32.0.1",
    "192.0.1.1",
    "198.20.0.1",
    "223.255.255.255",
    "2606:4700::1111",
    "::ffff:8.8.8.8",
]


@pytest.mark.parametrize("address", BLOCKED)
def test_private_and_reserved_addresses_are_refused_in_every_form(address):
    assert not AddressRule().allows(address)


@pytest.mark.parametrize("address", ALLOWED)
def test_private_ip_public_address_is_fine(address):
    assert AddressRule().allows(address)


@pytest.mark.parametrize(
    ("cidr", "address", "allowed"),
    [
        ("10.1.0.0/16", "10.1.2.3", True),
        ("10.1.0.0/16", "::ffff:10.1.2.3", True),
        ("10.1.0.0/16", "10.2.0.1", False),
        ("10.1.0.0/16", "64:ff9b::10.1.2.3", False),
        ("64:ff9b::/96", "64:ff9b::8.8.8.8", True),
        ("64:ff9b::/96", "64:ff9b::10.1.2.3", False),
        ("fd00::/8", "fd00::1", True),
        ("fd00::/8", "fc00::1", False),
    ],
)
def test_an_allowed_network_exempts_its_own_addresses_and_nothing_that_hides_in_them(cidr, address, allowed):
    assert AddressRule([cidr]).allows(address) is allowed


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def resolving(monkeypatch, *addresses):
    """Let the loop's resolver answer `addresses`; return the list of what it was asked."""
    asked = []

    async def getaddrinfo(host, port, **options):
        asked.append(host)
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                socket.IPPROTO_TCP,
                "",
                (address, port, 0, 0) if ":" in address else (address, port),
            )
            for address in addresses
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    return asked


async def test_a_name_is_resolved_once_and_the_checked_address_is_dialled(listener, monkeypatch):
    asked = resolving(monkeypatch, "10.0.0.1", "127.0.0.1")
    egress = Egress(EgressSettings(allowed_private_cidrs=("127.0.0.0/8",)))
    with await egress.dial(Authority("name.example.com", listener.getsockname()[1])) as connection:
        # The blocked candidate is dropped, the other one dialled.
        assert connection.getpeername() == listener.getsockname()
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert connection.gettimeout() == 0
    assert asked == ["name.example.com"]


async def test_a_name_with_private_addresses_alone_is_blocked(monkeypatch):
    resolving(monkeypatch, "10.0.0.1", "::1", "::ffff:127.0.0.1")
    with pytest.raises(AddressBlocked):
        await Egress(EgressSettings()).dial(Authority("name.example.com", 443))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:7f00:1", "169.254.169.254"])
async def test_an_address_literal_is_checked_without_a_resolver(host, monkeypatch):
    asked = resolving(monkeypatch)
    with pytest.raises(AddressBlocked):
        await Egress(EgressSettings()).dial(Authority(host, 443))
    assert asked == []


async def test_a_name_that_nobody_knows_cannot_be_dialled(monkeypatch):
    resolving(monkeypatch)
    with pytest.raises(DialFailed) as failed:
        await Egress(EgressSettings()).dial(Authority("host.invalid", 443))
    assert failed.value.reason == "resolve"


async def test_a_name_that_no_resolver_can_encode_cannot_be_dialled():
    with pytest.raises(DialFailed) as failed:
        await Egress(EgressSettings()).dial(Authority("a" * 64 + ".example.com", 443))
    assert failed.value.reason == "resolve"


async def test_a_port_nobody_listens_on_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(DialFailed) as failed:
        await Egress(EgressSettings()).dial(Authority("127.0.0.1", port), exempt=True)
    assert failed.value.reason == "refused"


async def test_a_destination_that_does_not_answer_runs_out_of_time(monkeypatch):
    async def never(host, port, **options):
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)
    with pytest.raises(DialFailed) as failed:
        await Egress(EgressSettings(connect_timeout_seconds=0.05)).dial(Authority("name.example.com", 443))
    assert failed.value.reason == "timeout"


async def test_a_second_address_is_tried_when_the_first_does_not_listen(listener, monkeypatch):
    resolving(monkeypatch, "127.0.0.99", "127.0.0.1")
    with await Egress(EgressSettings()).dial(
        Authority("name.example.com", listener.getsockname()[1]), exempt=True
    ) as connection:
        assert connection.getpeername() == listener.getsockname()


@pytest.mark.parametrize(
    "settings",
    [
        lambda port: EgressSettings(hosts={"name.example.com": f"127.0.0.1:{port}"}),
        lambda port: EgressSettings(hosts={"name.example.com:443": f"127.0.0.1:{port}"}),
    ],
)
async def test_a_fixed_answer_is_dialled_whatever_the_rule(listener, settings, monkeypatch):
    asked = resolving(monkeypatch)
    with await Egress(settings(listener.getsockname()[1])).dial(Authority("name.example.com", 443)) as connection:
        assert connection.getpeername() == listener.getsockname()
    assert asked == []


async def test_what_an_operator_named_is_exempt_until_a_reload_takes_it_away(listener):
    authority = Authority("127.0.0.1", listener.getsockname()[1])
    egress = Egress(EgressSettings(exempt=frozenset({authority})))
    (await egress.dial(authority)).close()
    egress.settings = EgressSettings()
    with pytest.raises(AddressBlocked):
        await egress.dial(authority)


@pytest.fixture
def busy_listener():
    """A listener that has no room for another connection until one is accepted."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as server,
        socket.create_connection(server.getsockname()),
    ):
        yield server


async def test_a_connection_that_stands_at_once_is_not_waited_for(listener, monkeypatch):
    asked = []
    monkeypatch.setattr(asyncio.get_running_loop(), "add_writer", lambda *arguments: asked.append(arguments))
    egress = Egress(EgressSettings())
    with await egress.dial(Authority("127.0.0.1", listener.getsockname()[1]), exempt=True) as connection:
        assert connection.getpeername() == listener.getsockname()
        assert not connection.getblocking()
    assert asked == []


async def test_a_connection_that_stood_before_it_was_asked_again_is_one(listener, monkeypatch):
    def connect_ex(connection, address, connect_ex=socket.socket.connect_ex):
        connection.setblocking(True)
        assert connect_ex(connection, address) == 0  # meanwhile, as a kernel has it that says EISCONN afterwards
        connection.setblocking(False)
        monkeypatch.undo()
        return errno.EINPROGRESS

    monkeypatch.setattr(socket.socket, "connect_ex", connect_ex)
    with await Egress(EgressSettings()).dial(Authority("127.0.0.1", listener.getsockname()[1]), exempt=True) as connection:
        assert connection.getpeername() == listener.getsockname()


async def test_a_connection_that_takes_its_time_is_waited_for(busy_listener):
    egress = Egress(EgressSettings())
    dialling = egress.dial(Authority("127.0.0.1", busy_listener.getsockname()[1]), exempt=True)
    task = asyncio.get_running_loop().create_task(dialling)
    await asyncio.sleep(0)
    assert not task.done()
    busy_listener.accept()[0].close()  # room for one more, when the kernel asks again
    with await task as connection:
        assert connection.getpeername() == busy_listener.getsockname()


async def test_a_cancelled_dial_leaves_no_socket_behind(busy_listener, monkeypatch):
    resolving(monkeypatch, "127.0.0.1")
    egress = Egress(EgressSettings())
    authority = Authority("name.example.com", busy_listener.getsockname()[1])
    task = asyncio.get_running_loop().create_task(egress.dial(authority, exempt=True))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
