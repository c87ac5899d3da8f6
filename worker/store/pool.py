"""Connections to the Redis that is the master now: at an address, a socket, or where the sentinels say."""

import re
import weakref
from typing import Any

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.asyncio import Connection as TcpConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection
from redis.backoff import NoBackoff
from redis.utils import str_if_bytes

from outwait.config.settings import Settings
from outwait.config.urls import RedisAddress
from outwait.worker.store.epoch import Epoch, epoch_of
from outwait.worker.store.sentinels import Sentinels

_SERVER = re.compile(r"^(role|master_replid):(\w+)", re.MULTILINE)
"""What of INFO's text says which server it is."""

CONNECTIONS = 64
"""Connections to Redis at once, of one event loop; a caller beyond waits. redis-py's own pool refuses the 101st."""

CONNECT_WITHIN = 5.0
"""Seconds for a connection to be made, at most."""


class Pool(BlockingConnectionPool):
    """The connections of one event loop. None outlives the time of its server as the master.

    Args:
        settings: where Redis is.
        health_check: seconds after which an idle connection is tried before it is used: a half-open one is noticed.
        retries: how often a command is sent again on a new connection.
    """

    is_master = True  # asked by redis-py's connections that sentinels manage, as is the next one
    check_connection = False

    def __init__(self, settings: Settings, *, health_check: float, retries: int) -> None:
        address = settings.redis_address
        timeout = settings.store.timeout
        super().__init__(
            max_connections=CONNECTIONS,
            timeout=timeout,
            connection_class=_connection_class(address),
            db=address.database,
            username=address.username,
            password=address.password,
            socket_timeout=timeout,
            health_check_interval=health_check,
            retry=Retry(NoBackoff(), retries, supported_errors=(exceptions.ConnectionError,)),
            redis_connect_func=self._connected,
            **_place(address, timeout),
        )
        self._address = address
        self._left = 0
        self.epoch: Epoch = epoch_of(settings.redis_url.get_secret_value())
        if address.master:
            self.connection_kwargs["connection_pool"] = weakref.proxy(self)
            self._sentinels = Sentinels(address)

    async def get_master_address(self) -> tuple[str, int]:
        """Host and port of the master. redis-py's connections that sentinels manage ask for it."""
        return await self._sentinels.master()

    def leave(self) -> None:
        """Have every connection made anew before it is used again: another server may be the master."""
        self._left += 1

    async def ensure_connection(self, connection: Any) -> None:
        """Connect, and leave a server whose time as the master is over.

        Only here, by the task that has the connection: redis-py loses the socket of one that is disconnected and
        connected by two tasks at once.
        """
        if getattr(connection, "outwait_made_in", self._time) != self._time:
            await connection.disconnect()
        await super().ensure_connection(connection)

    @property
    def _time(self) -> tuple[int, int]:
        return self.epoch.number, self._left

    async def aclose(self) -> None:
        """Close all connections, those to the sentinels too."""
        await super().aclose()
        if self._address.master:
            await self._sentinels.close()

    async def _connected(self, connection: Any) -> None:
        """Log in, and see which server this is."""
        await connection.on_connect_check_health(check_health=False)  # a PING that is refused would connect again
        await self._see(connection)
        connection.outwait_made_in = self._time

    async def _see(self, connection: Any) -> None:
        """Notice that another epoch has begun. A user that may not ask (INFO) goes without."""
        await connection.send_command("INFO", check_health=False)
        try:
            info = dict(_SERVER.findall(str_if_bytes(await connection.read_response())))
        except exceptions.NoPermissionError:
            return
        if self._address.master and info.get("role") != "master":
            raise exceptions.ConnectionError("the sentinels named a server that is not the master, or not yet")
        self.epoch.begins(info.get("master_replid", ""), self._address.shown)


def _connection_class(address: RedisAddress) -> type[Any]:
    if address.socket:
        return UnixDomainSocketConnection
    if address.master:
        return SentinelManagedSSLConnection if address.tls is not None else SentinelManagedConnection
    return SSLConnection if address.tls is not None else TcpConnection


def _place(address: RedisAddress, timeout: float) -> dict[str, Any]:
    if address.socket:
        return {"path": address.socket}
    options = {"socket_connect_timeout": min(CONNECT_WITHIN, timeout), "socket_keepalive": True, **(address.tls or {})}
    if address.master:
        return options
    ((host, port),) = address.hosts
    return {"host": host, "port": port, **options}
