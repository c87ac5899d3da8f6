"""Step 4: one delivery is run for one handler (`tasks.deliver`): retried with backoff, dead after the last attempt."""

import asyncio
import logging
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from outwait.config.groups import StepSettings
from outwait.tasks.handlers.delivery import Handlers
from outwait.tasks.handlers.envelope import Envelope
from outwait.tasks.handlers.signed_webhooks import Webhooks
from outwait.worker.app import StepTask, app
from outwait.worker.engine import pacing
from outwait.worker.engine.recorder import Recorder
from outwait.worker.model.destinations import Destinations
from outwait.worker.model.errors import DeliveryFailed, DeliveryRefused, HandlerError, StoreUnavailable, Withheld
from outwait.worker.model.jobs import Claim, Job, JobError, TimelineEntry, job_of
from outwait.worker.model.lanes import Lane
from outwait.worker.model.outcomes import Dead, Delivered, Outcome, Redeliver, ReleaseDelivery
from outwait.worker.model.times import milliseconds
from outwait.worker.net.redaction import redact
from outwait.worker.store.reads import Reads

log = logging.getLogger(__name__)

SUSPECT_AFTER = 2
"""Leases of a delivery that ended with its worker, after which its handler may be what ends workers."""


LOGGED_EVERY = 60.0
"""Seconds between two log lines of one handler or host that fails."""

REMEMBERED = 1000
"""Handlers and hosts of which it is known when they were last logged."""


class Failures:
    """Logs failed deliveries: the first one of a handler or host, then one a minute with the number of those between.

    Each failure is in its job's timeline; a receiver that is down would fill the log with the same line.
    """

    def __init__(self) -> None:
        self._logged: dict[tuple[str, str], tuple[float, int]] = {}

    def log(self, event: str, delivery: str, target: str, error: BaseException) -> None:
        """Log that a delivery failed, if it is time to."""
        shown = redact(target)  # of a URL the host
        now = time.monotonic()
        logged_at, failures = self._logged.pop((event, shown), (-LOGGED_EVERY, 0))
        due = now - logged_at >= LOGGED_EVERY
        self._logged[event, shown] = (now, 0) if due else (logged_at, failures + 1)
        if len(self._logged) > REMEMBERED:
            del self._logged[next(iter(self._logged))]
        if due:
            extra = {"delivery": delivery, "target": shown, "failures": failures + 1, "error": redact(str(error))}
            log.warning(event, extra=extra, exc_info=_traced(target, error))


def _traced(target: str, error: BaseException) -> BaseException | None:
    """The error whose traceback a person needs: what users' code or ours raised, not what a receiver answered."""
    if not isinstance(error, HandlerError):
        return error
    return None if is_webhook(target) else error.__cause__


def is_webhook(target: str) -> bool:
    """Whether a target is a receiver of signed webhooks."""
    return target.startswith(("https:", "http:"))


class DeliverTask(StepTask):
    """The task that owns the handlers of this process."""

    @cached_property
    def handlers(self) -> Handlers:
        """The handlers. Raises ConfigError for a module that cannot be imported."""
        runtime = app.runtime
        webhooks = Webhooks(app.settings.webhooks, runtime.guard, runtime.http, runtime.store.receivers)
        destinations = Destinations.of(app.settings)
        return Handlers(
            app.settings.handlers, app.send_task, runtime.store.streams, webhooks, destinations=destinations
        )

    @cached_property
    def failures(self) -> Failures:
        """What this process has logged of deliveries that failed."""
        return Failures()

    def prepare(self) -> None:
        """Import the users' handler modules before the first job is taken."""
        _ = self.handlers

    def serves(self, name: str) -> bool:
        """Whether this process has what delivers to this target."""
        return self.handlers.serves(name)

    def equipment(self) -> Iterable[str]:
        """The handlers."""
        return self.handlers.equipment()

    def handler_names(self) -> Iterable[str]:
        """The marked functions."""
        return self.handlers.names


@app.task(name="tasks.deliver", base=DeliverTask, bind=True, ignore_result=True, shared=False)
def deliver(self: DeliverTask, lane: str, claims: list[Any]) -> None:
    """Deliver a batch of claimed deliveries of one handler."""
    runtime, parsed = app.runtime, Lane.parse(lane)
    step = Deliver(
        target=parsed.name,
        handlers=self.handlers,
        reads=runtime.store.reads,
        retries=delivery_retries(parsed.name, runtime.settings.deliver, runtime.settings.webhooks.schedule),
        pass_trace=runtime.settings.handlers.traceparent,
        failures=self.failures,
    )
    runtime.run(parsed, claims, step)


class DeliveryRetries(NamedTuple):
    """How often and when the deliveries of one target are tried again."""

    settings: StepSettings
    schedule: Sequence[float]
    """Seconds before each further attempt; empty: exponential backoff by the settings."""
    attempts: int


def delivery_retries(target: str, settings: StepSettings, schedule: Sequence[float]) -> DeliveryRetries:
    """Webhooks follow their schedule, all other handlers the settings of the step."""
    if is_webhook(target):
        return DeliveryRetries(settings, schedule, len(schedule) + 1)
    return DeliveryRetries(settings, (), settings.attempts)


