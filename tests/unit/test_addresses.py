from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from outwait.config.http_groups import OutboundSettings
from outwait.worker.net.outbound import Guard, public

V4 = st.ip_addresses(v=4)
SPECIAL = st.sampled_from(["10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "100.64.0.0/10", "192.168.0.0/16"])
NEAR = SPECIAL.flatmap(lambda network: st.ip_addresses(network=network))
BEYOND = [ip_network(network) for network in ("192.88.99.0/24", "192.0.0.0/24", "168.63.129.16")]  # refused as well
EMBEDDED = ("::ffff:0:0", "64:ff9b::", "::", "::ffff:0:0:0", "64:ff9b:1::")


@given(V4 | NEAR | st.ip_addresses(v=6))
def test_what_is_public_is_globally_reachable_and_no_group(address: IPv4Address | IPv6Address) -> None:
    if public(address):
        assert address.is_global
        assert not address.is_multicast
    elif isinstance(address, IPv4Address) and not any(address in network for network in BEYOND):
        assert address.is_multicast or not address.is_global


@given(V4 | NEAR, st.sampled_from(EMBEDDED))
def test_an_address_inside_another_one_hides_nothing(address: IPv4Address, prefix: str) -> None:
    inside = IPv6Address(int(IPv6Address(prefix)) + int(address))
    six_to_four = IPv6Address((0x2002 << 112) | (int(address) << 80) | 1)
    teredo = IPv6Address((0x20010000 << 96) | (int(address) ^ 0xFFFFFFFF))
    guard = Guard()
    assert not guard.permits(str(inside)) or guard.permits(str(address))
    assert not guard.permits(str(six_to_four))
    assert not guard.permits(str(teredo))


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",  # the metadata of most clouds
        "fd00:ec2::254",  # the same on IPv6
        "192.0.0.192",
        "100.100.100.200",
        "168.63.129.16",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "fe80::1%eth0",
        "::1",
        "::",
        "0.0.0.0",
        "255.255.255.255",
        "ff02::1",
        "2001:db8::1",
        "2130706433",
        "127.1",
        "010.0.0.1",
        "0x7f.0.0.1",
        "localhost",
        "",
    ],
)
def test_refused(address: str) -> None:
    assert not Guard().permits(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::101:101", "::ffff:1.1.1.1"]
)
def test_let_through(address: str) -> None:
    assert Guard().permits(address)


def test_what_the_operator_allows() -> None:
    guard = Guard(["media.internal", "*.svc.cluster.local", "10.1.0.0/16", "127.0.0.1", "fd00::/8"])
    assert [guard.permits(address) for address in ("10.1.2.3", "127.0.0.1", "fd00::1", "::ffff:10.1.2.3")] == [True] * 4
    assert [guard.permits(address) for address in ("10.2.0.1", "127.0.0.2", "fe80::1", "media.internal")] == [False] * 4
    for host in ("media.internal", "MEDIA.internal", "a.svc.cluster.local", "10.1.2.3", "127.0.0.1"):
        assert guard.allows(host), host
    for host in ("evil-media.internal", "media.internal.evil.com", "svc.cluster.local", "10.2.0.1", "1.1.1.1", ""):
        assert not guard.allows(host), host


@pytest.mark.parametrize("place", ["http://x", "10.0.0.0/33", "10.0.0.300", "a b", "x:80", "*", "a.*"])
def test_a_place_that_is_none_is_refused_at_start(place: str) -> None:
    with pytest.raises(ValidationError, match="must be host names"):
        OutboundSettings(allow=[place])


def test_places_are_read() -> None:
    places = ["media.internal", "*.svc", "crm1", "10.0.0.0/8", "::1"]
    assert OutboundSettings(allow=",".join(places)).allow == places  # type: ignore[arg-type]
    assert ip_address("::1").is_loopback
