"""What the API answers: JSON written from msgspec's types, which are also its documentation."""

from typing import Any, TypeVar

import msgspec
from starlette.responses import Response

from outwait.web.problems import MEDIA_TYPE, Problem
from outwait.worker.model.errors import StoreUnavailable
from outwait.worker.model.jobs import Delivery, Job, JobError, TimelineEntry
from outwait.worker.net.redaction import redact
from outwait.worker.store.dead import DeadDelivery
from outwait.worker.store.governors import GroupStatus

REF = "#/components/schemas/{name}"

D = TypeVar("D", bound=Delivery)


class EnqueuedJob(msgspec.Struct, frozen=True):
    """A job that is stored. `created` is false if the same job was there already."""

    id: str
    created: bool


class EnqueuedItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one job of a batch: `id` and `created`, or the `problem`. `status` is as it would be alone."""

    status: int
    id: str | None = None
    created: bool | None = None
    problem: Problem | None = None


class EnqueuedJobs(msgspec.Struct, frozen=True):
    """What became of the jobs of a batch, in their order, and how many were created, were there, and were refused."""

    jobs: list[EnqueuedItem]
    created: int
    same: int
    refused: int


class JobPage(msgspec.Struct, frozen=True):
    """Jobs, newest first. A page may be short, or empty, though more follow: go on until `cursor` is null."""

    jobs: list[Job]
    cursor: str | None


class Event(msgspec.Struct, frozen=True):
    """One thing that happened to a job. `at` is seconds since 1970; `id` is what Last-Event-ID takes."""

    id: str
    at: float
    event: str
    detail: str


class Timeline(msgspec.Struct, frozen=True):
    """What happened to a job, oldest first; of very many entries the newest are kept."""

    timeline: list[Event]


class Deliveries(msgspec.Struct, frozen=True):
    """The deliveries of a job: one for each handler, once it has ended."""

    deliveries: list[Delivery]


class DeadDeliveries(msgspec.Struct, frozen=True):
    """Deliveries that were given up, newest first."""

    deliveries: list[DeadDelivery]


class Replayed(msgspec.Struct, frozen=True):
    """How many deliveries are pending again."""

    replayed: int


class OperationInfo(msgspec.Struct, frozen=True):
    """One operation of a provider. `params` is the JSON schema of its parameters; times are seconds."""

    name: str
    params: dict[str, Any]
    poll_every: float
    deadline: float
    expiry: float | None


class ProviderInfo(msgspec.Struct, frozen=True):
    """One provider. `status` is null for keys of one tenant: all tenants share it."""

    name: str
    configured: bool
    operations: list[OperationInfo]
    status: GroupStatus | None


class Providers(msgspec.Struct, frozen=True):
    """All providers."""

    providers: list[ProviderInfo]


class Resumed(msgspec.Struct, frozen=True):
    """Whether a person had paused the provider."""

    resumed: bool


class Counts(msgspec.Struct, frozen=True):
    """How many jobs stand in each state, by provider."""

    counts: dict[str, dict[str, int]]


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
    Counts,
    JobError,
    Problem,
)
"""What the document of the API describes; what they are made of follows from them."""


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A value as JSON."""
    return Response(msgspec.json.encode(value), status, headers, "application/json")


def shown_job(job: Job) -> Job:
    """A job as it may be shown: of a target's URL no more than its host."""
    return msgspec.structs.replace(job, targets=tuple(redact(target) for target in job.targets))


def shown_delivery(delivery: D) -> D:
    """A delivery, likewise."""
    return msgspec.structs.replace(delivery, target=redact(delivery.target))


def numbered(entries: list[TimelineEntry]) -> list[Event]:
    """Entries with ids that stay theirs: the millisecond, and which one of it."""
    found: list[Event] = []
    seen: dict[int, int] = {}
    for entry in entries:
        millisecond = round(entry.at * 1000)
        seen[millisecond] = number = seen.get(millisecond, -1) + 1
        found.append(Event(f"{millisecond}-{number}", entry.at, entry.event, entry.detail))
    return found


def documented(
    kind: type | dict[str, Any], *problems: int, status: int = 200, example: Any = None, told: str = ""
) -> dict[int | str, dict[str, Any]]:
    """The answers of a route, for its `responses`: what it gives, and its problems besides the usual ones."""
    schema = kind if isinstance(kind, dict) else {"$ref": REF.format(name=kind.__name__)}
    content: dict[str, Any] = {"schema": schema}
    if example is not None:
        content["example"] = example
    good: dict[str, Any] = {"description": told or _first_line(kind), "content": {"application/json": content}}
    found: dict[int | str, dict[str, Any]] = {status: good}
    return found | {code: refused(code) for code in (401, 403, 422, 503, *problems)}


def refused(status: int) -> dict[str, Any]:
    """The document's entry for a problem."""
    schema = {"$ref": REF.format(name="Problem")}
    return {"description": _REASONS[status], "content": {MEDIA_TYPE: {"schema": schema}}}


def _first_line(kind: type | dict[str, Any]) -> str:
    return "" if isinstance(kind, dict) else (kind.__doc__ or "").partition("\n")[0]


_REASONS: dict[int, str] = {
    400: "The body is no JSON.",
    401: "No API key came with the request, or none that is good.",
    403: "The API key has not the scope, or is for another tenant; or no HTTP producer may name this target.",
    404: "There is none such, or it is another tenant's.",
    409: "It does not fit what is stored: another request under this key, or a job in another state.",
    413: "The body is larger than OUTWAIT_WEB__BODY_MAX.",
    415: "The body is not sent as application/json.",
    422: "The request is invalid; `errors` names the fields, where there are any.",
    503: f"{StoreUnavailable.__doc__} Ask again after Retry-After.",
}
