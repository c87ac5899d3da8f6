"""API keys: what they allow, and which key may make which."""

import re
from collections.abc import Collection, Sequence
from enum import StrEnum

import msgspec

from outwait.worker.model.errors import InvalidRequest
from outwait.worker.model.jobs import TENANT_PATTERN
from outwait.worker.model.networks import cover, read_networks

PRIORITY_HIGHEST = 9
"""The highest priority that a job can have."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.@-]{0,59}")


class Scope(StrEnum):
    """What an API key is good for."""

    ENQUEUE = "enqueue"
    READ = "read"
    OPERATE = "operate"  # cancel, replay, resolve, pause
    KEYS = "keys"  # list, create, rotate and revoke keys that allow no more


class ApiKey(msgspec.Struct, frozen=True):
    """An API key as it is known. `tenant` confines it to that tenant's jobs, `networks` to callers from there.

    Times are seconds since 1970 of Redis's clock; `used` may be a minute old, and is None before the first use. The key
    is valid until `expires`, if that is given. `maker` is the id of the key that made it over HTTP. Jobs that it
    enqueues have `priority_max` at most.
    """

    id: str
    name: str
    scopes: frozenset[Scope]
    created: float
    tenant: str | None = None
    used: float | None = None
    expires: float | None = None
    networks: tuple[str, ...] = ()
    maker: str | None = None
    priority_max: int = PRIORITY_HIGHEST

    def covers(self, other: "ApiKey") -> bool:
        """Whether this key allows all that the other one does: nobody gives, or takes away, more than they have."""
        return (
            other.scopes <= self.scopes
            and self.tenant in {None, other.tenant}
            and (self.expires is None or (other.expires is not None and other.expires <= self.expires))
            and cover(self.networks, other.networks)
            and other.priority_max <= self.priority_max
        )

    @property
    def limited(self) -> bool:
        """Whether it has limits or rights that release 0.2.0 does not know."""
        return (
            self.expires is not None
            or bool(self.networks)
            or Scope.KEYS in self.scopes
            or self.priority_max < PRIORITY_HIGHEST
        )

    @property
    def rights(self) -> str:
        """What it allows, for people."""
        limit = f"; priority up to {self.priority_max}" if self.priority_max < PRIORITY_HIGHEST else ""
        return ", ".join(sorted(self.scopes)) + limit

    def expired(self, now: float) -> bool:
        """Whether it had ended by then."""
        return self.expires is not None and self.expires <= now


def made_by(keys: Collection[ApiKey], key_id: str) -> set[str]:
    """The ids of the keys that a key has made, and those have made."""
    makers, made = {key_id}, set[str]()
    while makers := {key.id for key in keys if key.maker in makers} - made:
        made |= makers
    return made


def check(name: str, scopes: Collection[Scope], tenant: str | None, networks: Sequence[str]) -> None:
    """Check what a new key is made of. Raises InvalidRequest."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name!r} cannot be the name of a key: up to 60 letters, digits, spaces and _ . @ -, "
            "the first one a letter or digit"
        )
    if not scopes:
        raise InvalidRequest(f"a key needs a scope: {', '.join(Scope)}")
    if tenant is not None and not re.fullmatch(TENANT_PATTERN, tenant):
        raise InvalidRequest(f"{tenant!r} cannot be a tenant: up to 60 letters, digits and _ . @ -")
    try:
        read_networks(networks)
    except ValueError:
        raise InvalidRequest("a key's networks must be addresses or networks (192.0.2.7, 10.1.0.0/16)") from None
