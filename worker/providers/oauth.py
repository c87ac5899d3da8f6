"""An OAuth access token that all workers share. One of them renews it before it expires."""

import asyncio
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from outwait.worker.model.errors import NotSent, ProviderError, RateLimited, Rejected, Unauthorized
from outwait.worker.providers.exchange import Count, Exchange, check, json_object, seconds_of

EARLY = 120.0
"""Seconds before its expiry at which a token is renewed; a quarter of its life if that is shorter."""

RECENT = 30.0
"""Seconds during which a token that we got ourselves is not replaced, whatever the API answers."""

_LOOK_AGAIN = 5.0
"""Seconds for which the old token is used while another worker renews it."""

_WAIT = 5.0
"""Seconds to wait while another worker gets the first token."""

_PAUSES = {Unauthorized: 60.0, RateLimited: 60.0}
"""Seconds without requests after a failed token request, if the answer names none: wrong credentials stay wrong, and
any request during a penalty restarts it."""

_LONGEST_PAUSE = 3600.0
"""Longest pause in seconds that the token endpoint can ask for."""

_TOKEN = re.compile(r"[!-~]{1,8192}")
"""What a header takes. Anything else would break the request that is made with it, after it was counted as sent."""

_LONGEST_LIFE = 86400.0
"""Seconds for which a token is used at most, however long the provider says that it lives."""

_PAUSE = 10.0
"""Seconds without requests after any other failure (RingCentral's guide: three tries, ten seconds between them)."""


@dataclass(frozen=True, slots=True)
class _Cached:
    """The token that this process uses. Times are of the monotonic clock."""

    token: str
    valid_until: float  # after that, check whether another worker has renewed it
    received: float = -math.inf  # when this process got it from the provider


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why there is no token, and until when this process does not ask again."""

    kind: type[NotSent | Unauthorized]
    message: str
    until: float


class AccessToken:
    """A provider's access token.

    Args:
        name: its key in the token store; different credentials need a different name.
        ask: builds the request for a new token.
    """

    def __init__(self, name: str, ask: Callable[[], httpx.Request]) -> None:
        self._name = name
        self._ask = ask
        self._cached: _Cached | None = None
        self._failure: _Failure | None = None
        self._lock = asyncio.Lock()

    async def get(self, exchange: Exchange) -> str:
        """The token.

        Raises:
            NotSent: there is no token now, so the request that needs it was not sent.
            Unauthorized: the provider refuses the credentials.
        """
        cached = self._cached
        if cached is not None and time.monotonic() < cached.valid_until:
            return cached.token
        async with self._lock:
            return await self._current(exchange)

    async def replace(self, exchange: Exchange, refused: str) -> str | None:
        """A new token after 401; None if the refused one is so new that a new one would not help.

        Raises: as `get`.
        """
        async with self._lock:
            cached = self._cached
            if cached is None or cached.token == refused:
                if cached is not None and time.monotonic() - cached.received < RECENT:
                    return None
                self._cached = None
                await exchange.tokens.drop_token(self._name, refused)
            return await self._current(exchange)

    async def _current(self, exchange: Exchange) -> str:
        cached, now = self._cached, time.monotonic()
        if cached is not None and now < cached.valid_until:
            return cached.token
        shared = await exchange.tokens.token(self._name)
        if shared is not None and shared[1] > EARLY:
            return self._cache(shared[0], shared[1] - EARLY)
        return await self._new_token(exchange, shared)

    async def _new_token(self, exchange: Exchange, old: tuple[str, float] | None) -> str:
        """A new token, from us or from another worker; the old one if it is still valid and no new one is available."""
        if self._failure is None or time.monotonic() >= self._failure.until:
            self._failure = None
            if await exchange.tokens.lock_token(self._name, ttl_s=exchange.time_limit + _PAUSE):
                return await self._renew(exchange, old)
        if old is not None and old[1] > 1:
            return self._cache(old[0], min(_LOOK_AGAIN, old[1]))
        if self._failure is None:
            return await self._wait_for_other_worker(exchange)
        raise self._no_token(exchange, self._failure)

    async def _renew(self, exchange: Exchange, old: tuple[str, float] | None) -> str:
        """Ask the provider for a token; we hold the lock. If another worker has just renewed it, take that token."""
        shared = await exchange.tokens.token(self._name)
        if shared is not None and (old is None or shared[0] != old[0]):
            await exchange.tokens.unlock_token(self._name)
            return self._cache(shared[0], min(_LOOK_AGAIN, shared[1]))
        try:
            token, life = await self._request(exchange)
        except (NotSent, Unauthorized) as error:
            wait = min(error.retry_after or _PAUSE, _LONGEST_PAUSE)
            # Keep the lock until we may ask again, so that no other worker asks before.
            await exchange.tokens.unlock_token(self._name)
            await exchange.tokens.lock_token(self._name, ttl_s=wait)
            self._failure = _Failure(type(error), str(error), time.monotonic() + wait)
            if old is not None and old[1] > 1:
                return self._cache(old[0], min(wait, old[1]))
            raise self._no_token(exchange, self._failure) from error
        await exchange.tokens.put_token(self._name, token, ttl_s=life)
        await exchange.tokens.unlock_token(self._name)
        return self._cache(token, life - min(EARLY, life / 4), received=time.monotonic())

    async def _request(self, exchange: Exchange) -> tuple[str, float]:
        try:
            body = json_object(check(await exchange.send(self._ask(), Count.NONE), submit=True))
        except ProviderError as error:
            # Any other 4xx means wrong credentials, scope or URL: a person must act.
            kind = Unauthorized if isinstance(error, Unauthorized | Rejected) else NotSent
            wait = error.retry_after or _PAUSES.get(kind, _PAUSES.get(type(error), _PAUSE))
            raise kind(f"no access token: {error}", retry_after=wait, detail=error.detail) from error
        token, life = body.get("access_token"), seconds_of(body.get("expires_in"))
        if not (isinstance(token, str) and _TOKEN.fullmatch(token) and life):
            raise NotSent("no access token: the answer lacks access_token or expires_in", retry_after=_PAUSE)
        return token, min(life, _LONGEST_LIFE)

    async def _wait_for_other_worker(self, exchange: Exchange) -> str:
        end = time.monotonic() + min(_WAIT, exchange.time_limit)
        while time.monotonic() < end:
            await asyncio.sleep(0.1)
            shared = await exchange.tokens.token(self._name)
            if shared is not None:
                return self._cache(shared[0], min(_LOOK_AGAIN, shared[1]))
        message = "no access token: another worker is trying to get one, or has just failed"
        self._failure = _Failure(NotSent, message, end + 1)
        raise self._no_token(exchange, self._failure)

    def _cache(self, token: str, seconds: float, received: float = -math.inf) -> str:
        self._cached = _Cached(token, time.monotonic() + seconds, received)
        return token

    def _no_token(self, exchange: Exchange, failure: _Failure) -> NotSent | Unauthorized:
        # RingCentral asks for no calls while the token call fails; without a token none can be sent anyway.
        exchange.pause = max(exchange.pause or 0.0, failure.until - time.monotonic(), 1.0)
        return failure.kind(failure.message, retry_after=exchange.pause)
