"""Does by hand what workers do, so that a test has jobs and deliveries in the states that it wants."""

from outwait.config.settings import Settings
from outwait.worker.engine.lane_policies import Policies
from outwait.worker.model.jobs import Claim, JobError, Step
from outwait.worker.model.lanes import Lane
from outwait.worker.model.outcomes import NO_FENCE, Dead, End, Fanout, Submitted
from outwait.worker.providers.registry import build
from outwait.worker.store import codec
from outwait.worker.store.connection import Connection
from outwait.worker.store.lanes import Lanes, NewJob

SPEC = codec.blob(codec.encode({"params": {}, "targets": [], "metadata": {}}), 1000)


class Hands:
    """One worker."""

    def __init__(self, settings: Settings, connection: Connection) -> None:
        self.lanes = Lanes(connection)
        self.policies = Policies(settings, build(settings.providers))

    async def claim(self, step: Step, name: str = "unless") -> list[Claim]:
        lane = Lane.of(step, name)
        claims = await self.lanes.claim(lane, self.policies.of(lane))
        _, fences = await self.lanes.begin(
            lane, self.policies.of(lane), [(claim.work_id, claim.fence) for claim in claims]
        )
        return [Claim(work_id=claim.work_id, fence=fence) for claim, fence in zip(claims, fences, strict=True)]

    async def enqueue(self, *names: str, provider: str = "unless") -> None:
        jobs = [NewJob(id=name, provider=provider, operation="query", digest="d", spec=SPEC) for name in names]
        await self.lanes.enqueue(jobs)

    async def waiting(self, *names: str) -> None:
        await self.enqueue(*names)
        await self.lanes.record(
            [
                Submitted(
                    work_id=claim.work_id,
                    fence=claim.fence,
                    external_id=f"x-{claim.work_id}",
                    countdown_ms=0,
                    submits=1,
                )
                for claim in await self.claim(Step.SUBMIT)
            ]
        )

    async def dead(self, target: str, *names: str, provider: str = "unless") -> None:
        """Jobs that ended and whose delivery to `target` was given up."""
        await self.enqueue(*names, provider=provider)
        await self.lanes.record([End(work_id=name, fence=NO_FENCE, state="failed") for name in names])
        callbacks = [claim for _ in range(0, len(names), 10) for claim in await self.claim(Step.CALLBACK, "")]
        await self.lanes.record(
            [Fanout(work_id=claim.work_id, fence=claim.fence, targets=(target,)) for claim in callbacks]
        )
        await self.die(target)

    async def die(self, target: str) -> int:
        """Give up every delivery that is due for `target`."""
        count = 0
        while claims := await self.claim(Step.DELIVER, target):
            count += len(claims)
            await self.lanes.record(
                [
                    Dead(work_id=claim.work_id, fence=claim.fence, error=JobError("gone", "no route").text())
                    for claim in claims
                ]
            )
        return count
