"""Step 1: jobs are sent to their provider (`tasks.submit_due`).

No provider takes an idempotency key, so: the intent is written under a fence, the request is sent, the external id is
bound. Whatever breaks in between leaves the job uncertain, and the provider's policy decides.
"""

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from pydantic import BaseModel

from outwait.config.groups import StepSettings
from outwait.worker.app import ProviderTask, app
from outwait.worker.celery.flower_events import FlowerEvents
from outwait.worker.engine import pacing
from outwait.worker.engine.provider_step import ProviderStep, requests_sent
from outwait.worker.engine.provider_webhooks import WebhookUrls
from outwait.worker.engine.rate_feedback import provider_feedback, release_slot
from outwait.worker.engine.recorder import Recorder
from outwait.worker.model.errors import (
    NotSent,
    OutwaitError,
    ProviderError,
    RateLimited,
    Rejected,
    Unauthorized,
    Withheld,
)
from outwait.worker.model.jobs import Claim, JobError, JobState, Step, UncertainPolicy
from outwait.worker.model.lanes import Lane
from outwait.worker.model.outcomes import (
    NO_COUNTS,
    Counts,
    Hold,
    Outcome,
    Release,
    Retry,
    Submitted,
    Uncertain,
    expired,
    failed,
)
from outwait.worker.model.times import ceil_milliseconds, milliseconds
from outwait.worker.net.redaction import redact
from outwait.worker.providers.contract import Operation, Submission, SubmitAnswer, traceable
from outwait.worker.providers.exchange import Exchange
from outwait.worker.store.reads import Reads, Spec

log = logging.getLogger(__name__)


@app.task(name="tasks.submit_due", base=ProviderTask, ignore_result=True, shared=False)
def submit_due(lane: str, claims: list[Any]) -> None:
    """Submit a batch of claimed jobs of one provider."""
    runtime, parsed = app.runtime, Lane.parse(lane)
    step = Submit(
        gateway=runtime.gateway(Step.SUBMIT, parsed.name),
        settings=runtime.settings.submit,
        reads=runtime.store.reads,
        webhook_urls=runtime.webhook_urls,
        events=runtime.events,
    )
    runtime.run(parsed, claims, step)


