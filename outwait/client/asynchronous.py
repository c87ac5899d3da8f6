"""`AsyncClient`: jobs from any program, the same over Redis and over HTTP."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypedDict, Unpack

from pydantic import ValidationError

from outwait.client.http import HttpClient
from outwait.client.store import Enqueued, StoreClient
from outwait.config.settings import load_settings
from outwait.worker.engine.replays import DeadFilter
from outwait.worker.model.errors import InvalidRequest, RequestError, StoreUnavailable, WrongState
from outwait.worker.model.jobs import Delivery, Job, JobRequest, JobState, TimelineEntry
from outwait.worker.model.outcomes import Choice
from outwait.worker.providers.registry import describe
from outwait.worker.store.dead import DeadDelivery
from outwait.worker.store.listing import Filter, Page

LONG_POLL_S = 30.0
"""Seconds that one look may wait for the end of a job."""

RETRY_S = 1.0
"""Seconds between two looks while the store is away."""


class JobOptions(TypedDict, total=False):
    """What a job may have besides its parameters; docs/enqueueing.md describes each. Times are seconds."""

    targets: Sequence[str]
    idempotency_key: str
    deadline: float
    countdown: float
    metadata: Mapping[str, Any]
    tenant: str
    priority: int


class AsyncClient:
    """Enqueues jobs, looks at them, waits for them and decides about them. Use it inside one event loop.

    Every method raises StoreUnavailable if the store, or the web process, does not answer. Over HTTP it raises
    Unauthenticated or Forbidden if the key is not good for it.

    Args:
        address: `redis://…` (or `rediss://`, `unix://`), or `http://…` (or `https://`) of a web process. Without one
            the store that the OUTWAIT_* settings name. Over Redis the other settings count too: the namespace has
            to be the workers' own.
        key: an API key; for HTTP, and only for HTTP.

    Raises:
        ValueError: an API key is missing, or of no use.
        ConfigError: a setting is wrong.
    """

    def __init__(self, address: str | None = None, *, key: str | None = None) -> None:
        self._side = _side(address, key)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._side.close()

    async def enqueue(
        self,
        provider: str,
        operation: str,
        params: Mapping[str, Any],
        *,
        trace: str = "",
        **options: Unpack[JobOptions],
    ) -> Enqueued:
        """Store a job; once this returns, it is submitted whatever happens.

        If no answer came (StoreUnavailable), enqueue it again with the same `idempotency_key`: it gives the same job.

        Args:
            provider: name of the provider.
            operation: one of its operations.
            params: the operation's parameters, as the provider names them.
            trace: the producer's trace context (W3C `traceparent`).
            options: targets, idempotency_key, deadline, countdown (seconds), metadata, tenant, priority.

        Raises:
            InvalidRequest: unknown provider or operation, wrong parameter or option, too large.
            Conflict: the idempotency key was used for another request.
            QuotaExceeded: the tenant may not have this job now; `retry_after` says whether waiting helps.
        """
        return await self._side.enqueue(_request(provider, operation, params, options), trace=trace)

    async def enqueue_many(self, requests: Sequence[JobRequest], *, trace: str = "") -> list[Enqueued | RequestError]:
        """Store jobs, many in one round trip; for each in its place what `enqueue` returns or raises."""
        return await self._side.enqueue_many([(request, None) for request in requests], trace=trace)

    async def job(self, job_id: str) -> Job:
        """The job as it stands. Raises JobNotFound."""
        return await self._side.job(job_id)

    async def jobs(self, *, limit: int = 50, cursor: str | None = None, **filters: Unpack[Filter]) -> Page:
        """Jobs, newest first: a page, whose `cursor` gives the next one.

        Args:
            limit: jobs on one page, 1 to 500.
            cursor: of the page before.
            filters: state, provider, tenant, since, until (created, seconds since 1970).

        Raises:
            InvalidRequest: a value is wrong.
        """
        return await self._side.jobs(limit=limit, cursor=cursor, **filters)

    async def wait(self, job_id: str, timeout_s: float | None = None) -> Any:
        """The job's result as JSON data, as soon as it is there. Outages of the store on the way are waited out.

        Args:
            job_id: the job.
            timeout_s: seconds to wait at most; None waits as long as it takes.

        Raises:
            JobFailed: the job failed; JobExpired, JobCancelled: it ended so. All three are JobEnded.
            TimeoutError: it has not ended in time. The job goes on.
            JobNotFound: no such job.
        """
        return await self._result(await self._end_of(job_id, timeout_s))

    async def result(self, job_id: str) -> Any:
        """The job's result as JSON data.

        Raises:
            WrongState: the job has not ended.
            JobFailed: the job failed; JobExpired, JobCancelled: it ended so. All three are JobEnded.
            JobNotFound: no such job.
        """
        job = await self.job(job_id)
        if not job.state.ended:
            raise WrongState(f"job {job_id} has not ended: it is {job.state}")
        return await self._result(job)

    async def timeline(self, job_id: str) -> list[TimelineEntry]:
        """What happened to the job, oldest first. Raises JobNotFound."""
        return await self._side.timeline(job_id)

    async def deliveries(self, job_id: str) -> list[Delivery]:
        """Where the job's result went, handler by handler. Raises JobNotFound."""
        return await self._side.deliveries(job_id)

    async def cancel(self, job_id: str) -> bool:
        """Give a job up; its provider is informed, where it can be. A cancelled job stays so.

        Returns:
            True if the job is cancelled, False if that waits for the answer of a submit that is on its way.

        Raises:
            JobNotFound: no such job.
            WrongState: it has ended otherwise.
        """
        try:
            return await self._side.cancel(job_id)
        except WrongState:
            if (await self.job(job_id)).state is JobState.CANCELLED:
                return True
            raise

    async def resolve(self, job_id: str, choice: Choice, external_id: str = "") -> None:
        """Decide about an uncertain job.

        Args:
            job_id: the job.
            choice: what becomes of it.
            external_id: the provider's own id, with SUBMITTED_AS and only with it.

        Raises:
            JobNotFound: no such job.
            WrongState: it is not uncertain.
            InvalidRequest: the external id is missing or too much, or no webhook says how the job ended.
            ExternalIdTaken: another job has the external id.
        """
        await self._side.resolve(job_id, choice, external_id)

    async def repoll(self, job_id: str) -> None:
        """Have a job polled again that ended without a result though its provider took it; nothing is submitted.

        It gets as much time again as it had from its enqueue, and its next end is delivered to every target.

        Raises:
            JobNotFound: no such job.
            WrongState: it has not ended, it has a result, or its provider never took it.
        """
        await self._side.repoll(job_id)

    async def replay(self, job_id: str, target: str | None = None) -> int:
        """Repeat a job's dead deliveries, or those to `target` however they ended; never the submit.

        Returns:
            How many deliveries are pending again.

        Raises:
            JobNotFound: no such job.
            NotReplayable: nothing of it can be delivered again.
            InvalidRequest: `target` is invalid.
        """
        return await self._side.replay(job_id, target)

    async def dead(self, limit: int = 50, **filters: Unpack[DeadFilter]) -> list[DeadDelivery]:
        """Deliveries that were given up, newest first.

        Args:
            limit: deliveries at most, 1 to 500.
            filters: target, provider, tenant, since (given up, seconds since 1970).

        Raises:
            InvalidRequest: a value is wrong.
        """
        return await self._side.dead(limit, **filters)

    async def replay_dead(self, **filters: Unpack[DeadFilter]) -> int:
        """Repeat all deliveries that are dead now, or those that match the filters (see `dead`).

        Returns:
            How many deliveries are pending again.

        Raises:
            InvalidRequest: a value is wrong.
        """
        return await self._side.replay_all(**filters)

    async def pause(self, provider: str, reason: str = "") -> None:
        """Send nothing more to a provider until it is resumed. Raises InvalidRequest if there is no such provider."""
        await self._side.pause(provider, reason)

    async def resume(self, provider: str) -> bool:
        """Let a provider go on; whether it was paused. Raises InvalidRequest if there is no such provider."""
        return await self._side.resume(provider)

    async def _result(self, job: Job) -> Any:
        if job.state is not JobState.SUCCEEDED:
            raise job.exception
        return await self._side.result(job.id)

    async def _end_of(self, job_id: str, timeout_s: float | None) -> Job:
        clock = asyncio.get_running_loop().time
        until = clock() + (math.inf if timeout_s is None else timeout_s)
        job = await self.job(job_id)  # a wrong address or id shows at once
        while not job.state.ended:
            left = until - clock()
            if left <= 0:
                raise TimeoutError(f"job {job_id} has not ended after {timeout_s:g} s: it is {job.state}")
            try:
                job = await self._side.end_of(job.id, min(left, LONG_POLL_S))
            except StoreUnavailable:
                await asyncio.sleep(min(left, RETRY_S))
        return job


def _side(address: str | None, key: str | None) -> StoreClient | HttpClient:
    if address is not None and address.startswith(("http://", "https://")):
        if not key:
            raise ValueError("over HTTP an API key is needed: give it as key=…; `outwait keys create NAME` makes one")
        return HttpClient(address, key)
    if key is not None:
        raise ValueError("an API key is for an http:// or https:// address")
    return StoreClient(load_settings() if address is None else load_settings(redis_url=address))


def _request(provider: str, operation: str, params: Mapping[str, Any], options: JobOptions) -> JobRequest:
    try:
        return JobRequest.model_validate({"provider": provider, "operation": operation, "params": params, **options})
    except ValidationError as error:
        raise InvalidRequest(describe(error, JobRequest)) from error
