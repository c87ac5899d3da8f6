"""What producers and people do with jobs: enqueue, look, decide. The command line and the web edge use it."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, NamedTuple, Self
from uuid import uuid4

from config.settings import Settings
from worker import targets
from worker.accept import Acceptance
from worker.errors import Conflict, InvalidRequest, JobNotFound, NotReplayable, RequestError
from worker.jobs import Delivery, DeliveryState, Job, JobError, JobRequest, JobState, Step, TimelineEntry
from worker.outcomes import NO_FENCE, Cancel, Choice, Replay, Resolve, Resume, Suspend
from worker.policies import CALLBACK_LANE, Policies, lane_of
from worker.providers.registry import Registry, build
from worker.store.connection import Connection
from worker.store.dead import DeadDelivery, DeadLetters
from worker.store.endpoints import DisabledEndpoint, Endpoints
from worker.store.governors import Governors, GroupStatus
from worker.store.health import Finding, findings
from worker.store.inbox import Inbox, Parked
from worker.store.lanes import Enqueued as Code
from worker.store.lanes import LanePolicy, Lanes, NewJob, Recorded
from worker.store.reads import LaneStatus, Page, Reads
from worker.webhooks import Receiver


class Enqueued(NamedTuple):
    """A job that the store has. `created` is False if it was there already."""

    job_id: str
    created: bool


class Client:
    """The jobs of one namespace; build and use it inside one event loop.

    Args:
        settings: where the store is.
        registry: the providers, which validate parameters; built from the settings if not given.
    """

    def __init__(self, settings: Settings, registry: Registry | None = None) -> None:
        self._settings = settings
        self._connection = Connection(settings)
        self._lanes = Lanes(self._connection)
        self._reads = Reads(self._connection)
        self._inbox = Inbox(self._connection)
        self._dead = DeadLetters(self._connection)
        self._governors = Governors(self._connection)
        self._endpoints = Endpoints(self._connection)
        self._registry = registry or build(settings.providers)
        self._policies = Policies(settings, self._registry)
        self.webhooks = Receiver(settings, self._registry, self._connection)
        self._acceptance = Acceptance(self._registry, settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.close()

    async def enqueue(self, request: JobRequest, *, job_id: str | None = None, trace: str = "") -> Enqueued:
        """Record a job; `trace` is its `traceparent`. Raises InvalidRequest, Conflict or StoreUnavailable."""
        (answer,) = await self.enqueue_many([(request, job_id)], trace=trace)
        if isinstance(answer, RequestError):
            raise answer
        return answer

    async def enqueue_many(
        self, requests: Sequence[tuple[JobRequest, str | None]], *, trace: str = ""
    ) -> list[Enqueued | RequestError]:
        """Record jobs in one round trip; for each its id, or why it was refused. Raises StoreUnavailable."""
        checked = [self._checked(request, job_id or str(uuid4()), trace) for request, job_id in requests]
        jobs = [job for job in checked if isinstance(job, NewJob)]
        codes = iter(await self._lanes.enqueue(jobs) if jobs else [])
        return [self._answer(job, *next(codes)) if isinstance(job, NewJob) else job for job in checked]

    async def job(self, job_id: str) -> Job:
        """The job as it stands. Raises JobNotFound."""
        return await self._reads.job(job_id)

    async def jobs(
        self,
        *,
        state: JobState | None = None,
        provider: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """Jobs, newest first, created between `since` and `until` (seconds since 1970)."""
        return await self._reads.jobs(
            state=state, provider=provider, since=since, until=until, limit=limit, cursor=cursor
        )

    async def params(self, job_id: str) -> dict[str, Any]:
        """What the producer asked for. Raises JobNotFound."""
        (spec,) = await self._reads.specs([await self._reads.resolve(job_id)])
        if spec is None:
            raise JobNotFound(f"no job has the id {job_id!r}, or it was purged after its retention")
        return spec.params

    async def result(self, job_id: str) -> Any:
        """The result as JSON data. Raises JobNotFound, or InvalidRequest while there is none."""
        job = await self.job(job_id)
        if not job.state.ended:
            raise InvalidRequest(f"job {job_id} has not ended: it is {job.state}")
        if job.state is not JobState.SUCCEEDED:
            why = f"{job.error.code}: {job.error.message}" if job.error else "no reason recorded"
            raise InvalidRequest(f"job {job_id} has no result: it {job.state} ({why})")
        return await self._reads.result(job.id)

    async def timeline(self, job_id: str) -> list[TimelineEntry]:
        """What happened to a job, oldest first. Raises JobNotFound."""
        return await self._reads.timeline((await self.job(job_id)).id)

    async def deliveries(self, job_id: str) -> list[Delivery]:
        """The job's deliveries. Raises JobNotFound."""
        return await self._reads.deliveries((await self.job(job_id)).id)

    async def dead(
        self,
        limit: int = 50,
        *,
        target: str | None = None,
        provider: str | None = None,
        since: float | None = None,
    ) -> list[DeadDelivery]:
        """Deliveries that were given up since then (seconds since 1970), newest first. Raises InvalidRequest."""
        found: list[DeadDelivery] = []
        async with aclosing(self._dead_pages(target, provider, since)) as pages:
            async for page in pages:
                found += page
                if len(found) >= limit:
                    break
        return found[:limit]

    async def replay(self, job_id: str, target: str | None = None) -> int:
        """Repeat a job's dead deliveries, or those to `target` however they ended; never the submit.

        Returns:
            How many deliveries were made pending again.

        Raises:
            InvalidRequest: `target` is none.
            JobNotFound: no such job.
            NotReplayable: nothing of it can be delivered again.
        """
        target = target and targets.canonical(targets.parse(target))
        deliveries = await self.deliveries(job_id)
        wanted = [one for one in deliveries if _replayable(one, target)]
        if not wanted:
            raise NotReplayable(_why_not(job_id, deliveries, target))
        return await self._repeat(wanted)

    async def replay_all(
        self, *, target: str | None = None, provider: str | None = None, since: float | None = None
    ) -> int:
        """Repeat everything that is dead now, or what of it is to `target`, of `provider` or died since then.

        Returns:
            How many deliveries were made pending again.

        Raises:
            InvalidRequest: `target` or `provider` is none.
        """
        return sum([await self._repeat(page) async for page in self._dead_pages(target, provider, since)])

    async def cancel(self, job_id: str, reason: str = "cancelled by a person") -> bool:
        """Give a job up; its provider is told, where it can be.

        Returns:
            True if it is cancelled, False if that waits for the answer of a submit that is on its way.

        Raises:
            JobNotFound: no such job.
            InvalidRequest: it has ended already.
        """
        job = await self.job(job_id)
        error = JobError("cancelled", reason).text()
        ((code,), _) = await self._lanes.record([Cancel(job.id, NO_FENCE, error)])
        if code <= 0:
            raise InvalidRequest(f"job {job_id} cannot be cancelled: it has ended ({(await self.job(job_id)).state})")
        return code is Recorded.WRITTEN

    async def resolve(self, job_id: str, choice: Choice, external_id: str = "") -> None:
        """Decide about an uncertain job. `external_id` goes with SUBMITTED_AS.

        Raises:
            JobNotFound: no such job.
            InvalidRequest: it is not uncertain, the external id is missing, or no webhook says how it ended.
        """
        job = await self.job(job_id)
        if (choice is Choice.SUBMITTED_AS) is not bool(external_id):
            raise InvalidRequest("an external id goes with submitted-as, and only with it")
        error = JobError("uncertain", "submitted, perhaps; a person decided to fail it").text()
        ending = await self.webhooks.ending(job) if choice is Choice.AS_WEBHOOK else None
        outcome = Resolve(job.id, NO_FENCE, choice, error if choice is Choice.FAIL else external_id, ending)
        ((code,), _) = await self._lanes.record([outcome])
        if code is not Recorded.WRITTEN:
            state = (await self.job(job_id)).state
            raise InvalidRequest(f"job {job_id} is not uncertain but {state}: there is nothing to decide")

    async def providers(self) -> list[GroupStatus]:
        """What the governor lets through, provider by provider, and why not more."""
        return await self._governors.status([self._group(name) for name in self._registry.names])

    async def pause(self, provider: str, reason: str = "") -> None:
        """Send nothing more to a provider until a person resumes it. Raises InvalidRequest if there is none such."""
        await self._lanes.record([Suspend(self._group(provider).group, NO_FENCE, reason)])

    async def resume(self, provider: str) -> bool:
        """Let a provider go on; whether a person had paused it. Raises InvalidRequest if there is none such."""
        policy = self._group(provider)
        ((code,), _) = await self._lanes.record([Resume(policy.group, NO_FENCE, policy.lanes)])
        return code is Recorded.WRITTEN

    async def disabled_endpoints(self) -> list[DisabledEndpoint]:
        """Receivers of webhooks that answered 410 Gone, the newest first: nothing is sent to them."""
        return await self._endpoints.all()

    async def enable(self, endpoint: str) -> bool:
        """Let a receiver (its URL in canonical form, without query) be sent to again; whether it was disabled."""
        return await self._endpoints.enable(endpoint)

    async def counts(self) -> dict[str, dict[str, int]]:
        """How many jobs stand in each state, by provider."""
        return await self._reads.counts()

    async def lanes(self) -> list[LaneStatus]:
        """What stands in each lane that has anything."""
        named = await self._reads.active_lanes()
        return await self._reads.lanes(sorted({CALLBACK_LANE, *named}))

    async def parked(self, limit: int = 50) -> list[Parked]:
        """Producers' messages that could be no job, newest first."""
        return await self._inbox.parked(limit)

    async def misdirected(self) -> int:
        """Jobs among the newest messages of Celery's default queue, which nobody reads: their producer named none."""
        return await self._inbox.strays() if self._settings.broker_is_redis else 0

    async def check(self) -> list[Finding]:
        """Whether this Redis can be trusted. Raises StoreUnavailable."""
        return await findings(self._connection)

    def _group(self, provider: str) -> LanePolicy:
        return self._policies.of(lane_of(Step.SUBMIT, provider))

    async def _dead_pages(
        self, target: str | None, provider: str | None, since: float | None
    ) -> AsyncGenerator[list[DeadDelivery], None]:
        target = target and targets.canonical(targets.parse(target))
        if provider is not None:
            self._group(provider)  # a misspelt one is told, not taken for one without dead deliveries
        async for page in self._dead.pages(since):
            yield [one for one in page if target in (None, one.target) and provider in (None, one.provider)]

    async def _repeat(self, deliveries: Sequence[Delivery]) -> int:
        codes, _ = await self._lanes.record([Replay(one.id, NO_FENCE) for one in deliveries])
        return sum(code > 0 for code in codes)

    def _checked(self, request: JobRequest, job_id: str, trace: str) -> NewJob | RequestError:
        try:
            return self._acceptance.job(job_id, request, trace=trace)
        except RequestError as error:
            return error

    @staticmethod
    def _answer(job: NewJob, code: Code, job_id: str) -> Enqueued | RequestError:
        match code:
            case Code.CREATED:
                return Enqueued(job_id, created=True)
            case Code.SAME:
                return Enqueued(job_id, created=False)
            case Code.CONFLICT:
                given = f"job id {job.id!r}" if job_id == job.id else f"idempotency key {job.key!r}"
                return Conflict(f"{given} belongs to job {job_id}, which asks for something else; use a new one")


def _replayable(delivery: Delivery, target: str | None) -> bool:
    if target is None:
        return delivery.state is DeliveryState.DEAD
    return delivery.target == target and delivery.state is not DeliveryState.PENDING


def _why_not(job_id: str, deliveries: Sequence[Delivery], target: str | None) -> str:
    if not deliveries:
        return f"job {job_id} has no deliveries: it has not ended yet, or it names no target and no route matches it"
    states = ", ".join(f"{one.target} is {one.state}" for one in deliveries)
    return (
        f"job {job_id}: nothing to replay for {target}; {states}"
        if target
        else (f"job {job_id} has no dead delivery ({states}); name a target to repeat a delivered one")
    )
