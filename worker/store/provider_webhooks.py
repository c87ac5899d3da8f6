"""Keeps what providers posted: the webhooks of each job, those for jobs that are gone, and the secret of their URLs."""

import secrets

import msgspec

from outwait.worker.store import codec
from outwait.worker.store.connection import Connection


class Webhook(msgspec.Struct, frozen=True):
    """A webhook as it is kept. `at` is seconds since 1970, `size` the bytes that came.

    Args:
        body: its content, with encodings like gzip undone; only its head if `problem` says that it is too large.
        problem: why the body cannot be read, or nothing.
        summary: what its reader made of it, for people.
    """

    provider: str
    job_id: str
    body: bytes
    size: int
    problem: str = ""
    summary: str = msgspec.field(name="told", default="")  # stored, and shown by the API, under its first name
    at: float = 0.0

    def packed(self, above: int) -> msgspec.Raw:
        """For the record script; deflated if longer than `above` bytes."""
        return codec.blob(msgspec.msgpack.encode(self), above)


_decode = msgspec.msgpack.Decoder(Webhook).decode


class ProviderWebhooks:
    """The webhooks of one namespace, for one event loop. Only the record script adds to them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._redis = connection.redis
        self._keys = connection.keys

    async def secret(self) -> bytes:
        """The secret that the tokens of this namespace are made with; the first call makes it."""
        key = self._keys("WEBHOOKS_SECRET")
        async with self._connection.translated():
            await self._redis.set(key, secrets.token_bytes(32), nx=True)
            secret: bytes = await self._redis.get(key)
        return secret

    async def of(self, job_id: str) -> list[Webhook]:
        """A job's webhooks, oldest first."""
        return [_webhook(row) for row in await self._rows(self._keys("WEBHOOKS", job_id))]

    async def unknown(self) -> list[Webhook]:
        """Webhooks for jobs that are gone, oldest first."""
        return [_webhook(row) for row in await self._rows(self._keys("WEBHOOKS_UNKNOWN"))]

    async def forget_unknown(self, job_id: str) -> None:
        """Drop those for this job: they stand in its own list now."""
        key = self._keys("WEBHOOKS_UNKNOWN")
        for row in await self._rows(key):
            if _webhook(row).job_id == job_id:
                async with self._connection.translated():
                    await self._redis.lrem(key, 1, row)

    async def _rows(self, key: str) -> list[bytes]:
        async with self._connection.translated():
            rows: list[bytes] = await self._redis.lrange(key, 0, -1)
        return rows


def _webhook(row: bytes) -> Webhook:
    at, _, packed = row.partition(b" ")
    return msgspec.structs.replace(_decode(codec.inflate(packed)), at=int(at) / 1000)
