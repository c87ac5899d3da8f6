"""What people and programs decide about jobs: cancel, resolve, replay."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from outwait.web.answers import REF, DeadDeliveries, Replayed, answer, documented, shown_delivery, shown_job
from outwait.web.auth import Operator, Reader, only_own, visible
from outwait.web.routing import ApiRoute, JobId, ProviderName
from outwait.web.services import Shared
from outwait.worker.model.errors import WrongState
from outwait.worker.model.jobs import TENANT_PATTERN, Job, JobState
from outwait.worker.model.outcomes import Choice

router = APIRouter(prefix="/v1", route_class=ApiRoute)

TargetName = Annotated[
    str, Field(min_length=1, max_length=500, description="Only deliveries to this target.", examples=["crm"])
]
TenantName = Annotated[str, Field(pattern=TENANT_PATTERN, description="Only of this tenant's jobs.")]
Since = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False, description="Given up since (seconds, 1970).")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Replay(_Body):
    """Which deliveries of a job are repeated: the dead ones, or those to one target, however they ended."""

    target: TargetName | None = None


class ReplayDead(_Body):
    """Which dead deliveries are repeated: all of them, or what of them is to this target, of this provider …"""

    target: TargetName | None = None
    provider: ProviderName | None = Field(default=None, description="Only of this provider's jobs.")
    tenant: TenantName | None = None
    since: Since | None = None


class Dead(ReplayDead):
    """Which dead deliveries are listed."""

    limit: int = Field(default=50, ge=1, le=500, description="Deliveries, at most.")


class Resolution(_Body):
    """What becomes of an uncertain job. `external_id` goes with submitted-as, and only with it."""

    choice: Choice
    external_id: str | None = Field(default=None, min_length=1, max_length=500)


_ASKED = {
    "description": "Asked for: the answer of its submit is waited for first.",
    "content": {"application/json": {"schema": {"$ref": REF.format(name="Job")}}},
}


@router.post(
    "/jobs/{job_id}/cancel",
    operation_id="cancelJob",
    tags=["jobs"],
    responses=documented(Job, 404, 409, told="The job is cancelled.") | {202: _ASKED},
)
async def cancel(job_id: JobId, shared: Shared, key: Operator) -> Response:
    """Give the job up; its provider is told, where it can be. A cancelled one stays so."""
    found = await visible(shared, key, job_id)
    done = found.state is JobState.CANCELLED
    if not done:
        done = await shared.client.cancel(found.id, f"cancelled over HTTP with the key {key.name}")
    return answer(shown_job(await shared.client.job(found.id)), 200 if done else 202)


@router.post(
    "/jobs/{job_id}/resolve",
    operation_id="resolveJob",
    tags=["jobs"],
    responses=documented(Job, 400, 404, 409, 413, 415, told="The job goes on as decided."),
)
async def resolve(job_id: JobId, body: Resolution, shared: Shared, key: Operator) -> Response:
    """Decide about an uncertain job: whether its provider has it, and under which id."""
    found = await visible(shared, key, job_id)
    if found.state is not JobState.UNCERTAIN:
        raise WrongState(f"job {found.id} is not uncertain but {found.state}: there is nothing to decide")
    await shared.client.resolve(found.id, body.choice, body.external_id or "")
    return answer(shown_job(await shared.client.job(found.id)))


@router.post(
    "/jobs/{job_id}/replay",
    operation_id="replayJob",
    tags=["deliveries"],
    responses=documented(Replayed, 400, 404, 409, 413, 415, example={"replayed": 1}),
)
async def replay(job_id: JobId, shared: Shared, key: Operator, body: Replay | None = None) -> Response:
    """Deliver the job's result again; the submit is never repeated."""
    found = await visible(shared, key, job_id)
    return answer(Replayed(await shared.client.replay(found.id, body.target if body else None)))


@router.get("/dead", operation_id="listDead", tags=["deliveries"], responses=documented(DeadDeliveries))
async def dead(shared: Shared, key: Reader, asked: Annotated[Dead, Query()]) -> Response:
    """Deliveries that were given up, newest first."""
    wanted = asked.model_dump() | {"tenant": only_own(key, asked.tenant)}
    return answer(DeadDeliveries([shown_delivery(one) for one in await shared.client.dead(**wanted)]))


@router.post(
    "/dead/replay",
    operation_id="replayDead",
    tags=["deliveries"],
    responses=documented(Replayed, 400, 413, 415, example={"replayed": 12}),
)
async def replay_dead(shared: Shared, key: Operator, body: ReplayDead | None = None) -> Response:
    """Deliver again whatever is dead now, or what of it is wanted."""
    asked = body or ReplayDead()
    wanted = asked.model_dump() | {"tenant": only_own(key, asked.tenant)}
    return answer(Replayed(await shared.client.replay_all(**wanted)))
