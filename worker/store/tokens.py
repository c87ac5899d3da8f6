"""Access tokens shared by all workers; one of them renews."""

from outwait.worker.model.times import milliseconds
from outwait.worker.store.connection import Connection


class Tokens:
    """Tokens of one namespace, for one event loop. Implements `outwait.worker.providers.exchange.TokenStore`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._redis = connection.redis
        self._keys = connection.keys

    async def token(self, name: str) -> tuple[str, float] | None:
        """The token and the seconds for which it is still good, or None."""
        key = self._keys("TOKEN", name)
        async with self._connection.translated(), self._redis.pipeline(transaction=True) as pipe:
            value, left_ms = await pipe.get(key).pttl(key).execute()
        return (value.decode(), left_ms / 1000) if value and left_ms > 0 else None

    async def put_token(self, name: str, token: str, *, ttl_s: float) -> None:
        """Keep a token for `ttl_s` seconds."""
        async with self._connection.translated():
            await self._redis.set(self._keys("TOKEN", name), token, px=max(1, milliseconds(ttl_s)))

    async def drop_token(self, name: str, token: str) -> None:
        """Forget this token, unless another one stands there already."""
        async with self._connection.translated():
            await self._connection.scripts.run("drop_token", name=name, token=token)

    async def lock_token(self, name: str, *, ttl_s: float) -> bool:
        """Become the one who renews, for at most `ttl_s` seconds. False: somebody else is at it."""
        async with self._connection.translated():
            return bool(await self._redis.set(self._keys("LOCK", name), "1", nx=True, px=max(1, milliseconds(ttl_s))))

    async def unlock_token(self, name: str) -> None:
        """Done renewing."""
        async with self._connection.translated():
            await self._redis.delete(self._keys("LOCK", name))