@dataclass(kw_only=True)
class Submit(ProviderStep):
    """The submit step for one batch of one provider."""

    step = Step.SUBMIT
    intent = True
    settings: StepSettings
    reads: Reads
    webhook_urls: WebhookUrls
    events: FlowerEvents
    _submissions: dict[str, tuple[Submission, Mapping[str, Any]]] = field(default_factory=dict, init=False)
    """By job, with the parameters as the producer wrote them."""

    async def prepare(self, claims: list[Claim], record: Recorder) -> list[Claim]:
        """Validate the parameters, record what must not be sent, and get a token, before any intent is written."""
        ready: list[Claim] = []
        for claim, spec in await self._specs(claims, record):
            params = self._validated(claim, spec)
            outcome = decide_unsent(self._context(claim), params, self.gateway.limits.uncertain)
            if outcome is not None:
                record.add(outcome, *self._unused_slot(claim))
            elif spec is not None:
                await self._keep(claim, spec, params)
                ready.append(claim)
        return await self._with_token(ready, record)

    async def _specs(self, claims: list[Claim], record: Recorder) -> list[tuple[Claim, Spec | None]]:
        """What each job asks for; None if that is lost. A Redis that does not know the claim may not say so."""
        specs = await self.reads.specs([claim.work_id for claim in claims])
        without = [claim for claim, spec in zip(claims, specs, strict=True) if spec is None]
        lost = await self.reads.without_spec(without) if without else frozenset()
        strange = [claim for claim in without if claim.work_id not in lost]
        record.add(*(Release(work_id=claim.work_id, fence=claim.fence) for claim in strange))
        return [pair for pair in zip(claims, specs, strict=True) if pair[0] not in strange]

    async def ask(self, claim: Claim, now_ms: int, exchange: Exchange) -> Outcome:
        """Send one job."""
        if claim.time_left(now_ms) <= 0:
            return expired(claim, "the deadline passed before the job could be submitted")
        submission, raw_params = self._submissions[claim.work_id]
        answer = traceable(await self.gateway.provider.submit(submission, exchange), submission)
        self.events.submitted(claim, raw_params)
        operation = self.gateway.operation(claim.operation)
        durations_s = self.gateway.durations_s(claim.operation)
        context = self._context(claim, requests_sent(exchange))._replace(first_poll_in=exchange.first_poll_in)
        return decide_answer(context, answer, operation, now_ms, durations_s)

    def decide_error(self, claim: Claim, now_ms: int, sent: Counts, error: BaseException) -> Outcome:  # noqa: ARG002 - as polls
        """See `ProviderStep`."""
        return decide_error(self._context(claim, sent), error, self.gateway.provider.refused)

    def _context(self, claim: Claim, sent: Counts = NO_COUNTS) -> "SubmitContext":
        return SubmitContext(claim, self.settings, sent, random.random())

    def _validated(self, claim: Claim, spec: Spec | None) -> BaseModel | OutwaitError | None:
        """The job's parameters, the error that they are, or None if they are lost."""
        if spec is None:
            return None
        try:
            self.gateway.registry.get(self.gateway.name)
            return self.gateway.registry.validate(self.gateway.name, claim.operation, spec.params)
        except OutwaitError as error:
            return error

    async def _keep(self, claim: Claim, spec: Spec, params: object) -> None:
        gateway = self.gateway
        url = await self.webhook_urls.url(gateway.name, claim.work_id) if gateway.provider.webhooks else None
        tenant = partial(self.reads.tenant, claim.work_id)
        self._submissions[claim.work_id] = Submission(claim.work_id, claim.operation, params, url, tenant), spec.params

    async def _with_token(self, claims: list[Claim], record: Recorder) -> list[Claim]:
        if not claims:
            return []
        exchange = self.gateway.new_exchange()
        try:
            await self.gateway.provider.prepare(exchange)
        except ProviderError as error:
            for claim in claims:
                outcome = retry_or_fail(self._context(claim, requests_sent(exchange)), error, attempt=1)
                record.add(outcome, *self._unused_slot(claim))
            record.add(*provider_feedback(self.gateway.name, self.gateway.limits, error, exchange.pause))
            return []
        return claims

    def _unused_slot(self, claim: Claim) -> tuple[Outcome, ...]:
        """Give back the slot in the provider's rate that the claim took and does not need."""
        return release_slot(self.gateway.policy, claim.work_id, claim.fence, 0)


class SubmitContext(NamedTuple):
    """What a decision about a submit depends on, beside the answer or the error."""

    claim: Claim
    settings: StepSettings
    sent: Counts
    jitter: float
    """A random number from 0 to 1."""
    first_poll_in: float | None = None
    """Seconds that the answer's `Retry-After` asks to wait before the first poll."""


def decide_unsent(
    context: SubmitContext, params: BaseModel | OutwaitError | None, policy: UncertainPolicy
) -> Outcome | None:
    """The outcome of a claimed job of which nothing may be sent; None if it may be sent.

    Args:
        context: the job.
        params: its parameters, the error that reading them raised, or None if they are no longer stored.
        policy: what the provider's settings do with an uncertain job.
    """
    claim = context.claim
    if claim.state == JobState.UNCERTAIN:
        return decide_uncertain(claim, policy)
    if params is None:
        return failed(claim, JobError("lost_request", "the job's parameters are no longer in Redis"))
    if claim.attempts >= context.settings.attempts:
        return failed(claim, JobError("not_submitted", f"gave up after {claim.attempts} attempts to submit"))
    if isinstance(params, OutwaitError):
        return failed(claim, JobError(params.code, str(params)))
    return None


