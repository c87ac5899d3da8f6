"""Addresses of callers, and the networks that they are compared with."""

from collections.abc import Collection, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

SUBSCRIBER = 64
"""Bits of an IPv6 address that name a network: whoever has one has all of its addresses."""


def read_address(text: str) -> Address | None:
    """The address that a text names, without its zone; None if it names none. `::ffff:192.0.2.1` is 192.0.2.1."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def read_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Networks (`10.1.0.0/16`) and single addresses. Raises ValueError."""
    return tuple(ip_network(text, strict=False) for text in texts)


def contain(networks: Iterable[Network], text: str) -> bool:
    """Whether a text is an address in one of these networks."""
    address = read_address(text)
    return address is not None and any(address in network for network in networks)


def cover(wide: Collection[str], narrow: Collection[str]) -> bool:
    """Whether all addresses in `narrow` are in `wide`. No networks means every address."""
    return not wide or (
        bool(narrow) and all(_inside(network, read_networks(wide)) for network in read_networks(narrow))
    )


def subscriber(text: str) -> str:
    """What is counted as one caller: an IPv4 address, or the /64 network of an IPv6 address."""
    address = read_address(text)
    return str(ip_network((address, SUBSCRIBER), strict=False)) if isinstance(address, IPv6Address) else text


def _inside(network: Network, wide: Iterable[Network]) -> bool:
    ends = (network.network_address, network.broadcast_address)
    return any(all(end in other for end in ends) for other in wide)
