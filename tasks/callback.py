"""Step 3: an ended job is fanned out to its handlers, one delivery each (`tasks.callback`)."""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from outwait.config.groups import Route, StepSettings
from outwait.worker.app import app
from outwait.worker.celery.flower_events import FlowerEvents
from outwait.worker.celery.results import TOGETHER, CeleryResults
from outwait.worker.engine import pacing
from outwait.worker.engine.provider_step import ProviderGateway
from outwait.worker.engine.rate_feedback import slot_name
from outwait.worker.engine.recorder import Recorder
from outwait.worker.model import targets
from outwait.worker.model.errors import OperatorError, ProviderError, StoreUnavailable, Withheld
from outwait.worker.model.jobs import TARGETS_MAX, Claim, Job, JobState, Step
from outwait.worker.model.lanes import Lane
from outwait.worker.model.outcomes import Fanout, Outcome, Release, Retry
from outwait.worker.model.owners import Owners
from outwait.worker.model.times import milliseconds
from outwait.worker.net.redaction import redact
from outwait.worker.providers.contract import Waiting
from outwait.worker.store.governors import Governors
from outwait.worker.store.reads import Reads, Spec

log = logging.getLogger(__name__)

NO_SPEC = Spec()


@app.task(name="tasks.callback", ignore_result=True, shared=False)
def callback(lane: str, claims: list[Any]) -> None:
    """Fan out a batch of ended jobs."""
    runtime = app.runtime
    step = Callback(
        settings=runtime.settings.callback,
        routes=runtime.settings.handlers.routes,
        owners=Owners(runtime.settings.handlers.tenants),
        gateway=partial(runtime.gateway, Step.CALLBACK),
        governors=runtime.store.governors,
        reads=runtime.store.reads,
        events=runtime.events if runtime.settings.events.jobs else None,
        results=app.results(runtime.store),
    )
    runtime.run(Lane.parse(lane), claims, step)


@dataclass(kw_only=True)
class Callback:
    """The callback step for one batch. `events` and `results` are None where the settings want none."""

    intent = False
    settings: StepSettings
    routes: Sequence[Route]
    owners: Owners
    gateway: Callable[[str], ProviderGateway]
    governors: Governors
    reads: Reads
    events: FlowerEvents | None
    results: CeleryResults | None
    _jobs: dict[str, Job] = field(default_factory=dict, init=False)
    _specs: dict[str, Spec] = field(default_factory=dict, init=False)

    async def prepare(self, claims: list[Claim], record: Recorder) -> list[Claim]:  # noqa: ARG002 - the step's contract
        """Read what the batch needs, and let Celery's own tools see the ends of its jobs."""
        ids = [claim.work_id for claim in claims]
        self._jobs = {job.id: job for job in await self.reads.listed(ids)}
        self._specs = {key: spec for key, spec in zip(ids, await self.reads.specs(ids), strict=True) if spec}
        if self.results or self.events:
            for start in range(0, len(ids), TOGETHER):
                await self._show([job for job in map(self._jobs.get, ids[start : start + TOGETHER]) if job])
        return claims

    async def run(self, claim: Claim, now_ms: int) -> Sequence[Outcome]:
        """Fan out one job; the provider of a cancelled job is notified."""
        try:
            job = self._jobs[claim.work_id]
            names = self._targets(job)
            if job.state is JobState.CANCELLED and claim.external_id:
                return await self._cancel(claim, names, now_ms)
            return (fan_out(claim, names),)
        except (StoreUnavailable, asyncio.CancelledError) as error:
            return (decide_error(claim, error, self.settings, random.random()),)
        except Exception as error:
            log.exception("callback-broken", extra={"job": claim.work_id})
            return (decide_error(claim, error, self.settings, random.random()),)

    def _targets(self, job: Job) -> tuple[str, ...]:
        asked = self._specs.get(job.id, NO_SPEC).targets[:TARGETS_MAX]  # releases before let refused jobs have more
        return tuple(dict.fromkeys(asked or self._routed(job)))

    def _routed(self, job: Job) -> Sequence[str]:
        """The targets of the job's route, without those that belong to other tenants."""
        routed = targets.route(self.routes, job.provider, job.operation)
        return [target for target in routed if not self.owners.refusal(targets.parse(target), job.tenant)]

    async def _cancel(self, claim: Claim, names: tuple[str, ...], now_ms: int) -> Sequence[Outcome]:
        """Fan out, and tell the provider that nobody wants the job any more if its pauses and its rate allow that."""
        gateway = self.gateway(claim.provider)
        (governor,) = await self.governors.status([gateway.policy])
        if not governor.flows:
            return (fan_out(claim, names, f"not notified: nothing is sent to {claim.provider} now"),)
        if not await self.governors.take_slot(gateway.policy, slot_name(claim)):
            return (fan_out(claim, names, f"not notified: the rate of {claim.provider} has no place left"),)
        age = claim.age(now_ms)
        waiting = Waiting(claim.work_id, claim.operation, claim.external_id, claim.memo, age, _no_params)
        exchange = gateway.new_exchange()
        try:
            outcome = fan_out(claim, names, await gateway.provider.cancel(waiting, exchange))
        except Withheld as withheld:
            return (decide_error(claim, withheld, self.settings, random.random()),)
        except (ProviderError, OperatorError) as raised:
            return (decide_cancel_error(claim, names, raised), *gateway.feedback(claim, exchange, raised))
        return (outcome, *gateway.feedback(claim, exchange, None))

    async def _show(self, jobs: Sequence[Job]) -> None:
        ids = [job.id for job in jobs]
        texts = await self.reads.result_texts(ids)
        if self.results:
            aliases = await self.reads.aliases(ids)
            shown = zip(jobs, aliases, texts, strict=True)
            await self.results.keep(
                [(job_id, job, text) for job, others, text in shown for job_id in (job.id, *others)]
            )
        if self.events:
            for job, text in zip(jobs, texts, strict=True):
                self.events.ended(job, self._specs.get(job.id, NO_SPEC).params, text)


def fan_out(claim: Claim, names: tuple[str, ...], message: str = "") -> Fanout:
    """One delivery for each target. `message` is what came of the cancel at the provider, if there was one."""
    return Fanout(work_id=claim.work_id, fence=claim.fence, targets=names, provider_answer=message)


def decide_cancel_error(claim: Claim, names: tuple[str, ...], error: ProviderError | OperatorError) -> Fanout:
    """What an error of the cancel at the provider means: the cancel is a courtesy, so it is only noted."""
    return fan_out(claim, names, f"{error.code}: {error}")


def decide_error(claim: Claim, error: BaseException, settings: StepSettings, jitter: float) -> Outcome:
    """What any other error means: the callback runs again, without limit. `jitter` is a random number from 0 to 1."""
    if isinstance(error, asyncio.CancelledError | Withheld):
        return Release(work_id=claim.work_id, fence=claim.fence)
    countdown_ms = milliseconds(pacing.backoff(settings, claim.attempts, jitter=jitter))
    reason = redact(f"{type(error).__name__}: {error}")
    return Retry(work_id=claim.work_id, fence=claim.fence, countdown_ms=countdown_ms, reason=reason, attempt=1)


async def _no_params() -> None:
    """A cancel needs no parameters."""
