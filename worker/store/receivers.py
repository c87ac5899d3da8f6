"""Receivers of webhooks that said that they are gone: a tenant sends them nothing more until a person enables them."""

import msgspec

from outwait.worker.store.connection import Connection

LIMIT = 1000
"""Receivers that can be disabled at once; a further one gets each delivery, and answers 410 to each."""


class DisabledReceiver(msgspec.Struct, frozen=True):
    """A receiver that gets nothing more of one tenant's: its URL without the query, since when (seconds since 1970),
    and why. `tenant` is None for jobs without a tenant.
    """

    url: str
    since: float
    why: str
    tenant: str | None = None


class Receivers:
    """The disabled receivers of one namespace, for one event loop. Each tenant has its own."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._key = connection.keys("ENDPOINTS")

    async def find(self, url: str, tenant: str | None = None) -> DisabledReceiver | None:
        """The entry of a receiver that is disabled for a tenant, else None."""
        async with self._connection.translated():
            row = await self._connection.redis.hget(self._key, _field(url, tenant))
        return msgspec.json.decode(row, type=DisabledReceiver) if row else None

    async def disable(self, url: str, why: str, tenant: str | None = None) -> None:
        """Send nothing more of a tenant's to a receiver. One that is disabled already keeps its date."""
        async with self._connection.translated():
            if await self._connection.redis.hlen(self._key) >= LIMIT:
                return
            second, _ = await self._connection.redis.time()
            row = msgspec.json.encode(DisabledReceiver(url, second, why, tenant))
            await self._connection.redis.hsetnx(self._key, _field(url, tenant), row)

    async def enable(self, url: str, tenant: str | None = None) -> bool:
        """Let a tenant's results be sent to a receiver again; whether it was disabled for that tenant."""
        async with self._connection.translated():
            return bool(await self._connection.redis.hdel(self._key, _field(url, tenant)))

    async def all(self) -> list[DisabledReceiver]:
        """Those that are disabled, the newest first."""
        async with self._connection.translated():
            rows = await self._connection.redis.hvals(self._key)
        receivers = [msgspec.json.decode(row, type=DisabledReceiver) for row in rows]
        return sorted(receivers, key=lambda receiver: (-receiver.since, receiver.url, receiver.tenant or ""))


def _field(url: str, tenant: str | None) -> str:
    """Without a tenant it is what earlier releases wrote. Neither a tenant nor a URL has a space."""
    return f"{tenant} {url}" if tenant else url