def decide_uncertain(claim: Claim, policy: UncertainPolicy) -> Outcome:
    """What happens to a job that the provider may have."""
    match policy:
        case UncertainPolicy.HOLD:
            return Hold(
                work_id=claim.work_id, fence=claim.fence, reason="the provider may have the job: a person decides"
            )
        case UncertainPolicy.RESUBMIT:
            reason = "uncertain: the provider's policy is to submit again"
            return Retry(work_id=claim.work_id, fence=claim.fence, countdown_ms=0, reason=reason, attempt=1)
        case UncertainPolicy.FAIL:
            return failed(claim, JobError("uncertain", "the provider may have the job; the policy is to fail it"))


def decide_answer(
    context: SubmitContext, answer: SubmitAnswer, operation: Operation, now_ms: int, durations_s: Sequence[float]
) -> Outcome:
    """The provider took the job: it waits for its first poll, or for its webhook if it has no external id.

    Args:
        context: the job.
        answer: of the provider.
        operation: of the job.
        now_ms: Redis's time in milliseconds.
        durations_s: how long jobs of this operation took, sorted seconds; used if the answer asks for no first poll.
    """
    claim, asked = context.claim, answer.first_poll if answer.external_id else pacing.LONGEST
    wanted = operation.first_poll if asked is None else asked
    not_before = min(context.first_poll_in or 0.0, pacing.LONGEST) if answer.external_id else 0.0
    learnt = durations_s if asked is None else ()
    usual = pacing.poll_countdown(wanted, not_before, durations=learnt, jitter=context.jitter)
    moments = pacing.moments(operation, 0.0, claim.time_left(now_ms))
    countdown = pacing.in_time(usual, max(min(wanted, operation.first_poll), not_before), moments)
    return Submitted(
        work_id=claim.work_id,
        fence=claim.fence,
        external_id=answer.external_id,
        memo=answer.memo,
        countdown_ms=ceil_milliseconds(countdown),
        submits=context.sent.submits,
        fetches=context.sent.fetches,
        not_before_ms=milliseconds(not_before),
    )


def decide_error(context: SubmitContext, error: BaseException, refused: frozenset[int]) -> Outcome:
    """What an error means for a submit: it is repeated only if the provider certainly did not take it.

    `refused` are the statuses that the provider documents as certainly not taken.
    """
    match error:
        case Withheld():
            return Release(work_id=context.claim.work_id, fence=context.claim.fence)
        case RateLimited():
            return retry_or_fail(context, error, attempt=0)
        case ProviderError() if isinstance(error, NotSent | Unauthorized) or error.status in refused:
            return retry_or_fail(context, error, attempt=1)
        case Rejected() | ProviderError(status=404):
            return _failed(context, error)
        case ProviderError():
            reason = f"{error.code}: {error}"
        case asyncio.CancelledError():
            reason = "the worker stopped before the answer came"
        case _:
            reason = redact(f"{type(error).__name__}: {error}")
    return _uncertain(context, reason)


def retry_or_fail(context: SubmitContext, error: ProviderError, *, attempt: int) -> Outcome:
    """Submit again later; fail if no attempt is left. `attempt` is 0 if the error does not count as one."""
    claim = context.claim
    if claim.attempts + attempt >= context.settings.attempts:
        return _failed(context, error)
    return _retry(context, f"{error.code}: {error}", attempt=attempt, retry_after=error.retry_after)


def _retry(context: SubmitContext, reason: str, *, attempt: int, retry_after: float | None = None) -> Retry:
    claim = context.claim
    countdown = pacing.backoff(context.settings, claim.attempts, retry_after, jitter=context.jitter)
    return Retry(
        work_id=claim.work_id,
        fence=claim.fence,
        countdown_ms=milliseconds(countdown),
        reason=reason,
        attempt=attempt,
        submits=context.sent.submits,
    )


def _failed(context: SubmitContext, error: ProviderError) -> Outcome:
    return failed(context.claim, JobError(error.code, str(error), error.detail), Counts(submits=context.sent.submits))


def _uncertain(context: SubmitContext, reason: str) -> Outcome:
    """The answer is lost, so the provider may have the job. If no request left, it certainly has not."""
    if not context.sent.submits:
        return _retry(context, reason, attempt=1)
    claim = context.claim
    return Uncertain(work_id=claim.work_id, fence=claim.fence, reason=reason, submits=context.sent.submits)
