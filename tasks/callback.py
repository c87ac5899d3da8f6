"""Step 3: an ended job is fanned out to its handlers, one delivery each (`tasks.callback`)."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from outwait.worker.app import app
from outwait.worker.celery.results import TOGETHER
from outwait.worker.engine import pacing, rate_feedback
from outwait.worker.engine.recorder import Recorder
from outwait.worker.engine.runtime import Runtime
from outwait.worker.model import targets
from outwait.worker.model.errors import OperatorError, ProviderError, RateLimited
from outwait.worker.model.jobs import Claim, Job, JobState, Step
from outwait.worker.model.lanes import Lane
from outwait.worker.model.outcomes import Fanout, Outcome, Release, Retry
from outwait.worker.net.redaction import redact
from outwait.worker.providers.contract import Waiting
from outwait.worker.store.reads import Spec

log = logging.getLogger(__name__)

NO_SPEC = Spec({}, (), {})


@app.task(name="tasks.callback", ignore_result=True)
def callback(lane: str, claims: list[Any]) -> None:
    """Fan out a batch of ended jobs."""
    app.runtime.run(Lane.parse(lane), claims, Callback(app.runtime))


class Callback:
    """The callback step for one batch."""

    intent = False

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._settings = runtime.settings
        self._jobs: dict[str, Job] = {}
        self._specs: dict[str, Spec] = {}
        self._results = app.results(runtime.store)

    async def prepare(self, claims: list[Claim], record: Recorder) -> list[Claim]:  # noqa: ARG002 - the step's contract
        """Read what the batch needs, and let Celery's own tools see the ends of its jobs."""
        ids = [claim.work_id for claim in claims]
        reads = self._runtime.store.reads
        self._jobs = {job.id: job for job in await reads.jobs(ids)}
        self._specs = {key: spec for key, spec in zip(ids, await reads.specs(ids), strict=True) if spec}
        if self._settings.events.results or self._settings.events.jobs:
            for start in range(0, len(ids), TOGETHER):
                await self._show([job for job in map(self._jobs.get, ids[start : start + TOGETHER]) if job])
        return claims

    async def run(self, claim: Claim, now: int) -> Sequence[Outcome]:
        """Decide the targets of one job; the provider of a cancelled one is told."""
        try:
            return await self._fan_out(claim, now)
        except asyncio.CancelledError:
            return (Release(work_id=claim.work_id, fence=claim.fence),)
        except Exception as error:
            log.exception("callback-broken", extra={"job": claim.work_id})
            countdown = pacing.backoff(self._settings.callback, claim.attempts)
            return (
                Retry(
                    work_id=claim.work_id,
                    fence=claim.fence,
                    countdown_ms=int(countdown * 1000),
                    reason=redact(f"{type(error).__name__}: {error}"),
                    attempt=1,
                ),
            )

    async def _fan_out(self, claim: Claim, now: int) -> Sequence[Outcome]:
        job = self._jobs[claim.work_id]
        spec = self._specs.get(claim.work_id, NO_SPEC)
        named = spec.targets or targets.route(self._settings.handlers.routes, job.provider, job.operation)
        at_provider = job.state is JobState.CANCELLED and claim.external_id
        told, *aftermath = await self._tell(claim, now) if at_provider else ("",)
        return (
            Fanout(work_id=claim.work_id, fence=claim.fence, targets=tuple(dict.fromkeys(named)), provider_answer=told),
            *aftermath,
        )

    async def _tell(self, claim: Claim, now: int) -> tuple[str, *tuple[Outcome, ...]]:
        """Tell the provider that nobody wants the job any more. That is a courtesy: what fails here is only noted.

        Gives what came of it, and what the governor must hear. Nothing is sent into a silence that holds, or over the
        provider's rate.
        """
        policy = self._runtime.policies.of(Lane.of(Step.POLL, claim.provider))
        governors = self._runtime.store.governors
        (group,) = await governors.status([policy])
        if not group.flows:
            return (f"not told: nothing is sent to {claim.provider} now",)
        if not await governors.take_slot(policy, rate_feedback.request(claim)):
            return (f"not told: the rate of {claim.provider} has no place left",)
        age = (now - claim.submitted_ms) / 1000
        waiting = Waiting(claim.work_id, claim.operation, claim.external_id, claim.memo, age, _no_params)
        exchange, met = self._runtime.exchange(Step.CALLBACK, claim.provider), None
        limits = self._runtime.registry.limits(claim.provider)
        try:
            told = await self._runtime.registry.get(claim.provider).cancel(waiting, exchange)
        except OperatorError as error:
            return (f"{error.code}: {error}", *rate_feedback.rate_feedback(policy, limits, claim, exchange))
        except ProviderError as error:
            met, told = error, f"{error.code}: {error}"
        if isinstance(met, RateLimited):
            rate_feedback.slow_down(exchange, met)
        return (told, *rate_feedback.rate_feedback(policy, limits, claim, exchange, met))

    async def _show(self, jobs: Sequence[Job]) -> None:
        ids = [job.id for job in jobs]
        texts = await self._runtime.store.reads.result_texts(ids)
        if self._results:
            aliases = await self._runtime.store.reads.aliases(ids)
            shown = zip(jobs, aliases, texts, strict=True)
            await self._results.keep([(asked, job, text) for job, also, text in shown for asked in (job.id, *also)])
        for job, text in zip(jobs, texts, strict=True):
            self._runtime.events.ended(job, self._specs.get(job.id, NO_SPEC).params, text)


async def _no_params() -> None:
    """A cancel needs no parameters."""
