"""The types of the API's answers. They are written as JSON, and the OpenAPI document is made from them."""

from typing import Any, TypeVar

import msgspec
from starlette.responses import Response

from outwait.web.problems import MEDIA_TYPE, Problem
from outwait.worker.model.acts import Act
from outwait.worker.model.api_keys import ApiKey
from outwait.worker.model.jobs import Delivery, Job, JobError, TimelineEntry
from outwait.worker.net.redaction import redact
from outwait.worker.store.dead import DeadDelivery
from outwait.worker.store.governors import GroupStatus

REF = "#/components/schemas/{name}"

D = TypeVar("D", bound=Delivery)


class EnqueuedJob(msgspec.Struct, frozen=True):
    """A stored job. `created` is false if the same job existed already."""

    id: str
    created: bool


class EnqueuedItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer for one job of a batch: `id` and `created`, or a `problem`. `status` is that of a single request."""

    status: int
    id: str | None = None
    created: bool | None = None
    problem: Problem | None = None


class EnqueuedJobs(msgspec.Struct, frozen=True):
    """The answers for a batch in its order, and how many jobs were created, existed already, and were refused."""

    jobs: list[EnqueuedItem]
    created: int
    same: int
    refused: int


class JobPage(msgspec.Struct, frozen=True):
    """Jobs, newest first. A page may be short or empty although more pages follow: read on until `cursor` is null."""

    jobs: list[Job]
    cursor: str | None


class Event(msgspec.Struct, frozen=True):
    """One thing that happened to a job. `at` is seconds since 1970; `id` is what Last-Event-ID takes."""

    id: str
    at: float
    event: str
    detail: str


class Timeline(msgspec.Struct, frozen=True):
    """What happened to a job, oldest first. Of a very long timeline only the newest entries are kept."""

    timeline: list[Event]


class Deliveries(msgspec.Struct, frozen=True):
    """The deliveries of a job: one for each handler. There are none before the job has ended."""

    deliveries: list[Delivery]


class DeadDeliveries(msgspec.Struct, frozen=True):
    """Deliveries that were given up, newest first."""

    deliveries: list[DeadDelivery]


class Replayed(msgspec.Struct, frozen=True):
    """The number of deliveries that will be repeated."""

    replayed: int


class OperationInfo(msgspec.Struct, frozen=True):
    """One operation of a provider. `params` is the JSON schema of its parameters; times are seconds."""

    name: str
    params: dict[str, Any]
    poll_every: float
    deadline: float
    expiry: float | None


class ProviderInfo(msgspec.Struct, frozen=True):
    """One provider. `status` covers the jobs of all tenants, so it is null for an API key of one tenant.

    `configured`: this web process has its credentials. It needs none, and workers may have them.
    """

    name: str
    configured: bool
    operations: list[OperationInfo]
    status: GroupStatus | None


class Providers(msgspec.Struct, frozen=True):
    """All providers."""

    providers: list[ProviderInfo]


class Resumed(msgspec.Struct, frozen=True):
    """Whether the provider was paused."""

    resumed: bool


class Acts(msgspec.Struct, frozen=True):
    """What persons did, newest first."""

    acts: list[Act]


class Counts(msgspec.Struct, frozen=True):
    """The number of jobs in each state, by provider."""

    counts: dict[str, dict[str, int]]


class Keys(msgspec.Struct, frozen=True):
    """API keys, oldest first; for a week also those that have expired."""

    keys: list[ApiKey]


class CreatedKey(ApiKey, frozen=True, kw_only=True):
    """A key just made. `key` is its text: what its owner sends. It cannot be read again."""

    key: str


class Revoked(msgspec.Struct, frozen=True):
    """The ids of the keys that were revoked."""

    revoked: list[str]


TYPES = (
    EnqueuedJob,
    EnqueuedJobs,
    JobPage,
    Timeline,
    Deliveries,
    DeadDeliveries,
    Replayed,
    Providers,
    Resumed,
    Acts,
    Counts,
    Keys,
    CreatedKey,
    Revoked,
    JobError,
    Problem,
)
"""The types that the OpenAPI document describes, with the types of their fields."""


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A value as JSON."""
    return Response(msgspec.json.encode(value), status, headers, "application/json")


def shown_job(job: Job) -> Job:
    """The job with the URLs of its targets cut down to their hosts."""
    return msgspec.structs.replace(job, targets=tuple(redact(target) for target in job.targets))


def shown_delivery(delivery: D) -> D:
    """The delivery with the URL of its target cut down to its host."""
    return msgspec.structs.replace(delivery, target=redact(delivery.target))


def numbered(entries: list[TimelineEntry]) -> list[Event]:
    """Entries with stable ids: the millisecond, and the position within that millisecond."""
    events: list[Event] = []
    last_position: dict[int, int] = {}
    for entry in entries:
        millisecond = round(entry.at * 1000)
        last_position[millisecond] = position = last_position.get(millisecond, -1) + 1
        events.append(Event(f"{millisecond}-{position}", entry.at, entry.event, entry.detail))
    return events


def documented(
    kind: type | dict[str, Any], *problems: int, status: int = 200, example: Any = None, description: str = ""
) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: its success, its own problems, and the problems that every route has."""
    schema = kind if isinstance(kind, dict) else {"$ref": REF.format(name=kind.__name__)}
    content: dict[str, Any] = {"schema": schema}
    if example is not None:
        content["example"] = example
    success = {"description": description or _first_line(kind), "content": {"application/json": content}}
    responses: dict[int | str, dict[str, Any]] = {status: success}
    return responses | {code: refused(code) for code in (401, 403, 422, 503, *problems)}


def refused(status: int) -> dict[str, Any]:
    """The OpenAPI document's entry for a problem."""
    schema = {"$ref": REF.format(name="Problem")}
    return {"description": _REASONS[status], "content": {MEDIA_TYPE: {"schema": schema}}}


def _first_line(kind: type | dict[str, Any]) -> str:
    return "" if isinstance(kind, dict) else (kind.__doc__ or "").partition("\n")[0]


_REASONS: dict[int, str] = {
    400: "The body is not valid JSON.",
    401: "The request has no API key, or the key is unknown, revoked or expired.",
    403: "The API key lacks the scope, is for another tenant or address, or the target or priority is not allowed.",
    404: "It does not exist, or it belongs to another tenant.",
    409: "It conflicts with what is stored: a different request with the same key, or a job in another state.",
    413: "The body is larger than OUTWAIT_WEB__BODY_MAX; or the tenant's storage is full.",
    415: "The body's content type is not application/json.",
    422: "The request is invalid. `errors` names the invalid fields, if there are any.",
    429: "The tenant has reached a quota, or too many of its requests wait for jobs. Try again after Retry-After.",
    503: "Redis does not answer, or refuses writes for a while; `detail` says why. Try again after Retry-After.",
}
