"""The words of the domain: states, steps, requests, jobs, claims. Pure data, no I/O.

docs/state-chart.md draws the transitions. The store's scripts make them: `record` when an outcome is written, `claim`
when the lease of a worker that was lost ends. `enqueue` writes a job's first state.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from outwait.worker.model.errors import JobCancelled, JobEnded, JobExpired, JobFailed

JOB_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.:@-]{0,127}$"
"""What a job id may look like; a Celery task id (UUID) fits."""

TENANT_PATTERN = r"^[A-Za-z0-9_.@-]{1,60}$"
"""What the name of a tenant may look like."""

JobId = Annotated[str, StringConstraints(pattern=JOB_ID_PATTERN)]


class JobState(StrEnum):
    """Where a job is, and who moves it next."""

    QUEUED = "queued"  # a worker submits it when its lane allows; after a crash its lease ends and another one does
    WAITING = "waiting"  # at the provider; a worker polls it when its countdown ends, or a webhook ends it
    UNCERTAIN = "uncertain"  # submitted, perhaps; the provider's policy or a person decides
    SUCCEEDED = "succeeded"  # end: the result is stored; callback and deliver follow
    FAILED = "failed"  # end: the provider, or we, gave up; `error` says why
    EXPIRED = "expired"  # end: the deadline, or the life of the external id, passed
    CANCELLED = "cancelled"  # end: a person or the producer gave it up

    @property
    def ended(self) -> bool:
        """Whether the job's outcome is decided (it may still be on its way to handlers)."""
        return self in _ENDS


_ENDS = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.EXPIRED, JobState.CANCELLED})

TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.WAITING, JobState.UNCERTAIN}) | _ENDS,
    JobState.UNCERTAIN: frozenset({JobState.QUEUED, JobState.WAITING}) | _ENDS,
    JobState.WAITING: _ENDS,
    **dict.fromkeys(_ENDS, frozenset[JobState]()),
}
"""Where a job may go from each state. The store's scripts obey it; random interleavings prove that they do."""


class Step(StrEnum):
    """What is done to a job."""

    SUBMIT = "submit"
    POLL = "poll"
    CALLBACK = "callback"
    DELIVER = "deliver"


class DeliveryState(StrEnum):
    """Where one delivery (one job for one handler) is."""

    PENDING = "pending"  # a worker runs the handler when it is due
    DELIVERED = "delivered"
    DEAD = "dead"  # given up with a reason; `replay` makes it pending again


class UncertainPolicy(StrEnum):
    """What happens to a submit whose answer was lost."""

    HOLD = "hold"  # wait for a person: the default where a submit costs money
    RESUBMIT = "resubmit"  # the provider's declared choice to risk a second submit
    FAIL = "fail"


NORMAL = 5
"""Priority of a job that names none."""


class JobRequest(BaseModel):
    """What a producer asks for: version 1 of the wire contract (docs/enqueueing.md).

    It is the `kwargs` of `tasks.submit`, a line of a JSON Lines file, and the body of an HTTP request.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: str = Field(
        min_length=1, max_length=40, description="Name of the provider: ringcentral, elevateai, unless."
    )
    operation: str = Field(min_length=1, max_length=60, description="One of the provider's operations.")
    params: dict[str, JsonValue] = Field(
        default={}, description="The operation's parameters, as the provider names them."
    )
    targets: list[Annotated[str, StringConstraints(min_length=1, max_length=500)]] = Field(
        default=[], max_length=20, description="Handlers to deliver to, instead of the routes in the settings."
    )
    idempotency_key: str | None = Field(
        default=None, min_length=1, max_length=200, description="The same key gives the same job."
    )
    deadline: float | None = Field(
        default=None, gt=0, le=30 * 86400, description="Seconds after which the job expires, from when it is due."
    )
    metadata: dict[str, JsonValue] = Field(default={}, description="Handed to every handler as it is.")
    tenant: Annotated[str, StringConstraints(pattern=TENANT_PATTERN)] | None = Field(
        default=None, description="Whose job it is. Tenants take turns: one's backlog does not hold up another's job."
    )
    priority: int = Field(default=NORMAL, ge=0, le=9, description="9 is submitted before all others, 0 after them.")
    version: int = Field(default=1, ge=1, le=1, description="Version of this contract.")


class Claim(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One due job or delivery that this worker leases: what a step needs to read, so that a batch costs one round trip.

    It travels in Celery's messages as an array, between workers of two releases: the order of the fields is a contract,
    and new ones come last. Times are milliseconds since 1970 of Redis's clock, 0 where there is none.

    Args:
        work_id: id of the job, or of the delivery in a deliver lane.
        polled_ms: when a poll last found the job unfinished.
        due_ms: since when it is due.
        trace: the producer's trace context.
    """

    work_id: str
    fence: int
    provider: str = ""
    operation: str = ""
    external_id: str = ""
    memo: str = ""
    state: str = ""
    attempts: int = 0
    created_ms: int = 0
    submitted_ms: int = 0
    deadline_ms: int = 0
    provider_status: str = ""
    polled_ms: int = 0
    due_ms: int = 0
    trace: str = ""


class Ledger(msgspec.Struct, frozen=True):
    """Requests really sent for one job, and what came for it."""

    submits: int = 0
    polls: int = 0
    fetches: int = 0
    webhooks: int = 0
    deliveries: int = 0


class JobError(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a job or a delivery did not succeed. `code` is stable; `detail` is the provider's own."""

    code: str
    message: str
    detail: Any = None

    def text(self) -> str:
        """As it is stored."""
        return msgspec.json.encode(self).decode()


class TimelineEntry(msgspec.Struct, frozen=True):
    """One thing that happened to a job: when (seconds, Redis's clock), what, and a detail without secrets."""

    at: float
    event: str
    detail: str = ""


class Delivery(msgspec.Struct, frozen=True):
    """One job for one handler. `id` is stable, for the receiver's de-duplication."""

    id: str
    job_id: str
    target: str
    state: DeliveryState
    attempts: int = 0
    error: JobError | None = None


def job_of(delivery_id: str) -> str:
    """The job that a delivery belongs to."""
    return delivery_id.rpartition("#")[0]


class Job(msgspec.Struct, frozen=True):
    """A job as it stands in the store. Times are seconds since 1970 of Redis's clock."""

    id: str
    provider: str
    operation: str
    state: JobState
    created: float
    external_id: str | None = None
    provider_status: str | None = None
    submitted: float | None = None
    ended: float | None = None
    closed: float | None = None
    deadline: float | None = None
    due: float | None = None
    attempts: int = 0
    ledger: Ledger = Ledger()
    error: JobError | None = None
    targets: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}
    tenant: str | None = None

    @property
    def exception(self) -> JobEnded:
        """What a job that ended without a result raises in its producer: "code: message"."""
        told = f"{self.error.code}: {self.error.message}" if self.error else f"the job is {self.state}"
        match self.state:
            case JobState.EXPIRED:
                return JobExpired(told)
            case JobState.CANCELLED:
                return JobCancelled(told)
            case _:
                return JobFailed(told)
