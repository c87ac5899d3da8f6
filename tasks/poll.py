"""Step 2: submitted jobs are asked for until they end (`tasks.poll`); an unfinished one gets its next countdown."""

import asyncio
import logging
import math
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, assert_never

import msgspec

from outwait.config.groups import PollSettings, StoreSettings
from outwait.worker.app import ProviderTask, app
from outwait.worker.celery.flower_events import FlowerEvents
from outwait.worker.engine import pacing
from outwait.worker.engine.end_outcome import end_outcome
from outwait.worker.engine.provider_step import ProviderStep, requests_sent
from outwait.worker.engine.provider_webhooks import WebhookProcessor
from outwait.worker.engine.recorder import Recorder
from outwait.worker.model.errors import (
    AnswerLost,
    ExternalIdUnknown,
    OutwaitError,
    ProviderError,
    RateLimited,
    ResultTooLarge,
    Withheld,
)
from outwait.worker.model.jobs import Claim, JobError, Step
from outwait.worker.model.lanes import Lane
from outwait.worker.model.outcomes import NO_COUNTS, Counts, Outcome, Release, Retry, Wait, expired, failed
from outwait.worker.model.times import ceil_milliseconds, milliseconds
from outwait.worker.net.redaction import redact
from outwait.worker.providers.contract import Failed, Operation, Pending, PollAnswer, Succeeded, Waiting
from outwait.worker.providers.exchange import Exchange
from outwait.worker.store.reads import Reads

log = logging.getLogger(__name__)

UNKNOWN_POLLS = 5
"""Polls that must say that the external id is unknown before the job fails: a single one may come from a deployment."""


@app.task(name="tasks.poll", base=ProviderTask, ignore_result=True, shared=False)
def poll(lane: str, claims: list[Any]) -> None:
    """Poll a batch of claimed jobs of one provider."""
    runtime, parsed = app.runtime, Lane.parse(lane)
    step = Poll(
        gateway=runtime.gateway(Step.POLL, parsed.name),
        settings=runtime.settings.poll,
        store=runtime.settings.store,
        reads=runtime.store.reads,
        webhooks=WebhookProcessor(runtime.store, runtime.registry),
        events=runtime.events,
    )
    runtime.run(parsed, claims, step)


@dataclass(kw_only=True)
class Poll(ProviderStep):
    """The poll step for one batch of one provider."""

    step = Step.POLL
    intent = False
    settings: PollSettings
    store: StoreSettings
    reads: Reads
    webhooks: WebhookProcessor
    events: FlowerEvents

    async def prepare(self, claims: list[Claim], record: Recorder) -> list[Claim]:  # noqa: ARG002 - the step's contract
        """Nothing precedes a poll."""
        return claims

    async def ask(self, claim: Claim, now_ms: int, exchange: Exchange) -> Outcome:
        """Ask for one job. One without an external id is not known to the provider: only its webhooks tell of it."""
        if not claim.external_id:
            answer = await self.webhooks.last_answer(claim.work_id)
            return decide_unnamed(self._context(claim, now_ms, NO_COUNTS), answer, self.store)

        async def params() -> Any:
            return self.gateway.registry.validate(self.gateway.name, claim.operation, await self._raw_params(claim))

        age, tenant = claim.age(now_ms), partial(self.reads.tenant, claim.work_id)
        waiting = Waiting(claim.work_id, claim.operation, claim.external_id, claim.memo, age, params, tenant)
        polled = await self.gateway.provider.poll(waiting, exchange)
        if isinstance(polled, Succeeded) and exchange.warning:
            polled = replace(polled, warning="; ".join(filter(None, (polled.warning, exchange.warning))))
        context = self._context(claim, now_ms, requests_sent(exchange))
        outcome = decide_answer(context, polled, self.store)
        if isinstance(outcome, Wait):
            await self._show(_expiring(context, outcome.expires_ms), outcome)
        return outcome

    def decide_error(self, claim: Claim, now_ms: int, sent: Counts, error: BaseException) -> Outcome:
        """See `ProviderStep`."""
        return decide_error(self._context(claim, now_ms, sent), error)

    def _context(self, claim: Claim, now_ms: int, sent: Counts) -> "PollContext":
        operation, durations_s = self.gateway.operation(claim.operation), self.gateway.durations_s(claim.operation)
        context = PollContext(claim, now_ms, operation, self.settings, sent, durations_s, random.random())
        return _expiring(context, claim.expires_ms)

    async def _show(self, context: "PollContext", outcome: Wait) -> None:
        """Let logs and Celery's own tools see that the job still waits. No error here changes its outcome."""
        claim = context.claim
        if outcome.expiry_warning and claim.age(claim.polled_ms) < _near_expiry(context):
            log.warning("external-id-expires", extra={"job": claim.work_id, "seconds": round(_life_left(context))})
        if self.events.polls_shown():
            with suppress(OutwaitError, asyncio.CancelledError):
                self.events.polled(claim, await self._raw_params(claim))

    async def _raw_params(self, claim: Claim) -> dict[str, Any]:
        (spec,) = await self.reads.specs([claim.work_id])
        return spec.params if spec else {}


