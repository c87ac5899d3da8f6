"""Step 2: submitted jobs are asked for until they end (`tasks.poll`); an unfinished one gets its next countdown."""

import asyncio
import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from outwait.worker.app import app
from outwait.worker.engine import pacing, rate_feedback
from outwait.worker.engine.end_outcome import end_outcome
from outwait.worker.engine.recorder import Recorder
from outwait.worker.engine.runtime import Runtime
from outwait.worker.model.errors import (
    AnswerLost,
    ExternalIdUnknown,
    NotSent,
    ProviderError,
    RateLimited,
    Rejected,
    ResultTooLarge,
    StoreUnavailable,
    Unauthorized,
    Unavailable,
    Unreadable,
)
from outwait.worker.model.jobs import Claim, JobError, Step
from outwait.worker.model.lanes import Lane
from outwait.worker.model.outcomes import Counts, Outcome, Release, Retry, Wait, expired, failed
from outwait.worker.net.redaction import redact
from outwait.worker.providers.contract import Failed, Operation, Pending, PollAnswer, Succeeded, Waiting
from outwait.worker.providers.exchange import Count, Exchange

log = logging.getLogger(__name__)

YOUNG = 60.0
"""Seconds after the submit in which an unknown external id may yet become known."""


@app.task(name="tasks.poll", ignore_result=True)
def poll(lane: str, claims: list[Any]) -> None:
    """Poll a batch of claimed jobs of one provider."""
    app.runtime.run(Lane.parse(lane), claims, Poll(app.runtime, Lane.parse(lane)))


