"""Which addresses a worker may connect to for a producer: public ones, and those that the operator allows. Pure.

Every address that is not known to be public is refused: cloud metadata, our own Redis and internal admin pages have
such addresses (server-side request forgery).
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from outwait.worker.model.targets import WebhookTarget

# https://www.iana.org/assignments/iana-ipv4-special-registry, multicast (224/4), reserved (240/4), and the address of
# Azure's platform services (168.63.129.16). AWS, Google and Oracle use 169.254/16 and 192.0.0/24, Alibaba 100.64/10.
_NOT_PUBLIC = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)

# https://www.iana.org/assignments/ipv6-unicast-address-assignments: only this network is assigned. Tunnels that contain
# an IPv4 address (Teredo, 6to4), identifiers that are not routed, and documentation addresses are excluded.
_ASSIGNED = IPv6Network("2000::/3")
_EXCLUDED = tuple(IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
_TRANSLATED = IPv6Network("64:ff9b::/96")  # NAT64: the last 32 bits are the IPv4 address

_EVERYTHING = 0xFFFF_FFFF


class Guard:
    """Decides which addresses one process may connect to.

    Args:
        allow: names (`media.internal`, `*.svc.cluster.local`), addresses and networks (`10.1.0.0/16`) that are
            allowed although they are not public.
    """

    def __init__(self, allow: Sequence[str] = ()) -> None:
        networks = {entry: _network(entry) for entry in allow}
        self._networks = [network for network in networks.values() if network]
        self._names = [entry.lower() for entry, network in networks.items() if not network]

    def allows(self, host: str) -> bool:
        """Whether the operator allows this name or address. The addresses of an allowed name are not checked."""
        host = host.lower()
        address = _address(host)
        return self._listed(address) if address else any(fnmatchcase(host, name) for name in self._names)

    def permits(self, address: str) -> bool:
        """Whether a connection to this address is allowed. Text that is not a normal address is refused."""
        parsed = _address(address)
        return parsed is not None and (self._listed(parsed) or public(parsed))

    def _listed(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._networks)


def webhook_refusal(target: WebhookTarget, *, signs: bool, guard: Guard) -> str:
    """Why no webhook may be sent to this receiver, or "".

    Args:
        target: the receiver.
        signs: whether there is a secret to sign with, here or at the workers.
        guard: what the operator allows.
    """
    if not signs:
        return (
            "webhooks need a secret to sign with: set OUTWAIT_WEBHOOKS__SECRETS (`openssl rand -hex 32` makes one); "
            "where only workers have it, set OUTWAIT_WEBHOOKS__SIGNED for the other processes"
        )
    if not (target.encrypted or guard.allows(target.host)):
        return f"the URL must begin with https://, unless OUTWAIT_OUTBOUND__ALLOW lists {target.host}"
    return ""


def public(address: IPv4Address | IPv6Address) -> bool:
    """Whether the address is public, as far as the address itself shows."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC)
    if address in _TRANSLATED:
        return public(IPv4Address(int(address) & _EVERYTHING))
    return address in _ASSIGNED and not any(address in network for network in _EXCLUDED)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def _network(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None
