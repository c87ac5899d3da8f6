"""Settings with which others than this machine are let in, or secrets leave it without TLS.

They may be meant: a container must listen on all of its addresses. So they are told and not refused.
"""

from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from outwait.config.http_groups import FlowerSettings, WebSettings
from outwait.config.names import variable
from outwait.config.settings import Settings
from outwait.config.urls import loopback


class Exposure(NamedTuple):
    """One such setting: its variable, and what it does, in one line."""

    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"


def of_providers(settings: Settings) -> Iterator[Exposure]:
    """Addresses of providers to which requests go without TLS. Workers use them."""
    for name, given in settings.providers.items():
        yield from _plain(
            variable("providers", name, "base_url"),
            str(given.get("base_url", "")),
            "without TLS, so the network can read credentials and requests",
        )


def of_web(settings: Settings) -> Iterator[Exposure]:
    """What opens the web process."""
    yield from _open(variable("web", "address"), settings.web)
    text = "without TLS, so the network can read webhooks, and cookies are sent over plain HTTP too"
    yield from _plain(variable("web", "public_url"), settings.web.public_url or "", text)


def of_flower(settings: Settings) -> Iterator[Exposure]:
    """What opens Flower."""
    yield from _open(variable("flower", "address"), settings.flower)


def of_all(settings: Settings) -> list[Exposure]:
    """All of them."""
    return [*of_providers(settings), *of_web(settings), *of_flower(settings)]


def _open(name: str, settings: WebSettings | FlowerSettings) -> Iterator[Exposure]:
    if not loopback(settings.address):
        text = "is not only this machine, and it speaks plain HTTP: put a proxy with TLS in front"
        yield Exposure(name, f"{settings.address} {text}")


def _plain(name: str, url: str, text: str) -> Iterator[Exposure]:
    parts = urlsplit(url)
    if parts.scheme == "http" and not loopback(parts.hostname or ""):
        yield Exposure(name, f"http://{parts.hostname} is {text}")
