"""The addresses of Redis and of the broker, checked before anything connects to them."""

import re
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, SecretStr

REDIS = ("redis", "rediss")
RABBITMQ = ("amqp", "amqps")


def place(url: str) -> tuple[str | None, int, str]:
    """Host, port and database of a Redis URL, whoever logs in."""
    parts = urlsplit(url)
    return parts.hostname, parts.port or 6379, parts.path.strip("/") or "0"


def _redis(value: SecretStr) -> SecretStr:
    parts = _parts(value, REDIS)
    if not re.fullmatch(r"/?\d*", parts.path):
        raise ValueError("must end with the number of a database, as in redis://host:6379/0")
    if any(not option.startswith("ssl_") for option in parts.query.split("&") if option):
        raise ValueError("may have no options but ssl_ca_certs, ssl_certfile, ssl_keyfile and ssl_cert_reqs")
    return value


def _broker(value: SecretStr) -> SecretStr:
    parts = _parts(value, (*REDIS, *RABBITMQ))
    return _redis(value) if parts.scheme in REDIS else value


def _parts(value: SecretStr, schemes: tuple[str, ...]) -> SplitResult:
    text = value.get_secret_value()
    parts = urlsplit(text)
    if not text.startswith(tuple(f"{scheme}://" for scheme in schemes)):
        raise ValueError(f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    if not parts.hostname or _port(parts) == 0:
        raise ValueError("must name a host, and a port from 1 to 65535 if any")
    return parts


def _port(parts: SplitResult) -> int | None:
    try:
        return parts.port
    except ValueError:  # its own message may show a part of the password
        raise ValueError("must have a number as port; in a password write / as %2F, : as %3A and @ as %40") from None


RedisUrl = Annotated[SecretStr, AfterValidator(_redis)]
BrokerUrl = Annotated[SecretStr, AfterValidator(_broker)]
