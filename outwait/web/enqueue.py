"""`POST /v1/jobs`: one job, or up to a thousand."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Body, Header
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag
from starlette.responses import Response

from outwait.client.store import Enqueued
from outwait.web import problems
from outwait.web.answers import REF, EnqueuedItem, EnqueuedJob, EnqueuedJobs, answer, documented
from outwait.web.auth import Enqueuer, only_own
from outwait.web.routing import ApiRoute
from outwait.web.services import Services, Shared
from outwait.worker.model import targets
from outwait.worker.model.errors import Forbidden, InvalidRequest, RequestError
from outwait.worker.model.jobs import JobRequest
from outwait.worker.store.access import ApiKey

MOST = 1000
"""Jobs in one request."""

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=ApiRoute)


class JobBatch(BaseModel):
    """Up to a thousand jobs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    jobs: list[JobRequest] = Field(min_length=1, max_length=MOST)


def _kind(body: Any) -> str:
    one, many = problems.KINDS
    return many if isinstance(body, dict) and "jobs" in body else one


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
        description="The same as the `idempotency_key` of a single job.",
    ),
]

_ID = "1f0c9f0e-6a52-4f5e-9d57-0c2f3a5d8b11"
_THEN = ("getJob", "getJobResult", "getJobTimeline", "getJobDeliveries", "followJob", "cancelJob", "replayJob")
_LINKS = {name: {"operationId": name, "parameters": {"job_id": "$response.body#/id"}} for name in _THEN}
_LOCATION = {"Location": {"description": "Where the job is.", "schema": {"type": "string"}}}
_CREATED: dict[str, Any] = {"links": _LINKS, "headers": _LOCATION}
_RESPONSES = documented(
    EnqueuedJob, 400, 409, 413, 415, example={"id": _ID, "created": True}, status=201, told="The job is stored."
)
_RESPONSES[201] |= _CREATED
_RESPONSES[200] = _CREATED | {
    "description": "The same job was there already: nothing is submitted twice.",
    "content": {
        "application/json": {
            "schema": {"$ref": REF.format(name="EnqueuedJob")},
            "example": {"id": _ID, "created": False},
        }
    },
}
_RESPONSES[207] = {
    "description": "What became of each job of a batch, in their order.",
    "content": {"application/json": {"schema": {"$ref": REF.format(name="EnqueuedJobs")}}},
}


@router.post("", status_code=201, operation_id="enqueue", responses=_RESPONSES)
async def enqueue(
    body: Jobs,
    shared: Shared,
    key: Enqueuer,
    idempotency_key: IdempotencyKey = None,
    traceparent: Annotated[str, Header(max_length=200, description="The producer's trace (W3C).")] = "",
) -> Response:
    """Store one job, or each of a batch that can be one. A job that is answered for is submitted, whatever happens.

    A body that does not follow the schema is refused as a whole. What depends on a provider, a tenant or the store is
    answered for each job of a batch by itself.
    """
    if isinstance(body, JobBatch):
        if idempotency_key is not None:
            raise InvalidRequest("the header Idempotency-Key is for a single job: give each its `idempotency_key`")
        return answer(await _many(shared, key, body.jobs, traceparent), 207)
    found = await shared.client.enqueue(_permitted(shared, key, _keyed(body, idempotency_key)), trace=traceparent)
    where = {"Location": f"/v1/jobs/{quote(found.job_id)}"}
    return answer(EnqueuedJob(found.job_id, found.created), 201 if found.created else 200, where)


async def _many(shared: Services, key: ApiKey, jobs: list[JobRequest], trace: str) -> EnqueuedJobs:
    checked = [_checked(shared, key, job) for job in jobs]
    good = [(job, None) for job in checked if isinstance(job, JobRequest)]
    stored = iter(await shared.client.enqueue_many(good, trace=trace))
    items = [_item(job if isinstance(job, RequestError) else next(stored)) for job in checked]
    created = sum(item.created is True for item in items)
    same = sum(item.created is False for item in items)
    return EnqueuedJobs(items, created, same, len(items) - created - same)


def _item(found: Enqueued | RequestError) -> EnqueuedItem:
    if isinstance(found, RequestError):
        problem = problems.told(found)
        return EnqueuedItem(problem.status, problem=problem)
    return EnqueuedItem(201 if found.created else 200, found.job_id, found.created)


def _checked(shared: Services, key: ApiKey, request: JobRequest) -> JobRequest | RequestError:
    try:
        return _permitted(shared, key, request)
    except RequestError as error:
        return error


def _permitted(shared: Services, key: ApiKey, request: JobRequest) -> JobRequest:
    """The request as this key may make it. Raises Forbidden or InvalidRequest."""
    for target in request.targets:
        if not targets.allowed(targets.canonical(targets.parse(target)), shared.settings.web.targets):
            scheme = target.partition(":")[0][:60]
            raise Forbidden(f"no HTTP producer may name this target ({scheme}): OUTWAIT_WEB__TARGETS does not allow it")
    tenant = only_own(key, request.tenant)
    return request if tenant == request.tenant else request.model_copy(update={"tenant": tenant})


def _keyed(request: JobRequest, header: str | None) -> JobRequest:
    if header is None or header == request.idempotency_key:
        return request
    if request.idempotency_key is not None:
        raise InvalidRequest("the header Idempotency-Key and `idempotency_key` differ: send one of them")
    return request.model_copy(update={"idempotency_key": header})
