"""Step 1: jobs come in (`tasks.submit`) and are sent to their provider (`tasks.submit_due`).

No provider takes an idempotency key, so: the intent is written under a fence, the request is sent, the external id is
bound. Whatever breaks in between leaves the job uncertain, and the provider's policy decides.
"""

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from celery.exceptions import Ignore, Reject

from outwait.worker.app import StepTask, app
from outwait.worker.engine import pacing, rate_feedback
from outwait.worker.engine.clock import OUTAGE_PAUSE
from outwait.worker.engine.intake import TASK, Intake, Sent, Unusable, read
from outwait.worker.engine.recorder import Recorder
from outwait.worker.engine.runtime import Runtime
from outwait.worker.model.errors import (
    NotSent,
    OutwaitError,
    ProviderError,
    RateLimited,
    Rejected,
    Unauthorized,
)
from outwait.worker.model.jobs import Claim, JobError, JobState, Step, UncertainPolicy
from outwait.worker.model.lanes import Lane
from outwait.worker.model.outcomes import Counts, Hold, Outcome, Release, Retry, Submitted, Uncertain, expired, failed
from outwait.worker.net.redaction import redact
from outwait.worker.providers.contract import Provider, Submission
from outwait.worker.providers.exchange import Count, Exchange
from outwait.worker.store.inbox import Taken
from outwait.worker.store.reads import Spec

log = logging.getLogger(__name__)


