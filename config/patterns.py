"""Lists and patterns in settings: hosts, targets, receivers, tenants. One that could never match is an error."""

import re
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

EVERYBODY = "*"
"""In the place of a tenant: all of them, and jobs without a tenant."""

_HOST = re.compile(r"(?!.*(?:^|\.)[0-9]+$)(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_TENANT = re.compile(r"[A-Za-z0-9_.@-]{1,60}")
_RECEIVER = re.compile(r"https?://[a-z0-9_.*:-]+(?:/[^?#\s]*)?")
_TARGETS = (
    re.compile(r"[a-z0-9_*-]{1,60}"),
    _RECEIVER,
    re.compile(r"celery://[^/?#\s][^#\s]*"),
    re.compile(r"stream://[^/?#\s][^?#\s]*"),
    re.compile(r"file:[^/?#\s][^?#\s]*"),
)
_DEFAULT_PORT = re.compile(r"(?:https://[^/]*:443|http://[^/]*:80)(?:/.*)?")


def split(value: object) -> object:
    """Accept `a.b,c.d` as well as a JSON list."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _host_or_network(value: str) -> str:
    try:
        ip_network(value, strict=False)
    except ValueError:
        if not _HOST.fullmatch(value.lower()):
            raise ValueError(
                "must be host names (media.internal, *.svc.cluster.local), addresses or networks (10.1.0.0/16)"
            ) from None
    return value


def _network(value: str) -> str:
    try:
        ip_network(value, strict=False)
    except ValueError:
        raise ValueError("must be addresses or networks (10.0.0.5, 10.1.0.0/16, 2001:db8::/32)") from None
    return value


def _receiver(value: str) -> str:
    if not _RECEIVER.fullmatch(value) or _DEFAULT_PORT.fullmatch(value):
        raise ValueError(
            "must be URLs of receivers (https://crm.example/*), with the host in lower case, and without a default "
            "port and a query"
        )
    return value


def _owned(value: Mapping[str, list[str]]) -> Mapping[str, list[str]]:
    for pattern, tenants in value.items():
        if not any(form.fullmatch(pattern) for form in _TARGETS) or _DEFAULT_PORT.fullmatch(pattern):
            raise ValueError(
                f"{pattern!r:.200} can match no target: write a handler's name (crm), https://host/path, "
                "celery://task?queue=name, stream://key or file:name.jsonl, with * for any text; hosts in lower case, "
                "no default port, no query, no maxlen"
            )
        for tenant in tenants:
            if tenant != EVERYBODY and not _TENANT.fullmatch(tenant):
                raise ValueError(f"{tenant!r:.200} cannot be a tenant: up to 60 letters, digits and _ . @ -, or *")
    return value


Networks = Annotated[list[Annotated[str, AfterValidator(_network)]], BeforeValidator(split)]
HostsAndNetworks = Annotated[list[Annotated[str, AfterValidator(_host_or_network)]], BeforeValidator(split)]
ReceiverPatterns = Annotated[list[Annotated[str, AfterValidator(_receiver)]], BeforeValidator(split)]
Owned = Annotated[dict[str, Annotated[list[str], BeforeValidator(split)]], AfterValidator(_owned)]
"""Patterns of targets, each with the tenants to which it belongs."""
