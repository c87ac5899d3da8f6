"""The clock and the intake: in every worker, each in a daemon thread of its own, started and stopped by a bootstep.

Every tick the clock claims what is due in each lane and sends the claims to Celery, one task a batch. There is no
beat and no single point of failure: claims are atomic, so any number of clocks may tick.
"""

import asyncio
import logging
import random
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec
from kombu.exceptions import OperationalError

from outwait.worker.engine.lane_policies import Policies
from outwait.worker.engine.leases import seconds
from outwait.worker.engine.unserved import UnservedLanes
from outwait.worker.model.errors import StoreUnavailable
from outwait.worker.model.jobs import Claim, Step
from outwait.worker.model.lanes import Lane
from outwait.worker.model.outcomes import expired
from outwait.worker.store.lanes import Lanes

log = logging.getLogger(__name__)

OUTAGE_PAUSE = 1.0
"""Seconds between two tries while Redis is away."""

SETTLE = 1.0
"""Seconds after Redis writes again, or this process goes on, in which nothing is claimed: leases ended meanwhile, and
outcomes of their steps wait to be written (`recorder.OUTAGE_RETRY`); a submit whose answer came would be taken for
uncertain."""

CHANGED_SETTLE = 3.0
"""The same when another Redis is the master: all workers first tell it what they have sent (`BegunSubmits`)."""

GATHER = 0.1
"""Seconds in which more becomes due in a busy lane, so that batches are worth their message; what an idle lane has next
is claimed when it is due."""

LANES_AT_ONCE = 100
"""Lanes with due work that one tick serves."""

LAPSED_EVERY = 1.0
"""Seconds between two looks of one worker at the jobs whose deadline has passed."""

PURGE_EVERY = 30.0
"""Seconds between two purges of one worker."""

Send = Callable[[Lane, list[list[object]]], None]
"""Sends a lane's claims to the task of its step."""


