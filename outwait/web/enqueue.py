"""`POST /v1/jobs`: one job, or up to a thousand."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Body, Header
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag
from starlette.responses import Response

from outwait.client.store import Enqueued
from outwait.web import problems
from outwait.web.answers import REF, EnqueuedItem, EnqueuedJob, EnqueuedJobs, answer, documented
from outwait.web.auth import Enqueuer, permitted_tenant
from outwait.web.routing import ApiRoute
from outwait.web.services import Services, Shared
from outwait.worker.model import targets
from outwait.worker.model.errors import Forbidden, InvalidRequest, RequestError
from outwait.worker.model.jobs import JobRequest
from outwait.worker.store.access import ApiKey

BATCH_LIMIT = 1000
"""Jobs in one request."""

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=ApiRoute)


class JobBatch(BaseModel):
    """Up to a thousand jobs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    jobs: list[JobRequest] = Field(min_length=1, max_length=BATCH_LIMIT)


def _kind(body: Any) -> str:
    single, batch = problems.KINDS
    return batch if isinstance(body, dict) and "jobs" in body else single


_QUERY = {
    "provider": "unless",
    "operation": "query",
    "params": {"query": "What do you charge?", "sessionId": "s-1", "visitorId": "v-1"},
    "idempotency_key": "question-4711",
}
_PUNCTUATE = {"provider": "ringcentral", "operation": "punctuate", "params": {"texts": ["hello how are you"]}}

Jobs = Annotated[
    Annotated[JobRequest, Tag(problems.KINDS[0])] | Annotated[JobBatch, Tag(problems.KINDS[1])],
    Discriminator(_kind),
    Body(
        openapi_examples={
            "one": {"summary": "One job", "value": _QUERY},
            "many": {"summary": "Several jobs", "value": {"jobs": [_QUERY, _PUNCTUATE]}},
        }
    ),
]

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=200,
        pattern="^[!-~]([ -~]*[!-~])?$",
        description="The `idempotency_key` of a single job.",
    ),
]

_ID = "1f0c9f0e-6a52-4f5e-9d57-0c2f3a5d8b11"
_FOLLOW_UPS = ("getJob", "getJobResult", "getJobTimeline", "getJobDeliveries", "followJob", "cancelJob", "replayJob")
_LINKS = {name: {"operationId": name, "parameters": {"job_id": "$response.body#/id"}} for name in _FOLLOW_UPS}
_LOCATION = {"Location": {"description": "Path of the job.", "schema": {"type": "string"}}}
_CREATED: dict[str, Any] = {"links": _LINKS, "headers": _LOCATION}
_RESPONSES = documented(
    EnqueuedJob,
    400,
    409,
    413,
    415,
    429,
    example={"id": _ID, "created": True},
    status=201,
    description="The job is stored.",
)
_RESPONSES[201] |= _CREATED
_RESPONSES[200] = _CREATED | {
    "description": "The same job existed already; no second job was created.",
    "content": {
        "application/json": {
            "schema": {"$ref": REF.format(name="EnqueuedJob")},
            "example": {"id": _ID, "created": False},
        }
    },
}
_RESPONSES[207] = {
    "description": "The answer for each job of a batch, in the same order.",
    "content": {"application/json": {"schema": {"$ref": REF.format(name="EnqueuedJobs")}}},
}


@router.post("", status_code=201, operation_id="enqueue", responses=_RESPONSES)
async def enqueue(
    body: Jobs,
    shared: Shared,
    key: Enqueuer,
    idempotency_key: IdempotencyKey = None,
    traceparent: Annotated[str, Header(max_length=200, description="The producer's trace context (W3C).")] = "",
) -> Response:
    """Store one job, or a batch of jobs. Every stored job will be submitted, even if a process fails after this answer.

    A body that does not follow the schema is refused as a whole. Other errors, of a provider, a tenant or the store,
    are answered for each job of a batch separately.
    """
    if isinstance(body, JobBatch):
        if idempotency_key is not None:
            raise InvalidRequest(
                "the header Idempotency-Key is for a single job: in a batch, give each job an `idempotency_key`"
            )
        return answer(await _enqueue_batch(shared, key, body.jobs, traceparent), 207)
    enqueued = await shared.client.enqueue(_permitted(shared, key, _keyed(body, idempotency_key)), trace=traceparent)
    location = {"Location": f"/v1/jobs/{quote(enqueued.job_id)}"}
    return answer(EnqueuedJob(enqueued.job_id, enqueued.created), 201 if enqueued.created else 200, location)


async def _enqueue_batch(shared: Services, key: ApiKey, jobs: list[JobRequest], trace: str) -> EnqueuedJobs:
    checked = [_checked(shared, key, job) for job in jobs]
    valid = [(job, None) for job in checked if isinstance(job, JobRequest)]
    stored = iter(await shared.client.enqueue_many(valid, trace=trace))
    items = [_item(job if isinstance(job, RequestError) else next(stored)) for job in checked]
    created = sum(item.created is True for item in items)
    same = sum(item.created is False for item in items)
    return EnqueuedJobs(items, created, same, len(items) - created - same)


def _item(outcome: Enqueued | RequestError) -> EnqueuedItem:
    if isinstance(outcome, RequestError):
        problem = problems.describe(outcome)
        return EnqueuedItem(problem.status, problem=problem)
    return EnqueuedItem(201 if outcome.created else 200, outcome.job_id, outcome.created)


def _checked(shared: Services, key: ApiKey, request: JobRequest) -> JobRequest | RequestError:
    try:
        return _permitted(shared, key, request)
    except RequestError as error:
        return error


def _check_priority(shared: Services, key: ApiKey, priority: int) -> None:
    """Raises Forbidden."""
    highest = shared.settings.web.priority_max
    if priority > highest:
        raise Forbidden(f"priority {priority} is not allowed over HTTP: OUTWAIT_WEB__PRIORITY_MAX is {highest}")
    if priority > key.priority_max:
        raise Forbidden(f"priority {priority} is not allowed: the API key {key.name!r} goes up to {key.priority_max}")


def _permitted(shared: Services, key: ApiKey, request: JobRequest) -> JobRequest:
    """The request with the key's tenant, if the key permits it. Raises Forbidden or InvalidRequest."""
    for target in request.targets:
        if not targets.allowed(targets.canonical(targets.parse(target)), shared.settings.web.targets):
            scheme = target.partition(":")[0][:60]
            raise Forbidden(f"this target ({scheme}) is not allowed over HTTP: OUTWAIT_WEB__TARGETS does not list it")
    _check_priority(shared, key, request.priority)
    tenant = permitted_tenant(key, request.tenant)
    return request if tenant == request.tenant else request.model_copy(update={"tenant": tenant})


def _keyed(request: JobRequest, header: str | None) -> JobRequest:
    if header is None or header == request.idempotency_key:
        return request
    if request.idempotency_key is not None:
        raise InvalidRequest("the header Idempotency-Key and `idempotency_key` differ: send only one of them")
    return request.model_copy(update={"idempotency_key": header})
