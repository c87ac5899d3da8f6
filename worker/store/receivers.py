"""Receivers of webhooks that said that they are gone: nothing more is sent to them until a person enables them."""

import msgspec

from outwait.worker.store.connection import Connection


class DisabledReceiver(msgspec.Struct, frozen=True):
    """A receiver that is not sent anything: its URL without the query, since when (seconds since 1970), and why."""

    url: str
    since: float
    why: str


class Receivers:
    """The disabled receivers of one namespace, for one event loop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._key = connection.keys("ENDPOINTS")

    async def find(self, url: str) -> DisabledReceiver | None:
        """The entry of a receiver that is disabled, else None."""
        async with self._connection.translated():
            row = await self._connection.redis.hget(self._key, url)
        return msgspec.json.decode(row, type=DisabledReceiver) if row else None

    async def disable(self, url: str, why: str) -> None:
        """Send nothing more to a receiver. One that is disabled already keeps its date."""
        async with self._connection.translated():
            second, _ = await self._connection.redis.time()
            row = msgspec.json.encode(DisabledReceiver(url, second, why))
            await self._connection.redis.hsetnx(self._key, url, row)

    async def enable(self, url: str) -> bool:
        """Let a receiver be sent to again; whether it was disabled."""
        async with self._connection.translated():
            return bool(await self._connection.redis.hdel(self._key, url))

    async def all(self) -> list[DisabledReceiver]:
        """Those that are disabled, the newest first."""
        async with self._connection.translated():
            rows = await self._connection.redis.hvals(self._key)
        receivers = [msgspec.json.decode(row, type=DisabledReceiver) for row in rows]
        return sorted(receivers, key=lambda receiver: (-receiver.since, receiver.url))
