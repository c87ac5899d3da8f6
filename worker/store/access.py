"""Who may use the web edge: API keys, and the logins to the pages that are made with them. Only hashes are stored."""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import msgspec

from worker.store.connection import Connection

PREFIX = "ow"
"""How the text of every key begins, so that scanners for leaked secrets know one."""


class Scope(StrEnum):
    """What an API key is good for."""

    ENQUEUE = "enqueue"
    READ = "read"
    OPERATE = "operate"  # cancel, replay, resolve, pause


class ApiKey(msgspec.Struct, frozen=True):
    """An API key as it is known. `tenant` confines it to that tenant's jobs; times are seconds since 1970."""

    id: str
    name: str
    scopes: frozenset[Scope]
    created: float
    tenant: str | None = None


class _Stored(msgspec.Struct, frozen=True):
    key: ApiKey
    digest: str


class NewKey(NamedTuple):
    """A key just made. `text` is what its owner sends; it is shown once and stored nowhere."""

    key: ApiKey
    text: str


class Access:
    """The API keys of one namespace, for one event loop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._keys = connection.keys("ACCESS")

    async def create(self, name: str, scopes: Sequence[Scope], tenant: str | None = None) -> NewKey:
        """Make a key."""
        async with self._connection.translated():
            second, _ = await self._connection.redis.time()
            key = ApiKey(secrets.token_hex(4), name, frozenset(scopes), second, tenant)
            secret = secrets.token_urlsafe(32)
            stored = msgspec.json.encode(_Stored(key, _digest(secret)))
            await self._connection.redis.hset(self._keys, key.id, stored)
        return NewKey(key, f"{PREFIX}_{key.id}_{secret}")

    async def find(self, text: str) -> ApiKey | None:
        """The key that somebody shows, or None if it is none of ours (any more)."""
        prefix, _, rest = text.partition("_")
        key_id, _, secret = rest.partition("_")
        if prefix != PREFIX or not secret:
            return None
        stored = await self._get(key_id)
        return stored.key if stored and hmac.compare_digest(stored.digest, _digest(secret)) else None

    async def all(self) -> list[ApiKey]:
        """Every key, oldest first."""
        async with self._connection.translated():
            rows = await self._connection.redis.hvals(self._keys)
        found = [msgspec.json.decode(row, type=_Stored).key for row in rows]
        return sorted(found, key=lambda key: (key.created, key.id))

    async def revoke(self, key_id: str) -> bool:
        """Make a key and every login with it useless at once; whether there was one."""
        async with self._connection.translated():
            return bool(await self._connection.redis.hdel(self._keys, key_id))

    async def log_in(self, key: ApiKey, seconds: float) -> str:
        """Open a session for the owner of a key: the token that tells it."""
        token = secrets.token_urlsafe(32)
        async with self._connection.translated():
            await self._connection.redis.set(self._session(token), key.id, px=int(seconds * 1000))
        return token

    async def session(self, token: str) -> ApiKey | None:
        """The key that a session was opened with, while both are good."""
        async with self._connection.translated():
            key_id = await self._connection.redis.get(self._session(token))
        stored = await self._get(key_id.decode()) if key_id else None
        return stored.key if stored else None

    async def log_out(self, token: str) -> None:
        """End a session."""
        async with self._connection.translated():
            await self._connection.redis.delete(self._session(token))

    async def _get(self, key_id: str) -> _Stored | None:
        async with self._connection.translated():
            row = await self._connection.redis.hget(self._keys, key_id)
        return msgspec.json.decode(row, type=_Stored) if row else None

    def _session(self, token: str) -> str:
        return self._connection.keys("SESSION", _digest(token))


def _digest(secret: str) -> str:
    # Of 32 random bytes: nothing to guess, so nothing that a slow hash would protect.
    return hashlib.sha256(secret.encode()).hexdigest()