@dataclass(kw_only=True)
class Deliver:
    """The deliver step for one batch of one target."""

    intent = False
    target: str
    handlers: Handlers
    reads: Reads
    retries: DeliveryRetries
    pass_trace: bool = False
    failures: Failures = field(default_factory=Failures)
    _jobs: dict[str, Job] = field(default_factory=dict, init=False)

    async def prepare(self, claims: list[Claim], record: Recorder) -> list[Claim]:  # noqa: ARG002 - the step's contract
        """Read the jobs of the batch in one round trip."""
        ids = sorted({job_of(claim.work_id) for claim in claims})
        self._jobs = {job.id: job for job in await self.reads.jobs(ids)}
        return claims

    async def run(self, claim: Claim, now_ms: int) -> Sequence[Outcome]:  # noqa: ARG002 - the step's contract
        """Run the handler for one delivery."""
        try:
            return (await self._deliver(claim),)
        # No name outlives its clause: an error that its own traceback leads to stays in memory, megabytes and all.
        except (StoreUnavailable, asyncio.CancelledError, Withheld) as stopped:
            return (decide_error(claim, stopped, self.retries, random.random()),)
        except HandlerError as failed:
            self.failures.log("delivery-failed", claim.work_id, self.target, failed)
            return (decide_error(claim, failed, self.retries, random.random()),)
        except Exception as unexpected:  # noqa: BLE001 - it is logged, as often as it helps
            self.failures.log("deliver-broken", claim.work_id, self.target, unexpected)
            return (decide_error(claim, unexpected, self.retries, random.random()),)

    async def _deliver(self, claim: Claim) -> Outcome:
        if claim.attempts >= self.retries.attempts:
            # Its leases ended again and again: whatever ran it did not live to record anything.
            error = DeliveryFailed(f"gave up after {claim.attempts} attempts that never ended")
            return decide_error(claim, error, self.retries, random.random())
        envelope = await self._envelope(claim)
        time_limit, suspect = self.retries.settings.time_limit, await self._suspect(claim)
        trace = claim.trace if self.pass_trace else ""
        answer = await self.handlers.deliver(self.target, envelope, time_limit, in_subprocess=suspect, trace=trace)
        return Delivered(work_id=claim.work_id, fence=claim.fence, detail=answer)

    async def _suspect(self, claim: Claim) -> bool:
        """Whether the workers that ran this delivery before were lost, again and again."""
        if claim.attempts < SUSPECT_AFTER:
            return False
        return ended_workers(await self.reads.timeline(job_of(claim.work_id)), self.target)

    async def _envelope(self, claim: Claim) -> Envelope:
        job = self._jobs[job_of(claim.work_id)]
        return Envelope(
            delivery_id=claim.work_id,
            job_id=job.id,
            provider=job.provider,
            operation=job.operation,
            state=job.state,
            result=await self.reads.result(job.id),
            error=job.error,
            external_id=job.external_id,
            metadata=job.metadata,
            created=job.created,
            ended=job.ended,
            attempt=claim.attempts + 1,
            tenant=job.tenant,
        )


def decide_error(claim: Claim, error: BaseException, retries: DeliveryRetries, jitter: float) -> Outcome:
    """What an error means for a delivery: another attempt, or the dead letter.

    Args:
        claim: the delivery.
        error: what its handler raised. A shutdown and an ended lease count as no attempt.
        retries: of its target.
        jitter: a random number from 0 to 1.
    """
    if isinstance(error, asyncio.CancelledError | Withheld):
        return ReleaseDelivery(work_id=claim.work_id, fence=claim.fence)
    if not isinstance(error, HandlerError):
        error = HandlerError(f"{type(error).__name__}: {error}")
    text = JobError(error.code, redact(str(error))).text()
    if isinstance(error, DeliveryRefused) or claim.attempts + 1 >= retries.attempts:
        return Dead(work_id=claim.work_id, fence=claim.fence, error=text)
    countdown = _countdown(claim.attempts, error, retries, jitter)
    return Redeliver(work_id=claim.work_id, fence=claim.fence, countdown_ms=milliseconds(countdown), error=text)


def _countdown(attempts: int, error: HandlerError, retries: DeliveryRetries, jitter: float) -> float:
    """Seconds until the next attempt."""
    retry_after = error.retry_after if isinstance(error, DeliveryFailed) else None
    if retries.schedule:
        return pacing.scheduled(retries.schedule, attempts, retry_after, jitter=jitter)
    return pacing.backoff(retries.settings, attempts, retry_after, jitter=jitter)


def ended_workers(timeline: Iterable[TimelineEntry], target: str) -> bool:
    """Whether so many leases of deliveries to this target ended that its handler may be what ends workers."""
    lost = [entry for entry in timeline if (entry.event, entry.detail) == ("lease-ended", f"deliver:{target}")]
    return len(lost) >= SUSPECT_AFTER
