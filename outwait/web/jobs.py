"""`/v1/jobs`: read jobs, their results, timelines and deliveries."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from outwait.web import problems
from outwait.web.answers import (
    Deliveries,
    JobPage,
    Timeline,
    answer,
    documented,
    numbered,
    shown_delivery,
    shown_job,
)
from outwait.web.auth import Reader, permitted_tenant, visible
from outwait.web.routing import ApiRoute, JobId
from outwait.web.services import Shared
from outwait.worker.model.errors import WrongState
from outwait.worker.model.jobs import TENANT_PATTERN, Job, JobState, Ledger
from outwait.worker.store.cursors import JOB_CURSOR

WAIT_LIMIT = 60
"""Seconds that a long poll lasts at most; many proxies give up soon after."""

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=ApiRoute)

Second = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]

_JOB = msgspec.to_builtins(
    Job(
        id="1f0c9f0e-6a52-4f5e-9d57-0c2f3a5d8b11",
        provider="unless",
        operation="query",
        state=JobState.SUCCEEDED,
        created=1767225600.125,
        external_id="q-4711",
        provider_status="DONE",
        submitted=1767225600.31,
        ended=1767225608.402,
        closed=1767225608.511,
        deadline=1767226200.125,
        ledger=Ledger(submits=1, polls=3, deliveries=1),
        targets=("crm",),
        metadata={"customer": 42},
    )
)
"""The example of the OpenAPI document: a field that is added to `Job` is in it."""


class Listing(BaseModel):
    """Which jobs are listed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: JobState | None = Field(default=None, description="Only jobs in this state.")
    provider: str | None = Field(default=None, min_length=1, max_length=40, description="Only this provider's jobs.")
    tenant: str | None = Field(default=None, pattern=TENANT_PATTERN, description="Only this tenant's jobs.")
    since: Second | None = Field(default=None, description="Only jobs created since then (seconds since 1970).")
    until: Second | None = Field(default=None, description="Only jobs created until then (seconds since 1970).")
    limit: int = Field(default=50, ge=1, le=500, description="Maximum number of jobs on one page.")
    cursor: str | None = Field(default=None, pattern=JOB_CURSOR, description="The `cursor` of the previous page.")


@router.get("", operation_id="listJobs", responses=documented(JobPage))
async def list_jobs(shared: Shared, key: Reader, query: Annotated[Listing, Query()]) -> Response:
    """Jobs, newest first. An API key of one tenant sees only that tenant's jobs."""
    filters = query.model_dump() | {"tenant": permitted_tenant(key, query.tenant)}
    page = await shared.client.jobs(**filters)
    return answer(JobPage([shown_job(job) for job in page.jobs], page.cursor))


@router.get("/{job_id}", operation_id="getJob", responses=documented(Job, 404, 429, example=_JOB))
async def job(
    job_id: JobId,
    shared: Shared,
    key: Reader,
    wait: Annotated[
        float,
        Query(ge=0, le=WAIT_LIMIT, allow_inf_nan=False, description="Seconds to wait for the job to end."),
    ] = 0,
) -> Response:
    """The job in its present state. With `wait`, the answer comes when the job ends, or after that many seconds."""
    job = await visible(shared, key, job_id)
    if wait and not job.state.ended:
        shared.waiting.check(key)
        with shared.waiting.place(key):
            job = await shared.watch.end_of(job.id, shared.client.job, wait)
    return answer(shown_job(job))


@router.get(
    "/{job_id}/result",
    operation_id="getJobResult",
    responses=documented({}, 404, 409, description="The provider's result: any JSON value."),
)
async def result(job_id: JobId, shared: Shared, key: Reader) -> Response:
    """The job's result. 409 if the job has not ended; 404 with the code `no_result` if it ended without a result."""
    job = await visible(shared, key, job_id)
    if not job.state.ended:
        raise WrongState(f"job {job.id} has not ended: it is {job.state}. GET /v1/jobs/{job.id}?wait=30 waits for it")
    if job.state is not JobState.SUCCEEDED:
        why = f"{job.error.code}: {job.error.message}" if job.error else "no reason is recorded"
        return problems.problem(404, "no_result", f"The job {job.state}", why)
    (text,) = await shared.store.reads.result_texts([job.id])
    return Response(text, media_type="application/json")


@router.get("/{job_id}/timeline", operation_id="getJobTimeline", responses=documented(Timeline, 404))
async def timeline(job_id: JobId, shared: Shared, key: Reader) -> Response:
    """What happened to the job, oldest first."""
    job = await visible(shared, key, job_id)
    return answer(Timeline(numbered(await shared.client.timeline(job.id))))


@router.get(
    "/{job_id}/deliveries", operation_id="getJobDeliveries", responses=documented(Deliveries, 404), tags=["deliveries"]
)
async def deliveries(job_id: JobId, shared: Shared, key: Reader) -> Response:
    """The job's deliveries: one for each handler."""
    job = await visible(shared, key, job_id)
    return answer(Deliveries([shown_delivery(delivery) for delivery in await shared.client.deliveries(job.id)]))
