"""Tells who waits for a job that something was written into its timeline. One connection, however many wait."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Self

from redis import exceptions
from redis.asyncio import Redis

from outwait.config.settings import Settings
from outwait.worker.model.errors import StoreUnavailable
from outwait.worker.model.jobs import Job
from outwait.worker.store.keys import Keys
from outwait.worker.store.outages import log_of, translate
from outwait.worker.store.pool import Pool

AGAIN = 0.5
"""Seconds between two tries to reach Redis."""

LOOK = 5.0
"""Seconds without a word after which the connection is tried: a half-open one is noticed within thrice that."""

_LOST = (exceptions.RedisError, OSError)


class Watch:
    """The jobs of one namespace, for one event loop; it listens inside its `async with`.

    Whoever waits reads the job, waits for its event, and reads again. The event is also set when the channel was
    opened and when Redis came back, so that nothing that happened before is missed.
    """

    def __init__(self, settings: Settings) -> None:
        self._keys = Keys(settings.namespace)
        self._where = settings.redis_address.shown
        self._outages = log_of(settings.redis_url.get_secret_value())
        # Without retries of its own: only `_listen` knows all channels that a new connection must have.
        self._redis: Any = Redis.from_pool(Pool(settings, health_check=LOOK, retries=0))
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._pubsub: Any = None
        self._task: asyncio.Task[None] | None = None
        self.over = False
        """Whether this process ends: nobody is to wait any longer."""

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._redis.aclose()

    def end(self) -> None:
        """Let everybody who waits go."""
        self.over = True
        self._wake_all()

    @asynccontextmanager
    async def on(self, job_id: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set whenever something may have happened to the job; whoever waits clears it."""
        channel, event = self._keys("NOTED", job_id), asyncio.Event()
        others = self._waiting.setdefault(channel, set())
        others.add(event)
        try:
            if len(others) == 1:
                await self._command("subscribe", channel)
            yield event
        finally:
            others.discard(event)
            if not others and self._waiting.get(channel) is others:
                del self._waiting[channel]
                await self._command("unsubscribe", channel)

    async def end_of(self, job_id: str, read: Callable[[str], Awaitable[Job]], seconds: float) -> Job:
        """The job as soon as it has ended, or as it stands after so many seconds.

        Raises what `read` raises; but an outage of the store that is over in time is waited out.
        """
        clock = asyncio.get_running_loop().time
        until = clock() + seconds
        async with self.on(job_id) as changed:
            while True:
                changed.clear()
                left = until - clock()
                is_last = left <= 0 or self.over
                try:
                    job = await read(job_id)
                    if job.state.ended or is_last:
                        return job
                except StoreUnavailable:
                    if is_last:
                        raise
                    left = min(left, LOOK)
                with suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), left)

    async def _command(self, command: str, channel: str) -> None:
        if self._pubsub is not None:
            with suppress(*_LOST):  # `_listen` notices too, and opens every channel again
                await getattr(self._pubsub, command)(channel)

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except _LOST as error:
                problem = translate(error, self._where)
                if isinstance(problem, StoreUnavailable):
                    self._outages.down(problem)
            await asyncio.sleep(AGAIN)

    async def _listen(self) -> None:
        async with self._redis.pubsub() as pubsub:
            began = time.monotonic()
            # The first channel is nobody's: a connection without any would be none that listens.
            await pubsub.subscribe(self._keys("NOTED"), *self._waiting)
            self._pubsub = pubsub
            self._outages.up(began)
            try:
                self._wake_all()
                while True:
                    message = await pubsub.get_message(timeout=LOOK)
                    if message and message["type"] in {"message", "subscribe"}:
                        self._wake(message["channel"].decode())
            finally:
                self._pubsub = None

    def _wake(self, channel: str) -> None:
        for event in self._waiting.get(channel, ()):
            event.set()

    def _wake_all(self) -> None:
        for channel in self._waiting:
            self._wake(channel)
