"""Step 4: one delivery is run for one handler (`tasks.deliver`): retried with backoff, dead after the last attempt."""

import asyncio
import logging
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from outwait.tasks.handlers.delivery import Handlers
from outwait.tasks.handlers.envelope import Envelope
from outwait.tasks.handlers.signed_webhooks import Webhooks
from outwait.worker.app import StepTask, app
from outwait.worker.engine import pacing
from outwait.worker.engine.recorder import Recorder
from outwait.worker.engine.runtime import Runtime
from outwait.worker.model.errors import DeliveryFailed, DeliveryRefused, HandlerError
from outwait.worker.model.jobs import Claim, Job, JobError, job_of
from outwait.worker.model.lanes import Lane
from outwait.worker.model.outcomes import Dead, Delivered, Outcome, Redeliver, ReleaseDelivery
from outwait.worker.net.redaction import redact

log = logging.getLogger(__name__)

SUSPECT = 2
"""Leases of a delivery that ended with its worker, after which its handler may be what ends workers."""


class DeliverTask(StepTask):
    """The task that owns the handlers of this process."""

    @cached_property
    def handlers(self) -> Handlers:
        """The handlers. Raises ConfigError for a module that cannot be imported."""
        runtime = app.runtime
        webhooks = Webhooks(app.settings.webhooks, runtime.guard, runtime.http, runtime.store.receivers)
        return Handlers(app.settings.handlers, app.send_task, runtime.store.streams, webhooks)

    def prepare(self) -> None:
        """Import the users' handler modules before the first job is taken."""
        _ = self.handlers


@app.task(name="tasks.deliver", base=DeliverTask, bind=True, ignore_result=True)
def deliver(self: DeliverTask, lane: str, claims: list[Any]) -> None:
    """Deliver a batch of claimed deliveries of one handler."""
    app.runtime.run(Lane.parse(lane), claims, Deliver(app.runtime, self.handlers, Lane.parse(lane)))


class Deliver:
    """The deliver step for one batch of one handler."""

    intent = False

    def __init__(self, runtime: Runtime, handlers: Handlers, lane: Lane) -> None:
        self._runtime = runtime
        self._handlers = handlers
        self._target = lane.name
        self._settings = runtime.settings.deliver
        webhook = self._target.startswith(("https:", "http:"))
        self._schedule = runtime.settings.webhooks.schedule if webhook else []
        self._attempts = len(self._schedule) + 1 if webhook else self._settings.attempts
        self._jobs: dict[str, Job] = {}

    async def prepare(self, claims: list[Claim], record: Recorder) -> list[Claim]:  # noqa: ARG002 - the step's contract
        """Read the jobs of the batch in one round trip."""
        ids = sorted({job_of(claim.work_id) for claim in claims})
        self._jobs = {job.id: job for job in await self._runtime.store.reads.jobs(ids)}
        return claims

    async def run(self, claim: Claim, now: int) -> Sequence[Outcome]:  # noqa: ARG002 - the step's contract
        """Run the handler for one delivery."""
        if claim.attempts >= self._attempts:
            # Its leases ended again and again: whatever ran it did not live to record anything.
            return (self.decide(claim, DeliveryFailed(f"gave up after {claim.attempts} attempts that never ended")),)
        try:
            envelope, suspect = await self._envelope(claim), await self._suspect(claim)
            told = await self._handlers.deliver(
                self._target, envelope, self._settings.time_limit, in_subprocess=suspect
            )
        except asyncio.CancelledError:
            return (ReleaseDelivery(work_id=claim.work_id, fence=claim.fence),)
        except HandlerError as error:
            about = {"delivery": claim.work_id, "target": redact(self._target)}
            log.warning("delivery-failed", extra=about, exc_info=error.__cause__)
            return (self.decide(claim, error),)
        except Exception as error:
            log.exception("deliver-broken", extra={"delivery": claim.work_id, "target": redact(self._target)})
            return (self.decide(claim, HandlerError(f"{type(error).__name__}: {error}")),)
        return (Delivered(work_id=claim.work_id, fence=claim.fence, detail=told),)

    def decide(self, claim: Claim, error: HandlerError) -> Outcome:
        """Another attempt, or the dead letter."""
        told = JobError(error.code, redact(str(error))).text()
        if isinstance(error, DeliveryRefused) or claim.attempts + 1 >= self._attempts:
            return Dead(work_id=claim.work_id, fence=claim.fence, error=told)
        return Redeliver(
            work_id=claim.work_id,
            fence=claim.fence,
            countdown_ms=int(self._countdown(claim.attempts, error) * 1000),
            error=told,
        )

    def _countdown(self, attempts: int, error: HandlerError) -> float:
        asked = error.retry_after if isinstance(error, DeliveryFailed) else None
        if self._schedule:
            return pacing.scheduled(self._schedule, attempts, asked)
        return pacing.backoff(self._settings, attempts, asked)

    async def _suspect(self, claim: Claim) -> bool:
        """Whether the workers that ran this delivery before were lost, again and again."""
        if claim.attempts < SUSPECT:
            return False
        story = await self._runtime.store.reads.timeline(job_of(claim.work_id))
        lost = [one for one in story if (one.event, one.detail) == ("lease-ended", f"deliver:{self._target}")]
        return len(lost) >= SUSPECT

    async def _envelope(self, claim: Claim) -> Envelope:
        job = self._jobs[job_of(claim.work_id)]
        return Envelope(
            delivery_id=claim.work_id,
            job_id=job.id,
            provider=job.provider,
            operation=job.operation,
            state=job.state,
            result=await self._runtime.store.reads.result(job.id),
            error=job.error,
            external_id=job.external_id,
            metadata=job.metadata,
            created=job.created,
            ended=job.ended,
            attempt=claim.attempts + 1,
        )
