"""The client's side that speaks to the store. The command line and the web edge use it directly."""

import getpass
import socket
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from copy import copy
from types import TracebackType
from typing import Any, NamedTuple, Self, Unpack
from uuid import uuid4

from outwait.config.settings import Settings
from outwait.worker.engine.acceptance import Acceptance
from outwait.worker.engine.lane_policies import Policies
from outwait.worker.engine.provider_webhooks import WebhookProcessor
from outwait.worker.engine.quotas import quota_error
from outwait.worker.engine.replays import DeadFilter, DeadPage, Replays
from outwait.worker.model.acts import Act, ActKind, Actor, Via
from outwait.worker.model.errors import Conflict, ExternalIdTaken, InvalidRequest, JobNotFound, RequestError, WrongState
from outwait.worker.model.external_ids import is_external_id
from outwait.worker.model.jobs import Delivery, Job, JobError, JobRequest, JobState, Step, TimelineEntry
from outwait.worker.model.lanes import CALLBACK, Lane
from outwait.worker.model.outcomes import Cancel, Choice, Repoll, Resolve, Resume, Suspend
from outwait.worker.model.times import milliseconds
from outwait.worker.providers.registry import Registry, build
from outwait.worker.store.codes import EnqueueResult, Recorded
from outwait.worker.store.dead import DeadDelivery
from outwait.worker.store.governors import GroupStatus
from outwait.worker.store.health import Finding, is_unusable
from outwait.worker.store.inbox import Parked
from outwait.worker.store.lanes import LanePolicy, NewJob
from outwait.worker.store.listing import Filter, Page
from outwait.worker.store.orphans import Orphan
from outwait.worker.store.reads import LaneStatus
from outwait.worker.store.receivers import DisabledReceiver
from outwait.worker.store.store import Store
from outwait.worker.store.watch import Watch

READ_AT_ONCE = 500
"""Jobs that one round trip reads."""


