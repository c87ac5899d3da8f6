"""`/v1/jobs`: look at jobs."""

from typing import Annotated

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
from outwait.web.auth import Reader, only_own, visible
from outwait.web.routing import ApiRoute, JobId
from outwait.web.services import Shared
from outwait.worker.model.errors import WrongState
from outwait.worker.model.jobs import TENANT_PATTERN, Job, JobState
from outwait.worker.store.listing import CURSOR_PATTERN

WAIT_MOST = 60
"""Seconds that a long poll lasts at most: proxies give up soon after."""

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=ApiRoute)

Second = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]

_JOB = {
    "id": "1f0c9f0e-6a52-4f5e-9d57-0c2f3a5d8b11",
    "provider": "unless",
    "operation": "query",
    "state": "succeeded",
    "created": 1767225600.125,
    "external_id": "q-4711",
    "provider_status": "DONE",
    "submitted": 1767225600.31,
    "ended": 1767225608.402,
    "closed": 1767225608.511,
    "deadline": 1767226200.125,
    "due": None,
    "attempts": 0,
    "ledger": {"submits": 1, "polls": 3, "fetches": 0, "webhooks": 0, "deliveries": 1},
    "error": None,
    "targets": ["crm"],
    "metadata": {"customer": 42},
    "tenant": None,
}


class Listing(BaseModel):
    """Which jobs are listed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: JobState | None = Field(default=None, description="Only jobs in this state.")
    provider: str | None = Field(default=None, min_length=1, max_length=40, description="Only its jobs.")
    tenant: str | None = Field(default=None, pattern=TENANT_PATTERN, description="Only this tenant's jobs.")
    since: Second | None = Field(default=None, description="Created since then (seconds since 1970).")
    until: Second | None = Field(default=None, description="Created until then (seconds since 1970).")
    limit: int = Field(default=50, ge=1, le=500, description="Jobs on one page, at most.")
    cursor: str | None = Field(default=None, pattern=CURSOR_PATTERN, description="The `cursor` of the page before.")


@router.get("", operation_id="listJobs", responses=documented(JobPage))
async def listed(shared: Shared, key: Reader, asked: Annotated[Listing, Query()]) -> Response:
    """Jobs, newest first. A key of one tenant sees that tenant's."""
    wanted = asked.model_dump() | {"tenant": only_own(key, asked.tenant)}
    page = await shared.client.jobs(**wanted)
    return answer(JobPage([shown_job(job) for job in page.jobs], page.cursor))


@router.get("/{job_id}", operation_id="getJob", responses=documented(Job, 404, example=_JOB))
async def job(
    job_id: JobId,
    shared: Shared,
    key: Reader,
    wait: Annotated[
        float,
        Query(ge=0, le=WAIT_MOST, allow_inf_nan=False, description="Seconds to wait for the job to end."),
    ] = 0,
) -> Response:
    """The job as it stands; with `wait`, as soon as it has ended, or after so many seconds if it has not."""
    found = await visible(shared, key, job_id)
    if wait and not found.state.ended:
        found = await shared.watch.end_of(found.id, shared.client.job, wait)
    return answer(shown_job(found))


@router.get(
    "/{job_id}/result",
    operation_id="getJobResult",
    responses=documented({}, 404, 409, told="The provider's result, as JSON of any kind."),
)
async def result(job_id: JobId, shared: Shared, key: Reader) -> Response:
    """The job's result. 409 while it is open; 404 with the code `no_result` if it ended without one, and why."""
    found = await visible(shared, key, job_id)
    if not found.state.ended:
        raise WrongState(f"job {found.id} has not ended: it is {found.state}; ask for the job with ?wait=30")
    if found.state is not JobState.SUCCEEDED:
        why = f"{found.error.code}: {found.error.message}" if found.error else "no reason is recorded"
        return problems.problem(404, "no_result", f"The job {found.state}", why)
    (text,) = await shared.store.reads.result_texts([found.id])
    return Response(text, media_type="application/json")


@router.get("/{job_id}/timeline", operation_id="getJobTimeline", responses=documented(Timeline, 404))
async def timeline(job_id: JobId, shared: Shared, key: Reader) -> Response:
    """What happened to the job, oldest first."""
    found = await visible(shared, key, job_id)
    return answer(Timeline(numbered(await shared.client.timeline(found.id))))


@router.get(
    "/{job_id}/deliveries", operation_id="getJobDeliveries", responses=documented(Deliveries, 404), tags=["deliveries"]
)
async def deliveries(job_id: JobId, shared: Shared, key: Reader) -> Response:
    """Where the job's result went, handler by handler."""
    found = await visible(shared, key, job_id)
    return answer(Deliveries([shown_delivery(one) for one in await shared.client.deliveries(found.id)]))
