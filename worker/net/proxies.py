"""Proxies that the environment names. Outwait uses none of them, and says so where that may surprise."""

from collections.abc import Mapping

from outwait.config.http_groups import OutboundSettings

NAMES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
"""What most programs read, also in lower case."""

ADVICE = (
    "Requests to providers, receivers and media go out directly. If providers can only be reached through the proxy, "
    "set OUTWAIT_OUTBOUND__PROXY."
)


def unused(environment: Mapping[str, str], settings: OutboundSettings) -> list[str]:
    """The variables that name a proxy, unless the settings say which one to use."""
    spellings = (spelling for name in NAMES for spelling in (name, name.lower()))
    return [] if settings.proxy else [name for name in spellings if environment.get(name)]
