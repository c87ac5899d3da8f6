"""The URLs of Redis, of the broker and of a proxy, checked before anything connects to them."""

import re
import ssl
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from pydantic import AfterValidator, SecretStr

DIRECT = ("redis", "rediss", "valkey", "valkeys")
SENTINEL = ("sentinel", "sentinels")
SOCKET = "unix"
REDIS = (*DIRECT, *SENTINEL, SOCKET)
WITH_TLS = ("rediss", "valkeys", "sentinels")
RABBITMQ = ("amqp", "amqps")

PORT, SENTINEL_PORT = 6379, 26379

SENTINEL_PATIENCE = 1.0
"""Seconds for one sentinel's answer; then the next one is asked."""

TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
CHECKS = {"required": ssl.CERT_REQUIRED, "none": ssl.CERT_NONE}
"""Values of `ssl_cert_reqs`. The certificate of Redis is checked unless the URL says `none`."""

_TLS = (*TLS_FILES, "ssl_cert_reqs")
_LOGIN = ("sentinel_username", "sentinel_password")


class RedisAddress(NamedTuple):
    """Where Redis is, read from one of our URLs.

    Args:
        hosts: host and port of the server; of Sentinel URLs those of the sentinels; empty for a socket.
        database: its number.
        username: for the server.
        password: for the server.
        tls: TLS options, or None without TLS.
        master: the name under which the sentinels know the servers; empty without sentinels.
        login: `username` and `password` for the sentinels, as far as they are given.
        socket: path of a Unix socket, or empty.
    """

    hosts: tuple[tuple[str, int], ...]
    database: int = 0
    username: str | None = None
    password: str | None = None
    tls: dict[str, Any] | None = None
    master: str = ""
    login: Mapping[str, str] = MappingProxyType({})
    socket: str = ""

    @property
    def place(self) -> tuple[object, ...]:
        """What tells one database from another."""
        return frozenset(self.hosts), self.master, self.socket, self.database

    @property
    def shown(self) -> str:
        """The address for people: no user, no password."""
        hosts = ",".join(host for host, _ in self.hosts)
        return self.socket or (f"{hosts} ({self.master})" if self.master else hosts)

    @property
    def for_sentinels(self) -> dict[str, Any]:
        """Options of redis-py's connections to the sentinels themselves."""
        tls = {} if self.tls is None else {"ssl": True, **self.tls}
        return {**self.login, **tls, "socket_timeout": SENTINEL_PATIENCE, "socket_connect_timeout": SENTINEL_PATIENCE}

    @property
    def kombu_url(self) -> str:
        """The same for Celery's transport and result backend: one URL for each sentinel."""
        user = f"{quote(self.username or '', safe='')}:{quote(self.password or '', safe='')}@"
        user = user if self.username or self.password else ""
        if self.socket:
            return f"redis+socket://{user}{self.socket}?virtual_host={self.database}"
        scheme = "sentinel" if self.master else "redis" if self.tls is None else "rediss"
        urls = (f"{scheme}://{user}{_bracketed(host)}:{port}/{self.database}" for host, port in self.hosts)
        return ";".join(urls)


def loopback(address: str) -> bool:
    """Whether only this machine can reach an address."""
    return address in {"localhost", "::1"} or address.startswith("127.")


def is_redis(url: str) -> bool:
    """Whether a broker's URL names a Redis."""
    return url.partition("://")[0] in REDIS


def address_of(url: str) -> RedisAddress:
    """Read a URL that was checked before."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    user, _, hosts = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    address = RedisAddress(
        hosts=tuple(_host(host, SENTINEL_PORT if parts.scheme in SENTINEL else PORT) for host in hosts.split(",")),
        username=unquote(name) or None,
        password=unquote(password) or None,
        tls=_tls_of(options) if parts.scheme in WITH_TLS else None,
    )
    if parts.scheme == SOCKET:
        return address._replace(hosts=(), database=int(options.get("db", 0)), socket=unquote(parts.path))
    if parts.scheme in SENTINEL:
        master, _, database = parts.path.strip("/").partition("/")
        login = {name.removeprefix("sentinel_"): options[name] for name in _LOGIN if options.get(name)}
        return address._replace(database=int(database or 0), master=unquote(master), login=login)
    return address._replace(database=int(parts.path.strip("/") or 0))


def _tls_of(options: dict[str, str]) -> dict[str, Any]:
    given = {name: value for name, value in options.items() if name in TLS_FILES}
    return {**given, "ssl_cert_reqs": CHECKS[options.get("ssl_cert_reqs", "required")]}


def _host(text: str, default: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    return parts.hostname or "", parts.port or default


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _redis(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    parts = _of_scheme(text, REDIS)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    allowed = {SOCKET: ("db",), **dict.fromkeys(SENTINEL, (*_TLS, *_LOGIN))}.get(parts.scheme, _TLS)
    if not options.keys() <= set(allowed):
        raise ValueError(f"may only have the options {', '.join(allowed)}")
    if options.keys() & set(_TLS) and parts.scheme not in WITH_TLS:
        raise ValueError(f"must begin with {parts.scheme}s:// if it has TLS options")
    if options.get("ssl_cert_reqs", "required") not in CHECKS:
        raise ValueError(f"may only have {' or '.join(CHECKS)} as ssl_cert_reqs")
    _check_place(parts, options)
    return value


def _check_place(parts: SplitResult, options: dict[str, str]) -> None:
    hosts = parts.netloc.rpartition("@")[2]
    if parts.scheme == SOCKET:
        if hosts or parts.path in ("", "/") or not options.get("db", "0").isdigit():
            raise ValueError("must be the path of a socket and a database, as in unix:///run/redis.sock?db=0")
        return
    if parts.scheme in SENTINEL:
        if not re.fullmatch(r"/[^/]+(/\d*)?", parts.path):
            raise ValueError("must end with the master's name and a database, as in sentinel://host:26379/mymaster/0")
        _check_hosts(hosts.split(","))
        return
    if not re.fullmatch(r"/?\d*", parts.path):
        raise ValueError("must end with a database number, as in redis://host:6379/0")
    if "," in hosts:
        raise ValueError("must name one host; several sentinels are sentinel://host:26379,host:26379/mymaster/0")
    _check_hosts([hosts])


def _broker(value: SecretStr) -> SecretStr:
    parts = _of_scheme(value.get_secret_value(), (*REDIS, *RABBITMQ))
    if parts.scheme in REDIS:
        return _redis(value)
    _check_hosts([parts.netloc.rpartition("@")[2]])
    return value


def _proxy(value: SecretStr) -> SecretStr:
    parts = _of_scheme(value.get_secret_value(), ("http",))
    _check_hosts([parts.netloc.rpartition("@")[2]])
    if parts.path.strip("/") or parts.query or not parts.port:
        raise ValueError("must be http://host:port or http://user:password@host:port")
    return value


def _of_scheme(text: str, schemes: tuple[str, ...]) -> SplitResult:
    if not text.startswith(tuple(f"{scheme}://" for scheme in schemes)):
        raise ValueError(f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    return urlsplit(text)


def _check_hosts(hosts: list[str]) -> None:
    for host in hosts:
        parts = urlsplit(f"//{host}")
        if not parts.hostname or _port(parts) == 0:
            raise ValueError("must name a host; a port must be from 1 to 65535")


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
