"""Who may use the web edge: API keys, and the logins to the pages that are made with them. Only hashes are stored."""

import hashlib
import hmac
import math
import re
import secrets
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec

from outwait.worker.model.api_keys import PRIORITY_HIGHEST, ApiKey, Scope, check
from outwait.worker.model.errors import Forbidden, StoreUnavailable
from outwait.worker.model.networks import contain, read_networks
from outwait.worker.model.times import milliseconds
from outwait.worker.store.connection import Connection

__all__ = ["Access", "ApiKey", "NewKey", "Scope"]

PREFIX = "ow"
"""How the text of every key begins, so that scanners for leaked secrets recognise it."""

USED_EVERY = 60.0
"""Seconds of use of one key, in one process, that are written down once."""

KEPT = 7 * 86400.0
"""Seconds after its end for which a key is still listed."""

MADE_MAX = 1000
"""Keys of one tenant that keys may make."""

_TEXT = re.compile(rf"{PREFIX}_([0-9a-f]{{8}})_([A-Za-z0-9_-]{{43}})")


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
        self._limited = connection.keys("ACCESS_LIMITED")
        self._used = connection.keys("USED")
        self._use_noted: dict[str, float] = {}  # key id -> when its use was written down, by our monotonic clock

    async def create(  # noqa: PLR0913 - all that a key is made of
        self,
        name: str,
        scopes: Collection[Scope],
        tenant: str | None = None,
        *,
        ttl_s: float | None = None,
        networks: Sequence[str] = (),
        priority_max: int | None = None,
        maker: ApiKey | None = None,
    ) -> NewKey:
        """Make a key. Several may have one name: the old and the new one while a key is being replaced.

        Args:
            name: of its owner.
            scopes: what it allows.
            tenant: the only one whose jobs it is good for.
            ttl_s: seconds for which it is valid.
            networks: addresses and networks from which it is good.
            priority_max: the highest priority of jobs that it enqueues; None: the maker's, or any.
            maker: the key that makes it, whose end the new one has too unless `ttl_s` is given.

        Raises:
            InvalidRequest: the name, the tenant or a network cannot be one, or there is no scope.
            Forbidden: it would allow more than its maker, or there are too many.
        """
        check(name, scopes, tenant, networks)
        now = await self._now()
        expires = now + ttl_s if ttl_s is not None else maker.expires if maker else None
        key_id = secrets.token_hex(4)
        maker_id = maker.id if maker else None
        if priority_max is None:
            priority_max = maker.priority_max if maker else PRIORITY_HIGHEST
        key = ApiKey(
            key_id, name, frozenset(scopes), now, tenant, None, expires, tuple(networks), maker_id, priority_max
        )
        if maker:
            await self._check_maker(maker, key)
        made, stored = _new(key)
        async with self._connection.translated():
            await self._connection.redis.hset(self._home(key), key.id, stored)
        return made

    async def rotate(self, key_id: str, overlap_s: float, maker: ApiKey | None = None) -> NewKey | None:
        """Make a key that takes the place of another one, which ends `overlap_s` seconds later.

        The new one has the same rights and the same end.

        Args:
            key_id: of the old key.
            overlap_s: seconds for which both are valid.
            maker: the key that asks for it.

        Returns:
            None if no valid key has the id, or the maker does not cover it.

        Raises:
            Forbidden: there are too many keys.
        """
        stored = await self._get(key_id)
        if stored is None or (maker and not maker.covers(stored.key)):
            return None
        old, now = stored.key, await self._now()
        key = msgspec.structs.replace(old, id=secrets.token_hex(4), created=now, used=None, maker=old.id)
        if maker:
            await self._check_maker(maker, key)
        made, row = _new(key)
        ends = min(now + overlap_s, old.expires or math.inf)
        ending = msgspec.json.encode(_Stored(msgspec.structs.replace(old, expires=ends), stored.digest))
        async with self._connection.translated(), self._connection.redis.pipeline(transaction=True) as pipe:
            pipe.hset(self._home(key), key.id, row)
            pipe.hdel(self._keys, old.id)
            pipe.hset(self._limited, old.id, ending)
            await pipe.execute()
        return made

    async def find(self, text: str, address: str = "") -> ApiKey | None:
        """The key that somebody shows, or None if it is unknown, revoked or expired.

        Raises:
            Forbidden: it is not good for callers from this address.
        """
        shape = _TEXT.fullmatch(text)
        if shape is None:
            return None
        key_id, secret = shape.groups()
        stored = await self._get(key_id)
        if stored is None or not hmac.compare_digest(stored.digest, _digest(secret)):
            return None
        return await self._use(stored.key, address)

    async def all(self) -> list[ApiKey]:
        """Every key, oldest first, with those that have expired lately."""
        async with self._connection.translated(), self._connection.redis.pipeline(transaction=False) as pipe:
            pipe.hvals(self._keys).hvals(self._limited).hgetall(self._used)
            plain, limited, used = await pipe.execute()
        stored = [msgspec.json.decode(row, type=_Stored).key for row in (*plain, *limited)]
        known = [msgspec.structs.replace(key, used=_seconds(used.get(key.id.encode()))) for key in stored]
        return sorted(known, key=lambda key: (key.created, key.id))

    async def revoke(self, *key_ids: str) -> bool:
        """Make keys and every login with them useless at once; whether there was one."""
        async with self._connection.translated(), self._connection.redis.pipeline(transaction=True) as pipe:
            for name in (self._keys, self._limited, self._used):
                pipe.hdel(name, *key_ids)
            plain, limited, _ = await pipe.execute()
        return bool(plain or limited)

    async def log_in(self, key: ApiKey, ttl_s: float) -> str:
        """Open a session of `ttl_s` seconds for the owner of a key; its token."""
        token = secrets.token_urlsafe(32)
        async with self._connection.translated():
            await self._connection.redis.set(self._session(token), key.id, px=milliseconds(ttl_s))
        return token

    async def session(self, token: str, address: str = "") -> ApiKey | None:
        """The key that a session was opened with, while both are good. Raises Forbidden, as `find` does."""
        async with self._connection.translated():
            key_id = await self._connection.redis.get(self._session(token))
        stored = await self._get(key_id.decode()) if key_id else None
        return await self._use(stored.key, address) if stored else None

    async def log_out(self, token: str) -> None:
        """End a session."""
        async with self._connection.translated():
            await self._connection.redis.delete(self._session(token))

    async def _get(self, key_id: str) -> _Stored | None:
        """A key that has not expired."""
        async with self._connection.translated():
            row = await self._connection.redis.hget(self._keys, key_id)
        if row:
            return msgspec.json.decode(row, type=_Stored)
        async with self._connection.translated(), self._connection.redis.pipeline(transaction=False) as pipe:
            pipe.hget(self._limited, key_id).time()
            row, (second, _) = await pipe.execute()
        stored = msgspec.json.decode(row, type=_Stored) if row else None
        return None if stored is None or stored.key.expired(second) else stored

    async def _use(self, key: ApiKey, address: str) -> ApiKey:
        if key.networks and not contain(read_networks(key.networks), address):
            raise Forbidden(f"the API key {key.name!r} is not good for callers from {address or 'here'}")
        await self._note_use(key.id)
        return key

    async def _check_maker(self, maker: ApiKey, key: ApiKey) -> None:
        if not maker.covers(key):
            raise Forbidden(
                f"the API key {maker.name!r} cannot make a key with more scopes, for another tenant, for more "
                "networks, with a later end or a higher priority than its own"
            )
        made = [other for other in await self.all() if other.maker and other.tenant == key.tenant]
        if old := [other.id for other in made if other.expired(key.created - KEPT)]:
            await self.revoke(*old)
        if len(made) - len(old) >= MADE_MAX:
            raise Forbidden(f"keys have made {MADE_MAX} keys of this tenant: revoke some")

    async def _now(self) -> float:
        async with self._connection.translated():
            second, _ = await self._connection.redis.time()
        return float(second)

    def _home(self, key: ApiKey) -> str:
        return self._limited if key.limited else self._keys

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


def _new(key: ApiKey) -> tuple[NewKey, bytes]:
    secret = secrets.token_urlsafe(32)
    return NewKey(key, f"{PREFIX}_{key.id}_{secret}"), msgspec.json.encode(_Stored(key, _digest(secret)))


def _digest(secret: str) -> str:
    # Of 32 random bytes: nothing to guess, so nothing that a slow hash would protect.
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def _seconds(stored: bytes | None) -> float | None:
    return float(stored) if stored else None