class PollContext(NamedTuple):
    """What a decision about a poll depends on, beside the answer or the error."""

    claim: Claim
    now_ms: int
    """Redis's time in milliseconds since 1970."""
    operation: Operation
    settings: PollSettings
    sent: Counts
    durations_s: Sequence[float]
    """How long jobs of this operation took, sorted seconds."""
    jitter: float
    """A random number from 0 to 1."""


def decide_answer(context: PollContext, answer: PollAnswer, store: StoreSettings) -> Outcome:
    """What an answer means for the job. `store` says how large a result may be."""
    match answer:
        case Pending(partial=Succeeded() as partial) if _time_over(context):
            return end_outcome(context.claim.work_id, context.claim.fence, partial, store, context.sent)
        case Pending():
            return _wait(context, answer)
        case Succeeded() | Failed():
            return end_outcome(context.claim.work_id, context.claim.fence, answer, store, context.sent)
        case other:
            assert_never(other)


def decide_unnamed(context: PollContext, answer: Succeeded | Failed | None, store: StoreSettings) -> Outcome:
    """What becomes of a job whose provider named no external id. `answer` is what its webhooks say, if one came.

    There is nothing to poll, so the webhook ends the job by itself.
    """
    claim, interval = context.claim, context.operation.poll_every
    if answer is not None:
        return end_outcome(claim.work_id, claim.fence, answer, store)
    if over := _time_over(context):
        return expired(claim, f"{over}; the provider named no external id, and no webhook said how the job ended")
    return Wait(
        work_id=claim.work_id,
        fence=claim.fence,
        countdown_ms=_in_time(context, pacing.LONGEST, interval),
        status="",
        polls=0,
        webhook_countdown_ms=milliseconds(interval),
    )


def decide_error(context: PollContext, error: BaseException) -> Outcome:
    """What an error means for a poll: the job is paid for, so it is asked for until its deadline."""
    match error:
        case Withheld() | asyncio.CancelledError():
            return _stopped(context)
        case RateLimited():
            return _retry(context, error, attempt=0)
        case ExternalIdUnknown():
            return _unknown_id(context, error)
        case ResultTooLarge():
            return failed(context.claim, JobError(error.code, str(error), error.detail), context.sent)
        case ProviderError():
            return _retry(context, error, attempt=1)
        case _:
            return _retry(context, AnswerLost(redact(f"{type(error).__name__}: {error}")), attempt=1)


def _wait(context: PollContext, answer: Pending) -> Outcome:
    claim, sent, expires_ms = context.claim, context.sent, 0
    if answer.expires_in is not None:
        expires_ms = context.now_ms + milliseconds(answer.expires_in)
        context = _expiring(context, expires_ms)
    if over := _time_over(context):
        return expired(claim, f"{over}; the provider's last status was {answer.status}", sent)
    soonest = _next_poll(context, answer.poll_in)
    awaits_webhook = answer.safety is not None
    return Wait(
        work_id=claim.work_id,
        fence=claim.fence,
        countdown_ms=_next_poll(context, answer.poll_in, answer.safety or 0.0) if awaits_webhook else soonest,
        status=answer.status,
        memo=answer.memo,
        polls=sent.polls,
        fetches=sent.fetches,
        warning=answer.warning or "",
        webhook_countdown_ms=soonest if awaits_webhook else 0,
        expiry_warning=_expiry_warning(context),
        expires_ms=expires_ms,
    )


def _expiring(context: PollContext, expires_ms: int) -> PollContext:
    """The context of a job whose external id expires then, if the provider said so; 0: it did not."""
    if not expires_ms:
        return context
    life = context.claim.age(expires_ms)
    return context._replace(operation=replace(context.operation, expiry=life))