class Poll:
    """The poll step for one batch of one provider."""

    intent = False

    def __init__(self, runtime: Runtime, lane: Lane) -> None:
        self._runtime = runtime
        self._policy = runtime.policies.of(lane)
        self._settings = runtime.settings.poll
        self._name = lane.name
        self._limits = runtime.registry.limits(self._name)

    async def prepare(self, claims: list[Claim], record: Recorder) -> list[Claim]:  # noqa: ARG002 - the step's contract
        """Nothing precedes a poll."""
        return claims

    async def run(self, claim: Claim, now: int) -> Sequence[Outcome]:
        """Ask for one job."""
        exchange = self._runtime.exchange(Step.POLL, self._name)
        met: ProviderError | None = None
        try:
            answer = await self._ask(claim, now, exchange)
            outcome = self.learn(claim, now, exchange, answer)
        except asyncio.CancelledError:
            outcome = self._stopped(claim, exchange)
        except ProviderError as error:
            met = error
            outcome = self.decide(claim, now, exchange, error)
        except Exception as error:
            log.exception("poll-broken", extra={"job": claim.work_id, "provider": self._name})
            outcome = self._again(claim, now, exchange, AnswerLost(redact(f"{type(error).__name__}: {error}")))
        if isinstance(outcome, Wait) and self._runtime.events.polls_shown():
            await self._show(claim)
        return (outcome, *rate_feedback.rate_feedback(self._policy, self._limits, claim, exchange, met))

    def learn(self, claim: Claim, now: int, exchange: Exchange, answer: PollAnswer) -> Outcome:
        """What an answer means for the job."""
        counts = _counts(exchange)
        match answer:
            case Pending():
                return self._wait(claim, now, counts, answer)
            case Succeeded() | Failed():
                return end_outcome(claim.work_id, claim.fence, answer, self._runtime.settings.store, counts)

    def decide(self, claim: Claim, now: int, exchange: Exchange, error: ProviderError) -> Outcome:
        """What an error means for a poll: the job is paid for, so go on asking wherever that may help."""
        match error:
            case RateLimited():
                rate_feedback.slow_down(exchange, error)
                return self._again(claim, now, exchange, error, attempt=0)
            case ExternalIdUnknown() if now - claim.submitted_ms > YOUNG * 1000:
                return self._gone(claim, now, exchange, error)
            case Rejected() | ResultTooLarge():
                return failed(claim, JobError(error.code, str(error), error.detail), _counts(exchange))
            case NotSent() | AnswerLost() | Unavailable() | Unreadable() | Unauthorized() | ExternalIdUnknown():
                return self._again(claim, now, exchange, error)
            case _:
                return self._again(claim, now, exchange, error)

    async def _ask(self, claim: Claim, now: int, exchange: Exchange) -> PollAnswer:
        registry = self._runtime.registry

        async def params() -> Any:
            return registry.validate(self._name, claim.operation, await self._params(claim))

        age = (now - claim.submitted_ms) / 1000
        waiting = Waiting(claim.work_id, claim.operation, claim.external_id, claim.memo, age, params)
        return await registry.get(self._name).poll(waiting, exchange)

    async def _show(self, claim: Claim) -> None:
        """Let Celery's own tools see that the job still waits. Nothing that happens here changes its outcome."""
        with suppress(StoreUnavailable, asyncio.CancelledError):
            self._runtime.events.polled(claim, await self._params(claim))

    async def _params(self, claim: Claim) -> dict[str, Any]:
        (spec,) = await self._runtime.store.reads.specs([claim.work_id])
        return spec.params if spec else {}

    def _wait(self, claim: Claim, now: int, counts: Counts, answer: Pending) -> Outcome:
        operation = self._operation(claim)
        over = self._over(claim, now, operation)
        if over:
            return expired(claim, f"{over}; the provider's last status was {answer.status}", counts)
        countdown = self._countdown(claim, now, answer.poll_in)
        hurried = 0
        if answer.safety is not None:
            hurried = countdown
            countdown = self._countdown(claim, now, answer.poll_in, answer.safety)
        return Wait(
            work_id=claim.work_id,
            fence=claim.fence,
            countdown_ms=countdown,
            status=answer.status,
            memo=answer.memo,
            polls=counts.polls,
            fetches=counts.fetches,
            warning=answer.warning or "",
            webhook_countdown_ms=hurried,
            expiry_warning=_near_expiry(claim, now, operation),
        )

    def _countdown(self, claim: Claim, now: int, asked: float | None, safety: float = 0.0) -> int:
        """Milliseconds until the next poll.

        Args:
            claim: the job.
            now: Redis's time in milliseconds.
            asked: seconds that it must wait at least.
            safety: seconds that it should wait, unless the job's deadline comes before.
        """
        operation = self._operation(claim)
        durations = self._runtime.durations(self._name, claim.operation)
        usual = pacing.poll_countdown(operation.poll_every, asked, (now - claim.submitted_ms) / 1000, durations)
        least = max(operation.poll_every, min(asked or 0.0, pacing.LONGEST))
        return _in_time(claim, now, operation, max(usual, safety), least)

    def _gone(self, claim: Claim, now: int, exchange: Exchange, error: ProviderError) -> Outcome:
        expiry = self._operation(claim).expiry
        if expiry is not None and now - claim.submitted_ms >= expiry * 1000:
            return expired(claim, "the provider's id expired before the result was read", _counts(exchange))
        return failed(claim, JobError(error.code, str(error), error.detail), _counts(exchange))

    def _stopped(self, claim: Claim, exchange: Exchange) -> Outcome:
        """The worker ends before the answer came. Whoever polls next keeps the provider's interval."""
        if not exchange.ledger[Count.POLLS]:
            return Release(work_id=claim.work_id, fence=claim.fence)
        wait, counts = int(self._operation(claim).poll_every * 1000), _counts(exchange)
        return Retry(
            work_id=claim.work_id,
            fence=claim.fence,
            countdown_ms=wait,
            reason="the worker stopped before the answer came",
            attempt=0,
            **counts._asdict(),
        )

    def _again(self, claim: Claim, now: int, exchange: Exchange, error: ProviderError, *, attempt: int = 1) -> Outcome:
        operation = self._operation(claim)
        counts = _counts(exchange)
        over = self._over(claim, now, operation)
        if over:
            return expired(claim, f"{over}; the last poll failed: {error}", counts)
        if claim.attempts + attempt >= self._settings.attempts:
            told = JobError(error.code, f"gave up after {claim.attempts + attempt} failed polls: {error}", error.detail)
            return failed(claim, told, counts)
        least = max(operation.poll_every, min(error.retry_after or 0.0, pacing.LONGEST))
        wait = max(pacing.backoff(self._settings, claim.attempts, error.retry_after), least)
        countdown = _in_time(claim, now, operation, wait, least)
        return Retry(
            work_id=claim.work_id,
            fence=claim.fence,
            countdown_ms=countdown,
            reason=f"{error.code}: {error}",
            attempt=attempt,
            **counts._asdict(),
        )

    def _operation(self, claim: Claim) -> Operation:
        return self._runtime.registry.operation(self._name, claim.operation)

    def _over(self, claim: Claim, now: int, operation: Operation) -> str:
        """Why the job's time is over, or nothing."""
        if claim.deadline_ms and now >= claim.deadline_ms:
            return "the deadline passed"
        if operation.expiry is not None and now - claim.submitted_ms >= operation.expiry * 1000:
            return "the provider's id expired"
        return ""


def _in_time(claim: Claim, now: int, operation: Operation, countdown: float, least: float) -> int:
    """The countdown in milliseconds: a last poll comes at the deadline, and one before the external id expires."""
    left = (claim.deadline_ms - now) / 1000 if claim.deadline_ms else math.inf
    moments = pacing.moments(operation, (now - claim.submitted_ms) / 1000, left)
    return math.ceil(pacing.in_time(countdown, least, moments) * 1000)


def _near_expiry(claim: Claim, now: int, operation: Operation) -> str:
    """What to warn of once most of the external id's life is over; the store takes it once for each job."""
    if operation.expiry is None:
        return ""
    near = claim.submitted_ms + operation.expiry * (1 - pacing.NEAR_EXPIRY) * 1000
    if now < near:
        return ""
    left = (claim.submitted_ms - now) / 1000 + operation.expiry
    if claim.polled_ms < near:
        log.warning("external-id-expires", extra={"job": claim.work_id, "seconds": round(left)})
    return f"the provider's id expires in {left:.0f} s"


def _counts(exchange: Exchange) -> Counts:
    return Counts(polls=exchange.ledger[Count.POLLS], fetches=exchange.ledger[Count.FETCHES])