class SubmitTask(StepTask):
    """The public task."""

    @cached_property
    def intake(self) -> Intake:
        """What turns messages into jobs."""
        return app.intake(app.runtime.store)

    def take(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Sent:
        """Record the job of the message that runs now. Raises StoreUnavailable or Unusable."""
        # Celery has waited for the `eta` and seen to `expires` itself.
        headers = vars(self.request)
        named = {"task": TASK, "id": self.request.id, "traceparent": headers.get("traceparent", "")}
        sent = read(named, args, kwargs, headers)
        app.runtime.call(self.intake.accept(sent))
        return sent


@app.task(name=TASK, base=SubmitTask, bind=True, acks_late=True, ignore_result=True)
def submit(self: SubmitTask, *args: Any, **kwargs: Any) -> None:
    """The public contract, on brokers whose acknowledgements are real; on Redis the intake takes the message first."""
    try:
        refusal = self.take(args, kwargs).refusal
    except Unusable as error:
        message = Taken("", repr((self.request.id, args, kwargs)).encode())
        app.runtime.call(self.intake.park(message, str(error)))
    except Exception as error:
        # Celery would acknowledge a message whose task failed, and the job would be lost.
        log.warning("job-not-recorded", extra={"job": self.request.id, "error": str(error)})
        time.sleep(OUTAGE_PAUSE)
        raise Reject(error, requeue=True) from error
    else:
        if refusal:
            raise Ignore(refusal)  # what the message names to run after it must not run


@app.task(name="tasks.submit_due", ignore_result=True)
def submit_due(lane: str, claims: list[Any]) -> None:
    """Submit a batch of claimed jobs of one provider."""
    app.runtime.run(Lane.parse(lane), claims, Submit(app.runtime, Lane.parse(lane)))


class Submit:
    """The submit step for one batch of one provider."""

    intent = True

    def __init__(self, runtime: Runtime, lane: Lane) -> None:
        self._runtime = runtime
        self._policy = runtime.policies.of(lane)
        self._settings = runtime.settings.submit
        self._name = lane.name
        self._limits = runtime.registry.limits(self._name)
        self._specs: dict[str, Spec] = {}
        self._webhook_urls: dict[str, str | None] = {}

    async def prepare(self, claims: list[Claim], record: Recorder) -> list[Claim]:
        """Sort out what must not be sent, read the parameters, and have a token ready before any intent is written."""
        ready = []
        specs = await self._runtime.store.reads.specs([claim.work_id for claim in claims])
        for claim, spec in zip(claims, specs, strict=True):
            verdict = self._verdict(claim, spec)
            if spec is None or verdict is not None:
                record.add(verdict or Release(work_id=claim.work_id, fence=claim.fence), *self._unused(claim))
            else:
                self._specs[claim.work_id] = spec
                ready.append(claim)
        if ready and self._provider.webhooks:
            urls = self._runtime.addresses
            self._webhook_urls = {claim.work_id: await urls.url(self._name, claim.work_id) for claim in ready}
        return await self._with_token(ready, record)

    async def run(self, claim: Claim, now: int) -> Sequence[Outcome]:
        """Send one job."""
        exchange = self._runtime.exchange(Step.SUBMIT, self._name)
        if claim.deadline_ms and now >= claim.deadline_ms:
            return (expired(claim, "the deadline passed before the job could be submitted"),)
        met: ProviderError | None = None
        try:
            outcome = await self._send(claim, now, exchange)
        except asyncio.CancelledError:
            outcome = self._lost(claim, exchange, "the worker stopped before the answer came")
        except ProviderError as error:
            met = error
            outcome = self.decide(claim, exchange, error)
        except Exception as error:
            log.exception("submit-broken", extra={"job": claim.work_id, "provider": self._name})
            outcome = self._lost(claim, exchange, redact(f"{type(error).__name__}: {error}"))
        return (outcome, *rate_feedback.rate_feedback(self._policy, self._limits, claim, exchange, met))

    def decide(self, claim: Claim, exchange: Exchange, error: ProviderError) -> Outcome:
        """What an error means for a submit: retry only what certainly was not taken."""
        if isinstance(error, RateLimited):
            rate_feedback.slow_down(exchange, error)
            return self._again(claim, exchange, error, attempt=0)
        if isinstance(error, NotSent | Unauthorized) or error.status in self._provider.refused:
            return self._again(claim, exchange, error, attempt=1)
        if isinstance(error, Rejected) or error.status == 404:
            return self._failed(claim, exchange, error)
        return self._lost(claim, exchange, f"{error.code}: {error}")

    @property
    def _provider(self) -> Provider:
        return self._runtime.registry.get(self._name)

    async def _send(self, claim: Claim, now: int, exchange: Exchange) -> Outcome:
        spec = self._specs[claim.work_id]
        registry = self._runtime.registry
        params = registry.validate(self._name, claim.operation, spec.params)
        submission = Submission(claim.work_id, claim.operation, params, self._webhook_urls.get(claim.work_id))
        found = await self._provider.submit(submission, exchange)
        self._runtime.events.submitted(claim, spec.params)
        return Submitted(
            work_id=claim.work_id,
            fence=claim.fence,
            external_id=found.external_id,
            memo=found.memo,
            countdown_ms=self._first_poll(claim, now, found.first_poll),
            submits=exchange.ledger[Count.SUBMITS],
            fetches=exchange.ledger[Count.FETCHES],
        )

    def _first_poll(self, claim: Claim, now: int, asked: float | None) -> int:
        """The countdown in milliseconds: as the provider's file says, or until jobs of this operation usually end."""
        operation = self._runtime.registry.operation(self._name, claim.operation)
        durations = self._runtime.durations(self._name, claim.operation) if asked is None else ()
        wanted = operation.first_poll if asked is None else asked
        countdown, least = pacing.poll_countdown(wanted, durations=durations), min(wanted, operation.first_poll)
        left = (claim.deadline_ms - now) / 1000 if claim.deadline_ms else math.inf
        return math.ceil(pacing.in_time(countdown, least, pacing.moments(operation, 0.0, left)) * 1000)

    def _verdict(self, claim: Claim, spec: Spec | None) -> Outcome | None:
        """What ends or parks a claimed job without sending anything."""
        if claim.state == JobState.UNCERTAIN:
            return self._uncertain(claim)
        if spec is None:
            return failed(claim, JobError("lost_request", "the job's parameters are no longer in Redis"))
        if claim.attempts >= self._settings.attempts:
            return failed(claim, JobError("not_submitted", f"gave up after {claim.attempts} attempts to submit"))
        try:
            self._runtime.registry.get(self._name)
            self._runtime.registry.validate(self._name, claim.operation, spec.params)
        except OutwaitError as error:
            return failed(claim, JobError(error.code, str(error)))
        return None

    def _uncertain(self, claim: Claim) -> Outcome:
        match self._limits.uncertain:
            case UncertainPolicy.HOLD:
                return Hold(work_id=claim.work_id, fence=claim.fence, reason="submitted, perhaps: a person decides")
            case UncertainPolicy.RESUBMIT:
                return Retry(
                    work_id=claim.work_id,
                    fence=claim.fence,
                    countdown_ms=0,
                    reason="uncertain: the provider's policy is to submit again",
                    attempt=1,
                )
            case UncertainPolicy.FAIL:
                return failed(claim, JobError("uncertain", "submitted, perhaps; the provider's policy is to fail"))

    async def _with_token(self, claims: list[Claim], record: Recorder) -> list[Claim]:
        if not claims:
            return []
        exchange = self._runtime.exchange(Step.SUBMIT, self._name)
        try:
            await self._provider.prepare(exchange)
        except ProviderError as error:
            if isinstance(error, RateLimited):
                rate_feedback.slow_down(exchange, error)
            told = rate_feedback.rate_feedback(self._policy, self._limits, claims[0], exchange, error)
            for claim in claims:
                record.add(self._again(claim, exchange, error, attempt=1), *self._unused(claim))
            record.add(*told)
            return []
        return claims

    def _unused(self, claim: Claim) -> tuple[Outcome, ...]:
        """The place in the provider's rate that the claim took and does not need."""
        return rate_feedback.release_slot(self._policy, claim.work_id, claim.fence, 0)

    def _again(self, claim: Claim, exchange: Exchange, error: ProviderError, *, attempt: int) -> Outcome:
        if claim.attempts + attempt >= self._settings.attempts:
            return self._failed(claim, exchange, error)
        countdown = pacing.backoff(self._settings, claim.attempts, error.retry_after)
        reason, sent = f"{error.code}: {error}", exchange.ledger[Count.SUBMITS]
        return Retry(
            work_id=claim.work_id,
            fence=claim.fence,
            countdown_ms=int(countdown * 1000),
            reason=reason,
            attempt=attempt,
            submits=sent,
        )

    def _failed(self, claim: Claim, exchange: Exchange, error: ProviderError) -> Outcome:
        told = JobError(error.code, str(error), error.detail)
        return failed(claim, told, Counts(submits=exchange.ledger[Count.SUBMITS]))

    def _lost(self, claim: Claim, exchange: Exchange, reason: str) -> Outcome:
        if not exchange.ledger[Count.SUBMITS]:
            return Retry(
                work_id=claim.work_id,
                fence=claim.fence,
                countdown_ms=int(pacing.backoff(self._settings, claim.attempts) * 1000),
                reason=reason,
                attempt=1,
            )
        return Uncertain(
            work_id=claim.work_id, fence=claim.fence, reason=reason, submits=exchange.ledger[Count.SUBMITS]
        )
