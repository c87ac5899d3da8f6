"""Step 3: an ended job is fanned out to its handlers, one delivery each (`tasks.callback`)."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from worker import pacing, targets
from worker.app import app
from worker.events import keep_result
from worker.jobs import Claim, Job
from worker.outcomes import Fanout, Outcome, Release, Retry
from worker.recorder import Recorder
from worker.runtime import Runtime
from worker.store.reads import Spec

log = logging.getLogger(__name__)


@app.task(name="tasks.callback", ignore_result=True)
def callback(lane: str, claims: list[Any]) -> None:
    """Fan out a batch of ended jobs."""
    app.runtime.run(lane, claims, Callback(app.runtime))


class Callback:
    """The callback step for one batch."""

    intent = False

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._settings = runtime.settings
        self._jobs: dict[str, Job] = {}
        self._specs: dict[str, Spec] = {}
        self._aliases: dict[str, set[str]] = {}

    async def prepare(self, claims: list[Claim], record: Recorder) -> list[Claim]:  # noqa: ARG002 - the step's contract
        """Read what the batch needs in three round trips."""
        ids = [claim.item for claim in claims]
        reads = self._runtime.reads
        self._jobs = {job.id: job for job in await reads.many(ids)}
        self._specs = {key: spec for key, spec in zip(ids, await reads.specs(ids), strict=True) if spec}
        self._aliases = dict(zip(ids, await reads.aliases(ids), strict=True))
        return claims

    async def run(self, claim: Claim, now: int) -> Sequence[Outcome]:  # noqa: ARG002 - the step's contract
        """Decide the targets of one job, and let Celery's own tools see its end."""
        try:
            return (await self._fan_out(claim),)
        except asyncio.CancelledError:
            return (Release(claim.item, claim.fence),)
        except Exception as error:
            log.exception("callback-broken", extra={"job": claim.item})
            countdown = pacing.backoff(self._settings.callback, claim.attempts)
            return (Retry(claim.item, claim.fence, int(countdown * 1000), f"{type(error).__name__}: {error}"),)

    async def _fan_out(self, claim: Claim) -> Outcome:
        job = self._jobs[claim.item]
        spec = self._specs.get(claim.item, Spec({}, (), {}))
        await self._show(job, spec)
        named = spec.targets or targets.route(self._settings.handlers.routes, job.provider, job.operation)
        return Fanout(claim.item, claim.fence, tuple(dict.fromkeys(named)))

    async def _show(self, job: Job, spec: Spec) -> None:
        seen = self._settings.events
        if not (seen.results or seen.jobs):
            return
        result = await self._runtime.reads.result(job.id)
        self._runtime.events.ended(job, spec.params, result)
        if seen.results:
            for job_id in (job.id, *self._aliases[job.id]):
                # Celery's result backend is synchronous.
                await asyncio.to_thread(keep_result, app, job_id, job, result)