class Clock:
    """Claims what is due and passes it on.

    Args:
        lanes: the store.
        policies: how each lane is claimed.
        send: hands a batch to Celery.
        serves: whether this worker can do the work of a lane.
    """

    def __init__(
        self, lanes: Lanes, policies: Policies, send: Send, serves: Callable[[Lane], bool] = lambda _lane: True
    ) -> None:
        self._lanes = lanes
        self._policies = policies
        self._send = send
        self._serves = serves
        self._unserved = UnservedLanes(lanes, policies)
        self._purge_at = self._lapsed_at = self._catch_up_at = 0.0
        self._was_away = False
        self._epoch = lanes.epoch
        self._claim_at = 0.0
        self._ticked = seconds()
        self._still = min(policies.step(step).lease for step in Step) / 2

    async def tick(self) -> float | None:
        """Claim and send what is due now; the seconds until more is, or None if nothing waits."""
        try:
            return await self._tick()
        except StoreUnavailable:
            self._was_away = True
            raise
        finally:
            self._ticked = seconds()

    async def _tick(self) -> float | None:
        if self._was_away or self._lanes.in_outage:  # another thread's question may have met it
            await self._lanes.probe()  # reads may work long before writes do
        await self._purge()
        await self._catch_up()
        lanes, wait = await self._lanes.due_lanes(LANES_AT_ONCE + self._unserved.count)
        if seconds() - self._ticked > self._still:
            self._was_away = True  # Redis, or this process, stood still: leases may have ended that are renewed now
        settling = self._settling()
        if settling > 0:
            return settling
        await self._end_lapsed()
        served = [lane for lane in lanes if self._serves(lane)]
        waits = [wait, *[await self._serve(lane) for lane in served]]
        await self._unserved.leave([lane for lane in lanes if lane not in served])
        return min((seconds for seconds in waits if seconds is not None), default=None)

    def _settling(self) -> float:
        """Seconds for which nothing is claimed yet."""
        now = asyncio.get_running_loop().time()
        if self._was_away:
            self._was_away, self._claim_at = False, now + SETTLE
        if self._epoch != self._lanes.epoch:
            self._epoch, self._claim_at = self._lanes.epoch, now + CHANGED_SETTLE
        return self._claim_at - now

    async def _serve(self, lane: Lane) -> float | None:
        """The seconds until this lane should be looked at again, or None if that is as good as any other time."""
        if lane.step is None:
            return None
        policy = self._policies.of(lane)
        claims = await self._lanes.claim(lane, policy)
        if not claims:
            return None
        # kombu publishes synchronously; the thread is the clock's own.
        self._send(lane, [_row(claim) for claim in claims])
        return 0.0 if len(claims) >= policy.batch else GATHER

    async def _purge(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._purge_at:
            full = await self._lanes.purge() >= 100
            self._purge_at = now + (0 if full else PURGE_EVERY * random.uniform(0.5, 1.5))

    async def _catch_up(self) -> None:
        """Some stored jobs of a release before in each tick; once all are done, a question now and then."""
        now = asyncio.get_running_loop().time()
        if now >= self._catch_up_at:
            more = await self._lanes.catch_up()
            self._catch_up_at = now + (0 if more else PURGE_EVERY * random.uniform(0.5, 1.5))

    async def _end_lapsed(self) -> None:
        """End what its deadline ends and no step does: its provider is silenced, say."""
        now = asyncio.get_running_loop().time()
        if now < self._lapsed_at:
            return
        self._lapsed_at = now + LAPSED_EVERY
        if lapsed := await self._lanes.lapsed():
            message = "the deadline passed, and nothing could be sent to the provider"
            await self._lanes.record([expired(Claim(work_id=job.work_id, fence=job.fence), message) for job in lapsed])


def _row(claim: Claim) -> list[object]:
    row: list[object] = msgspec.to_builtins(claim)
    return row


class Ticking(threading.Thread):
    """Calls something again and again in a daemon thread with a loop of its own, until stopped.

    Args:
        name: of the thread, and of its log events.
        start_up: builds what is called, inside the loop; gives back the call and what closes it. The call gives
            back the seconds until it wants to be called again, or None: nothing waits.
        longest: seconds between two calls at most.
    """

    def __init__(
        self,
        name: str,
        start_up: Callable[[], Awaitable[tuple[Callable[[], Awaitable[float | None]], Callable[[], Awaitable[None]]]]],
        longest: float,
    ) -> None:
        super().__init__(name=f"outwait-{name}", daemon=True)
        self._start_up = start_up
        self._longest = longest
        self._stopping = False
        self._down = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None

    def wake(self) -> None:
        """Call again at once, from any thread."""
        if self._loop is not None and self._wake is not None:
            with suppress(RuntimeError):  # the loop has just been closed
                self._loop.call_soon_threadsafe(self._wake.set)

    def ask_to_stop(self) -> None:
        """End after the call that runs now. Takes no lock and returns at once: a signal handler may call it."""
        self._stopping = True
        self.wake()

    def stop(self) -> None:
        """The same, and wait for the end."""
        self.ask_to_stop()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        """Run the loop until stopped."""
        asyncio.run(self._run())

    async def _run(self) -> None:
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        call, close = await self._start_up()
        try:
            while not self._stopping:
                self._wake.clear()
                wait = await self._call(call)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), wait)
        finally:
            await close()

    async def _call(self, call: Callable[[], Awaitable[float | None]]) -> float:
        try:
            wait = await call()
        except StoreUnavailable:
            return OUTAGE_PAUSE  # the store logs it
        except (OperationalError, OSError) as error:
            if not self._down:
                log.warning("tick-failed", extra={"ticking": self.name, "error": str(error)})
            self._down = True
            return OUTAGE_PAUSE
        except Exception:
            # A bug must not end the thread: without it this worker would look alive and do nothing.
            log.exception("tick-broken", extra={"ticking": self.name})
            return OUTAGE_PAUSE
        if self._down:
            log.warning("tick-back", extra={"ticking": self.name})
            self._down = False
        return self._longest if wait is None else min(wait, self._longest)
