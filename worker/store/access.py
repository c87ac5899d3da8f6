"""Who may use the web edge: API keys, and the logins to the pages that are made with them. Only hashes are stored."""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Collection
from contextlib import suppress
from enum import StrEnum
from typing import NamedTuple

import msgspec

from outwait.worker.model.errors import InvalidRequest, StoreUnavailable
from outwait.worker.model.jobs import TENANT_PATTERN
from outwait.worker.model.times import milliseconds
from outwait.worker.store.connection import Connection

PREFIX = "ow"
"""How the text of every key begins, so that scanners for leaked secrets recognise it."""

USED_EVERY = 60.0
"""Seconds of use of one key, in one process, that are written down once."""

_TEXT = re.compile(rf"{PREFIX}_([0-9a-f]{{8}})_([A-Za-z0-9_-]{{43}})")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.@-]{0,59}")


class Scope(StrEnum):
    """What an API key is good for."""

    ENQUEUE = "enqueue"
    READ = "read"
    OPERATE = "operate"  # cancel, replay, resolve, pause


class ApiKey(msgspec.Struct, frozen=True):
    """An API key as it is known. `tenant` confines it to that tenant's jobs.

    Times are seconds since 1970 of Redis's clock; `used` may be a minute old, and is None before the first use.
    """

    id: str
    name: str
    scopes: frozenset[Scope]
    created: float
    tenant: str | None = None
    used: float | None = None


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
        self._used = connection.keys("USED")
        self._use_noted: dict[str, float] = {}  # key id -> when its use was written down, by our monotonic clock

    async def create(self, name: str, scopes: Collection[Scope], tenant: str | None = None) -> NewKey:
        """Make a key. Several may have one name: the old and the new one while a key is being replaced.

        Raises:
            InvalidRequest: the name or the tenant cannot be one, or there is no scope.
        """
        _check(name, scopes, tenant)
        async with self._connection.translated():
            second, _ = await self._connection.redis.time()
            key = ApiKey(secrets.token_hex(4), name, frozenset(scopes), second, tenant)
            secret = secrets.token_urlsafe(32)
            stored = msgspec.json.encode(_Stored(key, _digest(secret)))
            await self._connection.redis.hset(self._keys, key.id, stored)
        return NewKey(key, f"{PREFIX}_{key.id}_{secret}")

    async def find(self, text: str) -> ApiKey | None:
        """The key that somebody shows, or None if it is unknown or revoked."""
        shape = _TEXT.fullmatch(text)
        if shape is None:
            return None
        key_id, secret = shape.groups()
        stored = await self._get(key_id)
        if stored is None or not hmac.compare_digest(stored.digest, _digest(secret)):
            return None
        await self._note_use(key_id)
        return stored.key

    async def all(self) -> list[ApiKey]:
        """Every key, oldest first."""
        async with self._connection.translated():
            rows = await self._connection.redis.hvals(self._keys)
            used = await self._connection.redis.hgetall(self._used)
        stored = [msgspec.json.decode(row, type=_Stored).key for row in rows]
        known = [msgspec.structs.replace(key, used=_seconds(used.get(key.id.encode()))) for key in stored]
        return sorted(known, key=lambda key: (key.created, key.id))

    async def revoke(self, key_id: str) -> bool:
        """Make a key and every login with it useless at once; whether there was one."""
        async with self._connection.translated():
            await self._connection.redis.hdel(self._used, key_id)
            return bool(await self._connection.redis.hdel(self._keys, key_id))

    async def log_in(self, key: ApiKey, ttl_s: float) -> str:
        """Open a session of `ttl_s` seconds for the owner of a key; its token."""
        token = secrets.token_urlsafe(32)
        async with self._connection.translated():
            await self._connection.redis.set(self._session(token), key.id, px=milliseconds(ttl_s))
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

    async def _note_use(self, key_id: str) -> None:
        now = time.monotonic()
        if now < self._use_noted.get(key_id, -USED_EVERY) + USED_EVERY:
            return
        self._use_noted[key_id] = now
        with suppress(StoreUnavailable):  # whoever only reads needs no Redis that takes writes
            async with self._connection.translated():
                second, _ = await self._connection.redis.time()
                await self._connection.redis.hset(self._used, key_id, second)

    def _session(self, token: str) -> str:
        return self._connection.keys("SESSION", _digest(token))


def _digest(secret: str) -> str:
    # Of 32 random bytes: nothing to guess, so nothing that a slow hash would protect.
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def _check(name: str, scopes: Collection[Scope], tenant: str | None) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name!r} cannot be the name of a key: up to 60 letters, digits, spaces and _ . @ -, "
            "the first one a letter or digit"
        )
    if not scopes:
        raise InvalidRequest(f"a key needs a scope: {', '.join(Scope)}")
    if tenant is not None and not re.fullmatch(TENANT_PATTERN, tenant):
        raise InvalidRequest(f"{tenant!r} cannot be a tenant: up to 60 letters, digits and _ . @ -")


def _seconds(stored: bytes | None) -> float | None:
    return float(stored) if stored else None
