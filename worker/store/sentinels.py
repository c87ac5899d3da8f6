"""Asks the sentinels which server is the master, and says what each of them answered if none names it."""

import asyncio
from typing import Any

from redis import exceptions
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from outwait.config.urls import RedisAddress

AT_ONCE = Retry(NoBackoff(), 1)
"""A connection that a sentinel closed shows only when it is used. redis-py's own retries ask one that is away for ten
seconds, and there are others to ask."""


class Sentinels:
    """The sentinels of one address, for one event loop."""

    def __init__(self, address: RedisAddress) -> None:
        manager: Any = Sentinel
        self._manager = manager(address.hosts, sentinel_kwargs={**address.for_sentinels, "retry": AT_ONCE})
        self._hosts = dict(zip(self._manager.sentinels, address.hosts, strict=True))
        self._master = address.master
        self._last: Any = None
        self._asking = asyncio.Lock()

    async def master(self) -> tuple[str, int]:
        """Host and port of the master, from the first sentinel that names it; the one that did last is asked first.

        One question at a time, or a lost master would mean a connection to each sentinel for each caller.

        Raises redis-py's ConnectionError, with what each sentinel said; AuthenticationError if one refuses the login.
        """
        refusals: list[str] = []
        kind: type[exceptions.ConnectionError] = exceptions.ConnectionError
        async with self._asking:
            for sentinel in sorted(self._hosts, key=lambda known: known is not self._last):
                try:
                    state = (await sentinel.sentinel_masters()).get(self._master)
                except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
                    kind = exceptions.AuthenticationError if isinstance(error, exceptions.AuthenticationError) else kind
                    refusals.append(f"{self._name(sentinel)}: {error}")
                    continue
                if state and self._manager.check_master_state(state, self._master):
                    self._last = sentinel
                    return state["ip"], state["port"]
                refusals.append(f"{self._name(sentinel)} {'takes it for dead' if state else 'does not know it'}")
        raise kind(f"no sentinel names the master {self._master!r} ({'; '.join(refusals)})")

    async def close(self) -> None:
        """Close the connections to them."""
        for sentinel in self._hosts:
            await sentinel.aclose()

    def _name(self, sentinel: Any) -> str:
        host, port = self._hosts[sentinel]
        return f"{host}:{port}"