def local_actor(via: Via) -> Actor:
    """The user of the system who runs this process."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user may have no name
        user = "unknown"
    return Actor(who=user, via=via, address=socket.gethostname())


class Enqueued(NamedTuple):
    """A job that the store has. `created` is False if it was there already."""

    job_id: str
    created: bool


class StoreClient:
    """The jobs of one namespace; build and use it inside one event loop.

    Args:
        settings: where the store is.
        registry: the providers, which validate parameters; built from the settings if not given.
        actor: the person who decides, for the audit trail; by default the user of the system.
    """

    def __init__(self, settings: Settings, registry: Registry | None = None, actor: Actor | None = None) -> None:
        self._settings = settings
        self._actor = actor or local_actor(Via.CLIENT)
        self._store = Store.open(settings)
        self._registry = registry or build(settings.providers)
        self._policies = Policies(settings, self._registry)
        self._replays = Replays(self._store, self._registry)
        self.webhooks = WebhookProcessor(self._store, self._registry)
        self._acceptance = Acceptance(self._registry, settings, self._store.handlers.missing)
        self._watch: Watch | None = None
        self._watches = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._watches.aclose()
        await self._store.close()

    def acting(self, actor: Actor) -> Self:
        """The same client, for what this person decides."""
        acting = copy(self)
        acting._actor = actor  # noqa: SLF001 - it is one of us
        return acting

    async def enqueue(self, request: JobRequest, *, job_id: str | None = None, trace: str = "") -> Enqueued:
        """Record a job; `trace` is its `traceparent`.

        Raises InvalidRequest, Conflict, QuotaExceeded, StoreUnfit or StoreUnavailable.
        """
        (answer,) = await self.enqueue_many([(request, job_id)], trace=trace)
        if isinstance(answer, RequestError):
            raise answer
        return answer

    async def enqueue_many(
        self, requests: Sequence[tuple[JobRequest, str | None]], *, trace: str = ""
    ) -> list[Enqueued | RequestError]:
        """Record jobs in one round trip; for each its id, or why it was refused.

        Raises StoreUnfit or StoreUnavailable.
        """
        unknown = await self._acceptance.unknown_handlers(*(request.targets for request, _ in requests))
        checked = [self._checked(request, job_id or str(uuid4()), trace, unknown) for request, job_id in requests]
        jobs = [job for job in checked if isinstance(job, NewJob)]
        if jobs:
            await self._store.health.require_fit_once()
        codes = iter(await self._store.lanes.enqueue(jobs) if jobs else [])
        return [self._answer(job, *next(codes)) if isinstance(job, NewJob) else job for job in checked]

    async def job(self, job_id: str) -> Job:
        """The job as it stands. Raises JobNotFound."""
        return await self._store.reads.job(job_id)

    async def named(self, job_ids: Sequence[str]) -> list[Job]:
        """These jobs as a list shows them, in few round trips. Raises JobNotFound if one of them is not stored."""
        jobs: dict[str, Job] = {}
        for start in range(0, len(job_ids), READ_AT_ONCE):
            jobs.update({job.id: job for job in await self._store.reads.listed(job_ids[start : start + READ_AT_ONCE])})
        return [jobs.get(job_id) or await self.job(job_id) for job_id in job_ids]  # an alias is no job's own id

    async def end_of(self, job_id: str, seconds: float) -> Job:
        """The job as soon as it has ended, or as it stands after so many seconds. Raises JobNotFound."""
        if self._watch is None:
            self._watch = await self._watches.enter_async_context(Watch(self._settings))
        return await self._watch.end_of(job_id, self.job, seconds)

    async def jobs(self, *, limit: int = 50, cursor: str | None = None, **filters: Unpack[Filter]) -> Page:
        """Jobs, newest first, page by page. Raises InvalidRequest if the cursor is none."""
        return await self._store.listing.page(limit, cursor, **filters)

    async def params(self, job_id: str) -> dict[str, Any]:
        """What the producer asked for. Raises JobNotFound."""
        (spec,) = await self._store.reads.specs([await self._store.reads.resolve(job_id)])
        if spec is None:
            raise JobNotFound(f"no job has the id {job_id!r}, or it was purged after its retention")
        return spec.params

    async def result(self, job_id: str) -> Any:
        """The result as JSON data. Raises JobNotFound, or WrongState where there is none."""
        job = await self.job(job_id)
        if not job.state.ended:
            raise WrongState(f"job {job_id} has not ended: it is {job.state}")
        if job.state is not JobState.SUCCEEDED:
            why = f"{job.error.code}: {job.error.message}" if job.error else "no reason recorded"
            raise WrongState(f"job {job_id} has no result: it {job.state} ({why})")
        return await self._store.reads.result(job.id)

    async def timeline(self, job_id: str) -> list[TimelineEntry]:
        """What happened to a job, oldest first. Raises JobNotFound."""
        return await self._store.reads.timeline((await self.job(job_id)).id)

    async def deliveries(self, job_id: str) -> list[Delivery]:
        """The job's deliveries. Raises JobNotFound."""
        return await self._store.reads.deliveries((await self.job(job_id)).id)

    async def dead(self, limit: int = 50, **filters: Unpack[DeadFilter]) -> list[DeadDelivery]:
        """Deliveries that were given up, newest first. Raises InvalidRequest if `target` or `provider` is invalid."""
        return (await self.dead_page(limit, **filters)).deliveries

    async def dead_page(self, limit: int, cursor: str | None = None, **filters: Unpack[DeadFilter]) -> DeadPage:
        """One page of them. Raises InvalidRequest also if `cursor` is invalid."""
        return await self._replays.dead(limit, cursor, **filters)

    async def replay(self, job_id: str, target: str | None = None) -> int:
        """Repeat a job's dead deliveries, or those to `target` however they ended; never the submit.

        Returns:
            How many deliveries were made pending again.

        Raises:
            InvalidRequest: `target` is none.
            JobNotFound: no such job.
            NotReplayable: nothing of it can be delivered again.
        """
        act = self._actor.act(ActKind.REPLAY, detail=target or "")
        return await self._replays.of_job((await self.job(job_id)).id, target, act=act)

    async def replay_all(self, **filters: Unpack[DeadFilter]) -> int:
        """Repeat everything that is dead now, or what matches the filters.

        Returns:
            How many deliveries were made pending again.

        Raises:
            InvalidRequest: `target` or `provider` is none.
        """
        words = ", ".join(f"{name}={value}" for name, value in filters.items() if value is not None)
        return await self._replays.all(
            self._actor.act(ActKind.REPLAY, about="dead deliveries", detail=words), **filters
        )

    async def cancel(self, job_id: str, reason: str = "cancelled by a person") -> bool:
        """Give a job up; its provider is notified, where it can be.

        Returns:
            True if it is cancelled, False if that waits for the answer of a submit that is on its way.

        Raises:
            JobNotFound: no such job.
            WrongState: it has ended already.
        """
        job = await self.job(job_id)
        error = JobError("cancelled", reason).text()
        ((code,), _) = await self._store.lanes.record(
            [Cancel(work_id=job.id, error=error, act=self._actor.act(ActKind.CANCEL, detail=reason))]
        )
        if code <= 0:
            raise WrongState(f"job {job_id} cannot be cancelled: it has ended ({(await self.job(job_id)).state})")
        return code is Recorded.WRITTEN

    async def resolve(self, job_id: str, choice: Choice, external_id: str = "") -> None:
        """Decide about an uncertain job. `external_id` goes with SUBMITTED_AS.

        Raises:
            JobNotFound: no such job.
            WrongState: it is not uncertain.
            InvalidRequest: the external id is missing, or no webhook says how it ended.
            ExternalIdTaken: another job has the external id.
        """
        job = await self.job(job_id)
        if (choice is Choice.SUBMITTED_AS) is not bool(external_id):
            raise InvalidRequest("an external id goes with submitted-as, and only with it")
        if external_id and not is_external_id(external_id):
            raise InvalidRequest("this is no external id: up to 500 printable characters, without control characters")
        error = JobError("uncertain", "the provider may have the job; a person decided to fail it").text()
        ending = await self.webhooks.last_end(job) if choice is Choice.AS_WEBHOOK else None
        outcome = Resolve(
            work_id=job.id,
            choice=choice,
            detail=error if choice is Choice.FAIL else external_id,
            end_outcome=ending,
            act=self._actor.act(ActKind.RESOLVE, detail=f"{choice} {external_id}".strip()),
        )
        if choice is Choice.SUBMITTED_AS:
            await self._store.lanes.caught_up()
        ((code,), _) = await self._store.lanes.record([outcome])
        if code is Recorded.TAKEN:
            raise ExternalIdTaken(
                f"another job of {job.provider} has the external id {external_id!r}, and its result is that job's: "
                f"give the id under which the provider has job {job_id}, or choose resubmit or fail"
            )
        if code is not Recorded.WRITTEN:
            state = (await self.job(job_id)).state
            raise WrongState(f"job {job_id} is not uncertain but {state}: there is nothing to decide")

    async def repoll(self, job_id: str) -> None:
        """Have a job polled again that ended without a result. Nothing is submitted, and nothing is paid.

        It gets as much time again as it had, and its next end is delivered to every target.

        Raises:
            JobNotFound: no such job.
            WrongState: it has not ended, it has a result, or the provider never took it.
        """
        job = await self.job(job_id)
        if job.submitted is None and job.external_id is None:
            raise WrongState(f"job {job_id} cannot be polled: its provider never took it (it is {job.state})")
        interval_ms = milliseconds(self._registry.longest_interval(job.provider))
        ((code,), _) = await self._store.lanes.record(
            [Repoll(work_id=job.id, min_interval_ms=interval_ms, act=self._actor.act(ActKind.REPOLL))]
        )
        if code is not Recorded.WRITTEN:
            state = (await self.job(job_id)).state
            why = "it has its result" if state is JobState.SUCCEEDED else "it has not ended"
            raise WrongState(f"job {job_id} cannot be polled again: {why} ({state})")

    async def providers(self) -> list[GroupStatus]:
        """What the governor lets through, provider by provider, and why not more."""
        return await self._store.governors.status([self._submit_policy(name) for name in self._registry.names])

    async def pause(self, provider: str, reason: str = "") -> None:
        """Send nothing more to a provider until a person resumes it. Raises InvalidRequest for an unknown provider."""
        name = self._submit_policy(provider).provider
        act = self._actor.act(ActKind.PAUSE, about=name, detail=reason)
        await self._store.lanes.record([Suspend(provider=name, reason=reason, by=self._actor.words, act=act)])

    async def resume(self, provider: str) -> bool:
        """Let a provider go on; whether it was paused, by a person or by its own answer.

        Raises InvalidRequest for an unknown provider.
        """
        policy = self._submit_policy(provider)
        ((code,), _) = await self._store.lanes.record(
            [Resume(provider=policy.provider, act=self._actor.act(ActKind.RESUME, about=policy.provider))]
        )
        return code is Recorded.WRITTEN

    async def disabled_receivers(self) -> list[DisabledReceiver]:
        """Receivers of webhooks that answered 410 Gone, the newest first, each with the tenant to whose result."""
        return await self._store.receivers.all()

    async def enable(self, receiver: str, tenant: str | None = None) -> bool:
        """Let a tenant's results be sent to a receiver again; whether it was disabled for that tenant.

        Args:
            receiver: its URL in canonical form, without the query.
            tenant: None for jobs without a tenant.
        """
        was_disabled = await self._store.receivers.enable(receiver, tenant)
        await self.note(ActKind.ENABLE_RECEIVER, about=receiver, detail=f"of tenant {tenant}" if tenant else "")
        return was_disabled

    async def note(self, what: ActKind, *, about: str = "", detail: str = "") -> None:
        """Store in the audit trail what was done in another way than by a method of this client."""
        await self._store.audit.write(self._actor.act(what, about=about, detail=detail))

    async def acts(
        self, limit: int = 50, *, tenant: str | None = None, job: str | None = None, until: float | None = None
    ) -> list[Act]:
        """What persons did, newest first. Raises JobNotFound."""
        job_id = (await self.job(job)).id if job is not None else None
        return await self._store.audit.newest(limit, tenant=tenant, job=job_id, until=until)

    async def counts(self) -> dict[str, dict[str, int]]:
        """How many jobs stand in each state, by provider."""
        return await self._store.reads.counts()

    async def lanes(self) -> list[LaneStatus]:
        """What stands in the backlog of deliveries, and in each lane that has anything; of `LANES_SHOWN` at most."""
        reads = self._store.reads
        named = await reads.active_lanes()
        return [await reads.backlog(), *await reads.lanes(sorted({CALLBACK, *named}, key=str))]

    async def unserved(self) -> list[LaneStatus]:
        """Lanes with due work that no running worker serves: none has the credentials, or the handler."""
        return await self._store.reads.lanes(await self._store.lanes.unserved())

    async def parked(self, limit: int = 50) -> list[Parked]:
        """Producers' messages that could be no job, newest first."""
        return await self._store.inbox.parked(limit)

    async def orphans(self, limit: int = 50) -> list[Orphan]:
        """Answers that were paid for and that no job is there for, newest first."""
        return await self._store.orphans.newest(limit)

    async def misdirected(self) -> int:
        """Jobs among the newest messages of Celery's default queue, which nobody reads: their producer named none."""
        return await self._store.inbox.strays() if self._settings.broker_is_redis else 0

    async def check(self) -> list[Finding]:
        """Whether this Redis can be trusted. Raises StoreUnavailable."""
        health = self._store.health
        findings = await health.findings()
        if is_unusable(findings):
            return findings
        return [*findings, await health.writes(), *await health.key_types()]

    def _submit_policy(self, provider: str) -> LanePolicy:
        return self._policies.of(Lane.of(Step.SUBMIT, provider))

    def _checked(self, request: JobRequest, job_id: str, trace: str, unknown: Collection[str]) -> NewJob | RequestError:
        try:
            return self._acceptance.job(job_id, request, trace=trace, unknown=unknown)
        except RequestError as error:
            return error

    @staticmethod
    def _answer(job: NewJob, code: EnqueueResult, job_id: str) -> Enqueued | RequestError:
        match code:
            case EnqueueResult.CREATED:
                return Enqueued(job_id, created=True)
            case EnqueueResult.SAME:
                return Enqueued(job_id, created=False)
            case EnqueueResult.CONFLICT:
                given = f"job id {job.id!r}" if job_id == job.id else f"idempotency key {job.key!r}"
                return Conflict(f"{given} belongs to job {job_id}, which asks for something else; use a new one")
            case EnqueueResult.OVER_QUOTA:
                return quota_error(job.tenant, job_id)
