"""Runs one batch of claims on the process's loop: begin, run concurrently, renew leases, record as outcomes come."""

import asyncio
import logging
import time
from collections.abc import Sequence
from functools import partial
from typing import Protocol

import msgspec

from outwait.config.logs import ABOUT
from outwait.worker.engine.begun_submits import BegunSubmits
from outwait.worker.engine.lane_policies import Policies
from outwait.worker.engine.leases import Lease, Leases, seconds
from outwait.worker.engine.recorder import Recorder
from outwait.worker.model.errors import StoreRefused, StoreUnavailable
from outwait.worker.model.jobs import Claim, Step, job_of
from outwait.worker.model.lanes import Lane
from outwait.worker.model.outcomes import Outcome, Release, ReleaseDelivery
from outwait.worker.net.departure import DEPARTURE
from outwait.worker.net.redaction import redact
from outwait.worker.store.lanes import Held, LanePolicy, Lanes
from outwait.worker.telemetry.tally import Tally
from outwait.worker.telemetry.traces import Tracer

log = logging.getLogger(__name__)

LAST_WRITE = 2.0
"""Seconds after the grace in which what was stopped is still given back."""

REST = 0.1
"""Seconds for which a batch that was given back holds its thread: its jobs are due again, for another worker."""

STALE = 0.25
"""Share of a lease after which a step that was begun and has not started is given back: this process stood still, and
meanwhile its provider may have been silenced."""


class StepRun(Protocol):
    """One step of a batch of jobs."""

    intent: bool
    """Whether the intent is written before its request leaves: submits only."""

    async def prepare(self, claims: list[Claim], record: Recorder) -> list[Claim]:
        """What precedes the step and sends nothing for a job; the claims that go on. Others are recorded."""
        ...

    async def run(self, claim: Claim, now_ms: int) -> Sequence[Outcome]:
        """Do the step for one claim. `now_ms` is Redis's time in milliseconds.

        It never raises; cancelled at shutdown, it still says what became of the job.
        """
        ...


class Batches:
    """The batches of one process."""

    def __init__(
        self,
        lanes: Lanes,
        policies: Policies,
        recorder: Recorder,
        submits: BegunSubmits,
        tally: Tally,
        tracer: Tracer | None = None,
    ) -> None:
        self._lanes = lanes
        self._policies = policies
        self._recorder = recorder
        self._submits = submits
        self._tally = tally
        self._tracer = tracer
        self._batches: set[asyncio.Task[None]] = set()
        self._running: set[asyncio.Task[None]] = set()
        self._closing = False

    async def run(self, lane: Lane, claims: list[Claim], step: StepRun) -> None:
        """Run a step for a batch of claims; returns when each outcome is in the store."""
        batch = asyncio.create_task(self._batch(lane, claims, step))
        self._batches.add(batch)
        batch.add_done_callback(self._batches.discard)
        await batch

    async def decline(self, lane: Lane, claims: list[Claim]) -> None:
        """Give a batch back that this worker cannot serve: Celery hands batches to any worker."""
        self._recorder.add(*(give_back(claim, lane) for claim in claims))
        await self._recorder.flushed()
        await asyncio.sleep(REST)

    async def drain(self, grace: float) -> None:
        """Finish what runs within `grace` seconds, stop the rest, and give back what comes later."""
        self._closing = True
        if await self._over(grace):
            return
        for task in self._running:
            task.cancel()
        if not await self._over(LAST_WRITE):
            log.error("shutdown-unfinished", extra={"outcomes": self._recorder.pending})

    async def _over(self, within: float) -> bool:
        """Whether every batch has ended, its outcomes written, within so many seconds."""
        if not self._batches:
            return True
        _, pending = await asyncio.wait(set(self._batches), timeout=within)
        return not pending

    async def _batch(self, lane: Lane, claims: list[Claim], step: StepRun) -> None:
        if self._closing:
            self._recorder.add(*(give_back(claim, lane) for claim in claims))
        else:
            try:
                await self._run(lane, self._policies.of(lane), claims, step)
            except (StoreUnavailable, StoreRefused) as error:
                # Nothing was sent: the leases end, and whoever claims these jobs next starts afresh.
                # An outage has a line of its own.
                level = logging.DEBUG if isinstance(error, StoreUnavailable) else logging.WARNING
                extra = {"lane": redact(str(lane)), "claims": len(claims), "error": str(error)}
                log.log(level, "batch-not-begun", extra=extra)
        await self._recorder.flushed()

    async def _run(self, lane: Lane, policy: LanePolicy, claims: list[Claim], step: StepRun) -> None:
        claims = await step.prepare(claims, self._recorder)
        if self._closing:
            self._recorder.add(*(give_back(claim, lane) for claim in claims))
            return
        if not claims:
            return
        asked = seconds()
        now_ms, fences = await self._lanes.begin(lane, policy, [Held(claim.work_id, claim.fence) for claim in claims])
        begun = [
            msgspec.structs.replace(claim, fence=fence) for claim, fence in zip(claims, fences, strict=True) if fence
        ]
        self._tally.started(lane, begun, now_ms)
        if len(begun) < len(claims):
            log.info("stale-claims", extra={"lane": redact(str(lane)), "dropped": len(claims) - len(begun)})
        leases = Leases(self._lanes, lane, policy, intent=step.intent)
        fresh_until = asked + policy.lease_ms / 1000 * STALE
        tasks: dict[asyncio.Task[None], Lease] = {}
        for claim in begun:
            leaves = partial(self._submits.begin, claim)
            lease = leases.begun(Held(claim.work_id, claim.fence), asked, leaves)
            tasks[asyncio.create_task(self._run_step(lane, step, claim, now_ms, lease, fresh_until))] = lease
        self._running |= tasks.keys()
        renewing = asyncio.create_task(leases.keep(tasks))
        try:
            if tasks:
                await asyncio.wait(tasks)
        finally:
            renewing.cancel()
            self._running -= tasks.keys()

    async def _run_step(
        self, lane: Lane, step: StepRun, claim: Claim, now_ms: int, lease: Lease, fresh_until: float
    ) -> None:
        ABOUT.set(about(lane, claim))
        DEPARTURE.set(lease)
        if seconds() > fresh_until:
            self._keep(claim, [give_back(claim, lane)])
            return
        began = time.time_ns()
        outcomes = await step.run(claim, now_ms)
        # First: whatever becomes of the span, what the step learnt is kept.
        self._keep(claim, outcomes)
        if self._tracer is not None:
            self._tracer.step(lane, claim, began, now_ms, outcomes[0])

    def _keep(self, claim: Claim, outcomes: Sequence[Outcome]) -> None:
        self._submits.end(claim, outcomes)
        self._recorder.add(*outcomes, claim=claim)


def give_back(claim: Claim, lane: Lane) -> Outcome:
    """The outcome of a claim that nothing was done with."""
    if lane.step is Step.DELIVER:
        return ReleaseDelivery(work_id=claim.work_id, fence=claim.fence)
    return Release(work_id=claim.work_id, fence=claim.fence)


def about(lane: Lane, claim: Claim) -> dict[str, str]:
    """What a step's log lines say of themselves."""
    step = str(lane.step)
    if lane.step is not Step.DELIVER:
        return {"job": claim.work_id, "provider": claim.provider, "step": step}
    return {"job": job_of(claim.work_id), "provider": claim.provider, "step": step, "delivery": claim.work_id}