def _next_poll(context: PollContext, asked_s: float | None, safety_s: float = 0.0) -> int:
    """Milliseconds until the next poll.

    Args:
        context: the poll.
        asked_s: seconds that the provider asked us to wait at least.
        safety_s: seconds to wait while a webhook is expected, unless the job's deadline comes before.
    """
    claim, operation = context.claim, context.operation
    age = claim.age(context.now_ms)
    usual = pacing.poll_countdown(operation.poll_every, asked_s, age, context.durations_s, jitter=context.jitter)
    return _in_time(context, max(usual, safety_s), _minimum(operation, asked_s))


def _retry(context: PollContext, error: ProviderError, *, attempt: int, unknown_polls: int = 0) -> Outcome:
    """Poll again later; end the job if its time is over. `attempt` is 0 if this one does not count."""
    claim, settings, sent = context.claim, context.settings, context.sent
    if over := _time_over(context):
        return expired(claim, f"{over}; the last poll failed: {error.code}: {error}", sent)
    minimum = _minimum(context.operation, error.retry_after)
    countdown = max(pacing.endless_backoff(settings, claim.attempts, error.retry_after, jitter=context.jitter), minimum)
    again = _poll_again(context, _in_time(context, countdown, minimum), f"{error.code}: {error}", attempt=attempt)
    return msgspec.structs.replace(again, unknown_polls=unknown_polls)


def _stopped(context: PollContext) -> Outcome:
    """The worker or the lease ends before the answer came. The next poll keeps the provider's interval."""
    if not context.sent.polls:
        return Release(work_id=context.claim.work_id, fence=context.claim.fence)
    interval_ms = milliseconds(context.operation.poll_every)
    return _poll_again(context, interval_ms, "the worker stopped before the answer came", attempt=0)


def _poll_again(context: PollContext, countdown_ms: int, reason: str, *, attempt: int) -> Retry:
    claim, sent = context.claim, context.sent
    return Retry(
        work_id=claim.work_id,
        fence=claim.fence,
        countdown_ms=countdown_ms,
        reason=reason,
        attempt=attempt,
        submits=sent.submits,
        polls=sent.polls,
        fetches=sent.fetches,
    )


def _unknown_id(context: PollContext, error: ProviderError) -> Outcome:
    """Poll again later, until several polls over a while have said it."""
    claim, now_ms = context.claim, context.now_ms
    counts = claim.unknown_since_ms > claim.polled_ms and claim.unknown_since_ms >= claim.submitted_ms
    polls, since_ms = (claim.unknown_polls + 1, claim.unknown_since_ms) if counts else (1, now_ms)
    said_for = (now_ms - since_ms) / 1000
    if polls < UNKNOWN_POLLS or said_for < context.settings.unknown_for or _time_over(context):
        return _retry(context, error, attempt=1, unknown_polls=polls)
    message = f"{error} ({polls} polls in {said_for:.0f} s)"
    return failed(claim, JobError(error.code, message, error.detail), context.sent)


def _time_over(context: PollContext) -> str:
    """Why the job's time is over, or nothing."""
    claim, expiry = context.claim, context.operation.expiry
    if claim.time_left(context.now_ms) <= 0:
        return "the deadline passed"
    if expiry is not None and claim.age(context.now_ms) >= expiry:
        return "the provider's id expired"
    return ""


def _minimum(operation: Operation, asked_s: float | None) -> float:
    """Seconds that must pass between two polls."""
    return max(operation.poll_every, min(asked_s or 0.0, pacing.LONGEST))


def _in_time(context: PollContext, countdown_s: float, minimum_s: float) -> int:
    """The countdown in milliseconds: a last poll comes at the deadline, and one before the external id expires."""
    claim, now_ms = context.claim, context.now_ms
    moments = pacing.moments(context.operation, claim.age(now_ms), claim.time_left(now_ms))
    return ceil_milliseconds(pacing.in_time(countdown_s, minimum_s, moments))


def _expiry_warning(context: PollContext) -> str:
    """The warning that most of the external id's life is over, or nothing; the store takes it once for each job."""
    if context.claim.age(context.now_ms) < _near_expiry(context):
        return ""
    return f"the provider's id expires in {_life_left(context):.0f} s"


def _near_expiry(context: PollContext) -> float:
    """The age in seconds at which most of the external id's life is over, infinity if it has no end."""
    expiry = context.operation.expiry
    return math.inf if expiry is None else expiry * (1 - pacing.NEAR_EXPIRY)


def _life_left(context: PollContext) -> float:
    """Seconds until the external id expires."""
    return (context.operation.expiry or math.inf) - context.claim.age(context.now_ms)
