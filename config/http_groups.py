"""The groups of settings of what speaks HTTP: pages and API, Flower, signed webhooks, connections to others."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from outwait.config.errors import Clash
from outwait.config.groups import BaseUrl, Group, Names, Seconds
from outwait.config.patterns import HostsAndNetworks, Networks, ReceiverPatterns, split
from outwait.config.urls import ProxyUrl, loopback

SECRET_MIN_LENGTH = 24
"""Minimum number of characters of a master secret."""


def _login(value: SecretStr) -> SecretStr:
    user, _, password = value.get_secret_value().partition(":")
    if not (user and password):
        raise ValueError("must be user:password")
    return value


def _secret(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value()) < SECRET_MIN_LENGTH:
        raise ValueError(f"must have at least {SECRET_MIN_LENGTH} characters: `openssl rand -hex 32` makes one")
    return value


WebhookSecret = Annotated[SecretStr, AfterValidator(_secret)]
Login = Annotated[SecretStr, AfterValidator(_login)]


class FlowerSettings(Group):
    """The Flower process."""

    address: str = Field(default="127.0.0.1", description="Address on which Flower listens.")
    port: int = Field(default=5555, ge=0, le=65535, description="Port on which Flower listens.")
    basic_auth: Login | None = Field(default=None, description="Flower's login, as `user:password`.")
    max_tasks: int = Field(
        default=20_000, ge=100, description="Maximum number of rows that Flower keeps in memory (about 6 KB each)."
    )

    @model_validator(mode="after")
    def _locked(self) -> Self:
        if self.basic_auth is None and not loopback(self.address):
            raise Clash(
                {"address": self.address, "basic_auth": ""},
                "Flower shows jobs to everybody who can reach it: set a login (user:password), or listen on 127.0.0.1",
            )
        return self


class WebSettings(Group):
    """The web process: the HTTP API, the pages, provider webhooks and metrics."""

    address: str = Field(default="127.0.0.1", description="Address on which the web process listens.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port on which the web process listens.")
    public_url: BaseUrl | None = Field(
        default=None, description="URL at which providers reach the web process; without it, no provider webhooks."
    )
    trusted_proxies: Networks = Field(
        default=[],
        description="Addresses and networks of the proxies in front: `10.0.0.5,10.1.0.0/16`. Only what they say about "
        "a caller's address counts.",
    )
    proxy_header: Literal["x-forwarded-for", "forwarded"] = Field(
        default="x-forwarded-for", description="Header in which the trusted proxies name the caller's address."
    )
    connections: int = Field(
        default=1000, ge=1, description="Maximum number of open connections; fewer if fewer files may be open."
    )
    connections_per_address: int = Field(
        default=200,
        ge=1,
        description="The same of one address (IPv6: of one /64 network). Trusted proxies have no such limit.",
    )
    read_time: Seconds = Field(
        default=10,
        description="Seconds for the head of a request, and for each part of its body (at least 1 KiB a second).",
    )
    body_max: int = Field(default=4_194_304, ge=1024, description="Maximum size of a request's body, in bytes.")
    targets: Names = Field(
        default=["https://*", "[a-z]*"],
        description="Patterns of targets that HTTP producers may name; by default handlers' names and https URLs.",
    )
    priority_max: int = Field(default=9, ge=5, le=9, description="Highest priority that HTTP producers may name.")
    cors_origins: Names = Field(default=[], description="Origins whose pages may call the API from a browser.")
    session: Seconds = Field(default=12 * 3600, description="Seconds for which a login to the pages is valid.")
    flower_url: BaseUrl | None = Field(
        default=None, description="URL at which people reach Flower; the pages link to it."
    )


class OutboundSettings(Group):
    """How workers connect to others: which hosts of producers are allowed, and the proxy before providers."""

    allow: HostsAndNetworks = Field(
        default=[], description="Private hosts and networks that workers may connect to: `media.internal,10.1.0.0/16`."
    )
    proxy: ProxyUrl | None = Field(
        default=None,
        description="HTTP proxy for requests to providers (`https://` only): `http://user:password@proxy:3128`. "
        "`HTTPS_PROXY` and the like are not read.",
    )


class WebhookSettings(Group):
    """Signed webhooks to `https://` targets."""

    secrets: Annotated[list[WebhookSecret], BeforeValidator(split)] = Field(
        default=[],
        max_length=2,
        description="Master secrets from which receivers' secrets are derived, newest first; two while they rotate.",
    )
    signed: bool = Field(
        default=False,
        description="Workers have the secrets: `https://` targets are accepted in processes without them.",
    )
    shared: ReceiverPatterns = Field(
        default=[],
        description="Patterns of receivers that serve all tenants, with one secret: `https://crm.example/*`. They must "
        "obey the `tenant` in the envelope.",
    )
    schedule: Annotated[list[Seconds], BeforeValidator(split)] = Field(
        default=[5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400],
        min_length=1,
        description="Seconds between attempts; after the last attempt the delivery is dead.",
    )
    time_limit: Seconds = Field(default=15, description="Seconds within which a receiver must answer.")
