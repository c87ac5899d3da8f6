"""The URLs of Redis, of the broker and of a proxy, checked before anything connects to them."""

import re
import ssl
from typing import Annotated, Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pydantic import AfterValidator, SecretStr

REDIS = ("redis", "rediss")
RABBITMQ = ("amqp", "amqps")

TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
CHECKS = {"required": ssl.CERT_REQUIRED, "none": ssl.CERT_NONE}
"""Values of `ssl_cert_reqs`. The certificate of Redis is checked unless the URL says `none`."""


def place(url: str) -> tuple[str | None, int, str]:
    """Host, port and database of a Redis URL, without the user."""
    parts = urlsplit(url)
    return parts.hostname, parts.port or 6379, parts.path.strip("/") or "0"


def tls(url: str) -> dict[str, Any] | None:
    """The TLS options of a Redis URL, for Celery and Flower, which do not read all of them from the URL."""
    parts = urlsplit(url)
    if parts.scheme != "rediss":
        return None
    options = dict(parse_qsl(parts.query))
    return {**options, "ssl_cert_reqs": CHECKS[options.get("ssl_cert_reqs", "required")]}


def _redis(value: SecretStr) -> SecretStr:
    parts = _parts(value, REDIS)
    if not re.fullmatch(r"/?\d*", parts.path):
        raise ValueError("must end with a database number, as in redis://host:6379/0")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if not options.keys() <= {*TLS_FILES, "ssl_cert_reqs"}:
        raise ValueError("may only have the options ssl_ca_certs, ssl_certfile, ssl_keyfile and ssl_cert_reqs")
    if options and parts.scheme != "rediss":
        raise ValueError("must begin with rediss:// if it has TLS options")
    if options.get("ssl_cert_reqs", "required") not in CHECKS:
        raise ValueError(f"may only have {' or '.join(CHECKS)} as ssl_cert_reqs")
    return value


def _broker(value: SecretStr) -> SecretStr:
    parts = _parts(value, (*REDIS, *RABBITMQ))
    return _redis(value) if parts.scheme in REDIS else value


def _proxy(value: SecretStr) -> SecretStr:
    parts = _parts(value, ("http",))
    if parts.path.strip("/") or parts.query or not parts.port:
        raise ValueError("must be http://host:port or http://user:password@host:port")
    return value


def _parts(value: SecretStr, schemes: tuple[str, ...]) -> SplitResult:
    text = value.get_secret_value()
    parts = urlsplit(text)
    if not text.startswith(tuple(f"{scheme}://" for scheme in schemes)):
        raise ValueError(f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    if not parts.hostname or _port(parts) == 0:
        raise ValueError("must name a host; a port must be from 1 to 65535")
    return parts


def _port(parts: SplitResult) -> int | None:
    try:
        return parts.port
    except ValueError:  # its own message may show a part of the password
        raise ValueError(
            "the port must be a number from 1 to 65535; in a password write / as %2F, : as %3A and @ as %40"
        ) from None


RedisUrl = Annotated[SecretStr, AfterValidator(_redis)]
BrokerUrl = Annotated[SecretStr, AfterValidator(_broker)]
ProxyUrl = Annotated[SecretStr, AfterValidator(_proxy)]
