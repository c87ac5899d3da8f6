"""An OAuth access token that all workers share: one of them renews it, ahead of its end."""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from outwait.worker.model.errors import NotSent, ProviderError, RateLimited, Rejected, Unauthorized
from outwait.worker.providers.exchange import Count, Exchange, check, json_object

EARLY = 120.0
"""Seconds before its end that a token is renewed; a quarter of its life if that is shorter."""

RECENT = 30.0
"""Seconds in which a token that we got ourselves is not thrown away again, however the API answers."""

_LOOK_AGAIN = 5.0
"""Seconds that the old token is used while another worker renews it."""

_WAIT = 5.0
"""Seconds to wait for the worker that gets the first token."""

_PAUSES = {Unauthorized: 60.0, RateLimited: 60.0}
"""Seconds of silence after a failed token request, where the answer names none: wrong credentials stay wrong, and
anything sent in a penalty starts it anew."""

_PAUSE = 10.0
"""The same after all other failures (RingCentral's guide: three tries, ten seconds apart)."""


@dataclass(frozen=True, slots=True)
class _Held:
    """The token that this process uses. Times are of the monotonic clock."""

    token: str
    good_until: float  # then look whether somebody has renewed it
    got: float = -math.inf  # when we got it from the provider ourselves


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why there is no token, and until when nobody of this process asks again."""

    kind: type[NotSent | Unauthorized]
    message: str
    until: float


class AccessToken:
    """A provider's access token.

    Args:
        name: its place in the token store; other credentials need another name.
        ask: builds the request for a new one.
    """

    def __init__(self, name: str, ask: Callable[[], httpx.Request]) -> None:
        self._name = name
        self._ask = ask
        self._held: _Held | None = None
        self._failure: _Failure | None = None
        self._lock = asyncio.Lock()

    async def get(self, exchange: Exchange) -> str:
        """The token.

        Raises:
            NotSent: there is none now; whatever needs it has not been sent.
            Unauthorized: the provider refuses the credentials.
        """
        held = self._held
        if held is not None and time.monotonic() < held.good_until:
            return held.token
        async with self._lock:
            return await self._found(exchange)

    async def replace(self, exchange: Exchange, refused: str) -> str | None:
        """Another token than the one that was answered with 401; None if we got that one just now.

        Raises: as `get`.
        """
        async with self._lock:
            held = self._held
            if held is None or held.token == refused:
                if held is not None and time.monotonic() - held.got < RECENT:
                    return None
                self._held = None
                await exchange.tokens.drop_token(self._name, refused)
            return await self._found(exchange)

    async def _found(self, exchange: Exchange) -> str:
        held, now = self._held, time.monotonic()
        if held is not None and now < held.good_until:
            return held.token
        shared = await exchange.tokens.token(self._name)
        if shared is not None and shared[1] > EARLY:
            return self._hold(shared[0], shared[1] - EARLY)
        return await self._renewed(exchange, shared)

    async def _renewed(self, exchange: Exchange, old: tuple[str, float] | None) -> str:
        """A new token, got by us or by another worker; the old one while it is good and no new one can be had."""
        if self._failure is None or time.monotonic() >= self._failure.until:
            self._failure = None
            if await exchange.tokens.lock_token(self._name, ttl=exchange.time_limit + _PAUSE):
                return await self._asked(exchange, old)
        if old is not None and old[1] > 1:
            return self._hold(old[0], min(_LOOK_AGAIN, old[1]))
        if self._failure is None:
            return await self._awaited(exchange)
        raise self._given_up(exchange, self._failure)

    async def _asked(self, exchange: Exchange, old: tuple[str, float] | None) -> str:
        """We hold the lock: ask the provider, unless somebody has just done so."""
        shared = await exchange.tokens.token(self._name)
        if shared is not None and (old is None or shared[0] != old[0]):
            await exchange.tokens.unlock_token(self._name)
            return self._hold(shared[0], min(_LOOK_AGAIN, shared[1]))
        try:
            token, life = await self._request(exchange)
        except (NotSent, Unauthorized) as error:
            wait = error.retry_after or _PAUSE
            # The lock stays for as long as we do not ask again: the other workers do not ask either.
            await exchange.tokens.unlock_token(self._name)
            await exchange.tokens.lock_token(self._name, ttl=wait)
            self._failure = _Failure(type(error), str(error), time.monotonic() + wait)
            if old is not None and old[1] > 1:
                return self._hold(old[0], min(wait, old[1]))
            raise self._given_up(exchange, self._failure) from error
        await exchange.tokens.put_token(self._name, token, ttl=life)
        await exchange.tokens.unlock_token(self._name)
        return self._hold(token, life - min(EARLY, life / 4), got=time.monotonic())

    async def _request(self, exchange: Exchange) -> tuple[str, float]:
        try:
            body = json_object(check(await exchange.send(self._ask(), Count.NONE), submit=True))
        except ProviderError as error:
            # Any other 4xx means credentials, scope or address: a person must act.
            kind = Unauthorized if isinstance(error, Unauthorized | Rejected) else NotSent
            wait = error.retry_after or _PAUSES.get(kind, _PAUSES.get(type(error), _PAUSE))
            raise kind(f"no access token: {error}", retry_after=wait, detail=error.detail) from error
        token, life = body.get("access_token"), body.get("expires_in")
        if not (isinstance(token, str) and token and isinstance(life, int | float) and life > 0):
            raise NotSent("no access token: the answer has no access_token and expires_in", retry_after=_PAUSE)
        return token, float(life)

    async def _awaited(self, exchange: Exchange) -> str:
        end = time.monotonic() + min(_WAIT, exchange.time_limit)
        while time.monotonic() < end:
            await asyncio.sleep(0.1)
            shared = await exchange.tokens.token(self._name)
            if shared is not None:
                return self._hold(shared[0], min(_LOOK_AGAIN, shared[1]))
        told = "no access token: another worker is trying to get one, or has just failed to"
        self._failure = _Failure(NotSent, told, end + 1)
        raise self._given_up(exchange, self._failure)

    def _hold(self, token: str, seconds: float, got: float = -math.inf) -> str:
        self._held = _Held(token, time.monotonic() + seconds, got)
        return token

    def _given_up(self, exchange: Exchange, failure: _Failure) -> NotSent | Unauthorized:
        # RingCentral asks to hold all calls while the token call fails; without a token nothing can be sent anyway.
        exchange.pause = max(exchange.pause or 0.0, failure.until - time.monotonic(), 1.0)
        return failure.kind(failure.message, retry_after=exchange.pause)
