"""The leases of one batch's running steps: renews them, and lets no request leave that one may no longer cover.

A worker that stood still (stopped, starved, in a long collection) cannot know whether its lease was taken meanwhile. So
each step counts its own lease by a clock of this machine that went on, and ends itself before the lease ends in Redis.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

from outwait.worker.model.errors import StoreRefused, StoreUnavailable, Withheld
from outwait.worker.model.jobs import Step
from outwait.worker.model.lanes import Lane
from outwait.worker.store.lanes import Held, LanePolicy, Lanes

USABLE = 0.9
"""Share of a lease in which requests may leave; the rest is their way through this machine."""

CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""The clock of leases. The monotonic one stands still while a machine is suspended."""

RENEWALS = 3
"""How often a lease is renewed in its own time."""

RETRY = 0.5
"""Seconds between two tries to renew while Redis is away. Clocks claim nothing for longer than that when it is back
(`clock.SETTLE`)."""


def seconds() -> float:
    """The time by the clock of leases."""
    return time.clock_gettime(CLOCK)


class Lease:
    """One running step's lease, and the `Departure` of its requests."""

    __slots__ = ("_leases", "_leaves", "ends", "held", "may_have_sent")

    def __init__(self, leases: "Leases", held: Held, ends: float, leaves: Callable[[], None]) -> None:
        self._leases = leases
        self._leaves = leaves
        self.held = held
        self.ends = ends  # by the clock of leases; never after the end in Redis
        self.may_have_sent = False

    @property
    def over(self) -> bool:
        """Whether somebody else may have the work by now."""
        return seconds() >= self.ends

    def check(self) -> None:
        """See `Departure`."""
        if self.over:
            raise Withheld("this worker stood still or could not renew its lease, so it sends nothing more")

    async def permit(self) -> None:
        """See `Departure`: for a submit, the intent is written first."""
        self.check()
        if self._leases.intent and not self.may_have_sent:
            self._leaves()  # first: a Redis that becomes the master meanwhile must be told of it
            await self._leases.intend(self)
            self.check()


class Leases:
    """The leases of one batch.

    Args:
        lanes: the store.
        lane: of the batch.
        policy: of the lane.
        intent: whether an intent is written before a step's first request leaves: submits.
    """

    def __init__(self, lanes: Lanes, lane: Lane, policy: LanePolicy, *, intent: bool) -> None:
        self.intent = intent
        self._lanes = lanes
        self._lane = lane
        self._policy = policy
        self._seconds = policy.lease_ms / 1000
        self._leaving: list[tuple[Lease, asyncio.Future[bool]]] = []
        self._writer: asyncio.Task[None] | None = None

    def begun(self, held: Held, asked: float, leaves: Callable[[], None]) -> Lease:
        """The lease of a step that was begun.

        Args:
            held: the step.
            asked: the time (`seconds`) before the store was asked.
            leaves: called before an intent is written.
        """
        return Lease(self, held, asked + self._seconds * USABLE, leaves)

    async def keep(self, running: Mapping["asyncio.Task[None]", Lease]) -> None:
        """Renew the leases of what still runs, until cancelled."""
        pause = self._seconds / RENEWALS
        while True:
            await asyncio.sleep(pause)
            self._end_what_is_over(running)
            renewed = await self._renew([lease for task, lease in running.items() if not task.done()])
            self._end_what_is_over(running)
            pause = self._seconds / RENEWALS if renewed else RETRY

    async def intend(self, lease: Lease) -> None:
        """Write that the request of a submit leaves now; those that leave together share a round trip.

        Raises:
            Withheld: it was not written, so the request must not leave.
        """
        written: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._leaving.append((lease, written))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_intents())
        try:
            ours = await written
        except asyncio.CancelledError as stopped:
            raise Withheld("the step was stopped before its request left") from stopped
        if not ours:
            raise Withheld("the intent could not be written, so nothing was sent")
        lease.may_have_sent = True

    async def _write_intents(self) -> None:
        await asyncio.sleep(0)  # whoever leaves in the same turn of the loop goes along
        while self._leaving:
            leaving, self._leaving = self._leaving, []
            asked = seconds()
            answers = await self._ask([lease for lease, _ in leaving], intent=True)
            for (lease, written), ours in zip(leaving, answers or [False] * len(leaving), strict=True):
                if ours:
                    lease.ends = asked + self._seconds * USABLE
                if not written.done():
                    written.set_result(ours)

    async def _renew(self, leases: Sequence[Lease]) -> bool:
        """Whether the store answered. A lease that is another worker's by now is over."""
        if not leases:
            return True
        asked = seconds()
        # No longer than that: a poll must be ended in time, even if Redis does not answer.
        within = min([self._seconds / RENEWALS, *(lease.ends - asked for lease in leases if lease.ends > asked)])
        try:
            async with asyncio.timeout(within):
                answers = await self._ask(leases, intent=False)
        except TimeoutError:
            return False
        for lease, ours in zip(leases, answers or [], strict=False):
            lease.ends = asked + self._seconds * USABLE if ours else 0.0
        return answers is not None

    async def _ask(self, leases: Sequence[Lease], *, intent: bool) -> list[bool] | None:
        try:
            return await self._lanes.renew(self._lane, self._policy, [lease.held for lease in leases], intent=intent)
        except (StoreUnavailable, StoreRefused):
            return None  # the recorder logs the outage

    def _end_what_is_over(self, running: Mapping["asyncio.Task[None]", Lease]) -> None:
        """Cancel polls whose lease may be another worker's by now: what one uploads for minutes would be sent twice.

        A submit that has left goes on, since its answer may still count; so does a handler, which cannot be stopped.
        """
        if self._lane.step is not Step.POLL:
            return
        for task, lease in running.items():
            if lease.over and not task.done() and not task.cancelling():
                task.cancel()
