"""Decisions about jobs over HTTP: cancel, resolve, repoll, replay."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from outwait.web.actors import Deciding
from outwait.web.answers import REF, DeadDeliveries, Replayed, answer, documented, shown_delivery, shown_job
from outwait.web.auth import Operator, Reader, permitted_tenant, visible
from outwait.web.routing import ApiRoute, JobId, ProviderName
from outwait.web.services import Shared
from outwait.worker.model.errors import WrongState
from outwait.worker.model.jobs import TENANT_PATTERN, Job, JobState
from outwait.worker.model.outcomes import Choice
from outwait.worker.store.cursors import DELIVERY_CURSOR

router = APIRouter(prefix="/v1", route_class=ApiRoute)

TargetName = Annotated[
    str, Field(min_length=1, max_length=500, description="Only deliveries to this target.", examples=["crm"])
]
TenantName = Annotated[str, Field(pattern=TENANT_PATTERN, description="Only of this tenant's jobs.")]
Since = Annotated[
    float,
    Field(ge=0, le=1e11, allow_inf_nan=False, description="Only deliveries given up since then (seconds since 1970)."),
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Replay(_Body):
    """Which deliveries of a job are repeated: the dead ones, or the ended delivery to one target."""

    target: TargetName | None = None


class ReplayDead(_Body):
    """Which dead deliveries are repeated: all that match every given filter."""

    target: TargetName | None = None
    provider: ProviderName | None = Field(default=None, description="Only of this provider's jobs.")
    tenant: TenantName | None = None
    since: Since | None = None


class Dead(ReplayDead):
    """Which dead deliveries are listed: all that match every given filter."""

    limit: int = Field(default=50, ge=1, le=500, description="Maximum number of deliveries.")
    cursor: str | None = Field(
        default=None, pattern=DELIVERY_CURSOR, description="The place to go on from, as in the `Link` of the last page."
    )


class Resolution(_Body):
    """The decision about an uncertain job. `external_id` is required for submitted-as, and allowed only there."""

    choice: Choice
    external_id: str | None = Field(default=None, min_length=1, max_length=500)


_CANCEL_PENDING = {
    "description": "The job is being submitted now: it is cancelled when that request is answered.",
    "content": {"application/json": {"schema": {"$ref": REF.format(name="Job")}}},
}


@router.post(
    "/jobs/{job_id}/cancel",
    operation_id="cancelJob",
    tags=["jobs"],
    responses=documented(Job, 404, 409, description="The job is cancelled.") | {202: _CANCEL_PENDING},
)
async def cancel(job_id: JobId, shared: Shared, key: Operator, client: Deciding) -> Response:
    """Cancel the job. The provider is informed if it supports cancelling. A cancelled job stays cancelled."""
    job = await visible(shared, key, job_id)
    cancelled = job.state is JobState.CANCELLED
    if not cancelled:
        cancelled = await client.cancel(job.id, f"cancelled over HTTP with the key {key.name}")
    return answer(shown_job(await shared.client.job(job.id)), 200 if cancelled else 202)


@router.post(
    "/jobs/{job_id}/resolve",
    operation_id="resolveJob",
    tags=["jobs"],
    responses=documented(Job, 400, 404, 409, 413, 415, description="The decision is carried out."),
)
async def resolve(job_id: JobId, body: Resolution, shared: Shared, key: Operator, client: Deciding) -> Response:
    """Decide what happens to an uncertain job: one for which it is not known whether the provider accepted it."""
    job = await visible(shared, key, job_id)
    if job.state is not JobState.UNCERTAIN:
        raise WrongState(f"job {job.id} is {job.state}, not uncertain: there is nothing to decide")
    await client.resolve(job.id, body.choice, body.external_id or "")
    return answer(shown_job(await shared.client.job(job.id)))


@router.post(
    "/jobs/{job_id}/repoll",
    operation_id="repollJob",
    tags=["jobs"],
    responses=documented(Job, 404, 409, description="The job waits again."),
)
async def repoll(job_id: JobId, shared: Shared, key: Operator, client: Deciding) -> Response:
    """Poll a job again that failed, expired or was cancelled, though the provider took it. Nothing is submitted.

    It gets as much time again as it had. Its next end is delivered to every target, with new delivery ids.
    """
    job = await visible(shared, key, job_id)
    await client.repoll(job.id)
    return answer(shown_job(await shared.client.job(job.id)))


@router.post(
    "/jobs/{job_id}/replay",
    operation_id="replayJob",
    tags=["deliveries"],
    responses=documented(Replayed, 400, 404, 409, 413, 415, example={"replayed": 1}),
)
async def replay(
    job_id: JobId, shared: Shared, key: Operator, client: Deciding, body: Replay | None = None
) -> Response:
    """Deliver the job's result again. The request to the provider is never repeated."""
    job = await visible(shared, key, job_id)
    return answer(Replayed(await client.replay(job.id, body.target if body else None)))


@router.get("/dead", operation_id="listDead", tags=["deliveries"], responses=documented(DeadDeliveries))
async def dead(request: Request, shared: Shared, key: Reader, query: Annotated[Dead, Query()]) -> Response:
    """Deliveries that were given up, newest first. While more follow, the header `Link` has the next page's address."""
    filters = query.model_dump() | {"tenant": permitted_tenant(key, query.tenant)}
    page = await shared.client.dead_page(**filters)
    listed = answer(DeadDeliveries([shown_delivery(delivery) for delivery in page.deliveries]))
    if page.cursor:  # in a header: clients of 0.2.0 take no other field in the body
        following = request.url.include_query_params(cursor=page.cursor)
        listed.headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'
    return listed


@router.post(
    "/dead/replay",
    operation_id="replayDead",
    tags=["deliveries"],
    responses=documented(Replayed, 400, 413, 415, example={"replayed": 12}),
)
async def replay_dead(key: Operator, client: Deciding, body: ReplayDead | None = None) -> Response:
    """Repeat all dead deliveries, or those that match the filters."""
    query = body or ReplayDead()
    filters = query.model_dump() | {"tenant": permitted_tenant(key, query.tenant)}
    return answer(Replayed(await client.replay_all(**filters)))
