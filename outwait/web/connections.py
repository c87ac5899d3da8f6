"""How many connections a server has open, and which one ends when another one comes."""

import resource
from dataclasses import dataclass, field
from typing import Protocol

from outwait.config.http_groups import WebSettings
from outwait.worker.model.networks import contain, read_networks, subscriber

RESERVE = 400
"""Open files that are left to everything else: Redis, log files, connections that were accepted and not yet counted."""


class Member(Protocol):
    """An open connection."""

    def make_room(self) -> None:
        """Close at once."""


@dataclass(eq=False)
class _Group:
    limit: int
    name: str = ""
    size: int = 0
    waiting: dict[Member, None] = field(default_factory=dict)  # for their callers; the longest first


class Connections:
    """The open connections of one server: of all callers, and of each address.

    A connection either waits for its caller (for a request, or the rest of it) or works for it. When there are too
    many, the one that has waited longest makes room: whoever sends whole requests is served, however many connections
    others open and leave. If none waits, the new one is refused.

    Args:
        web: the limits. Trusted proxies have none of their own: each stands for many callers.
        limit: connections in all, if the process can open as many files.
    """

    def __init__(self, web: WebSettings, limit: int) -> None:
        self._proxies = read_networks(web.trusted_proxies)
        self._per_address = web.connections_per_address
        self._all = _Group(limit)
        self._callers: dict[str, _Group] = {}
        self._groups: dict[Member, tuple[_Group, ...]] = {}
        self.ended = 0
        """Connections that were refused or had to make room."""

    def admit(self, member: Member, address: str) -> bool:
        """Count a new connection; False if there is no room for it."""
        groups = self._groups[member] = self._groups_of(address)
        for group in groups:
            group.size += 1
        for group in groups:
            if group.size > group.limit and not self._make_room(group):
                self.leave(member)
                return False
        self.waits(member)
        return True

    def waits(self, member: Member) -> None:
        """The connection waits for its caller from now on, if it did not do so before."""
        for group in self._groups.get(member, ()):
            group.waiting[member] = None

    def works(self, member: Member) -> None:
        """The connection has a whole request, and works for its caller."""
        for group in self._groups.get(member, ()):
            group.waiting.pop(member, None)

    def leave(self, member: Member) -> None:
        """The connection is closed. It may be said twice."""
        for group in self._groups.pop(member, ()):
            group.size -= 1
            group.waiting.pop(member, None)
            if not group.size:
                self._callers.pop(group.name, None)

    def _make_room(self, group: _Group) -> bool:
        self.ended += 1
        longest = next(iter(group.waiting), None)
        if longest is None:
            return False
        self.leave(longest)
        longest.make_room()
        return True

    def _groups_of(self, address: str) -> tuple[_Group, ...]:
        if contain(self._proxies, address):
            return (self._all,)
        name = subscriber(address)
        return (self._callers.setdefault(name, _Group(self._per_address, name)), self._all)


def affordable(wanted: int) -> int:
    """The number of connections that this process can have, after its limit of open files is raised if it may be."""
    files, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + RESERVE
    if files != resource.RLIM_INFINITY and files < needed:
        files = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return wanted if files == resource.RLIM_INFINITY else max(1, min(wanted, files - RESERVE))
