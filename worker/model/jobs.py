"""The types of the domain: states, steps, requests, jobs, claims. Pure data, no I/O.

docs/state-chart.md draws the transitions. The store's scripts make them: `record` for outcomes of steps, provider
webhooks and decisions of people, `claim` when the lease of a submit has ended after its intent. `enqueue` writes the
first state of a job.
"""

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from outwait.worker.model.errors import JobCancelled, JobEnded, JobExpired, JobFailed

JOB_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.:@-]{0,127}$"
"""The form of a job id. A Celery task id (a UUID) matches."""

TENANT_PATTERN = r"^[A-Za-z0-9_.@-]{1,60}$"
"""The form of a tenant's name."""

JobId = Annotated[str, StringConstraints(pattern=JOB_ID_PATTERN)]


class JobState(StrEnum):
    """The state of a job, and who changes it next."""

    QUEUED = "queued"  # a worker submits it when its lane allows; after a crash its lease ends and another worker does
    WAITING = "waiting"  # at the provider; a worker polls it when its countdown ends; a trusted webhook ends it
    UNCERTAIN = "uncertain"  # it is not known whether the provider has it; the provider's policy or a person decides
    SUCCEEDED = "succeeded"  # end: the result is stored; callback and deliver follow
    FAILED = "failed"  # end: the provider or Outwait gave up; `error` says why
    EXPIRED = "expired"  # end: the deadline, or the life of the external id, passed
    CANCELLED = "cancelled"  # end: a person or the producer cancelled it

    @property
    def ended(self) -> bool:
        """Whether the job has ended (its deliveries may still be pending)."""
        return self in _ENDS


_ENDS = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.EXPIRED, JobState.CANCELLED})

TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.WAITING, JobState.UNCERTAIN}) | _ENDS,
    JobState.UNCERTAIN: frozenset({JobState.QUEUED, JobState.WAITING}) | _ENDS,
    JobState.WAITING: _ENDS,
    JobState.SUCCEEDED: frozenset(),
    **dict.fromkeys(_ENDS - {JobState.SUCCEEDED}, frozenset({JobState.WAITING})),
}
"""The states that may follow each state. The store's scripts obey it; the property test of a job's life proves that."""


class Step(StrEnum):
    """A step of a job."""

    SUBMIT = "submit"
    POLL = "poll"
    CALLBACK = "callback"
    DELIVER = "deliver"


class DeliveryState(StrEnum):
    """The state of a delivery: one job for one handler."""

    PENDING = "pending"  # a worker runs the handler when it is due
    DELIVERED = "delivered"
    DEAD = "dead"  # given up, with a reason; `replay` makes it pending again


class UncertainPolicy(StrEnum):
    """What happens to a submit whose answer was lost."""

    HOLD = "hold"  # wait for a person: the default where a submit costs money
    RESUBMIT = "resubmit"  # submit again, at the risk of a second job
    FAIL = "fail"


TARGETS_MAX, TARGET_LENGTH_MAX = 20, 500
"""Targets that a job may name, and characters of one."""

NORMAL = 5
"""The default priority of a job."""


class JobRequest(BaseModel):
    """What a producer asks for: version 1 of the wire contract (docs/enqueueing.md).

    It is the `kwargs` of `tasks.submit`, a line of a JSON Lines file, and the body of an HTTP request.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: str = Field(min_length=1, max_length=40, description="Name of the provider, such as unless.")
    operation: str = Field(min_length=1, max_length=60, description="One of the provider's operations.")
    params: dict[str, JsonValue] = Field(
        default={}, description="The operation's parameters, as the provider names them."
    )
    targets: list[Annotated[str, StringConstraints(min_length=1, max_length=TARGET_LENGTH_MAX)]] = Field(
        default=[],
        max_length=TARGETS_MAX,
        description="Handlers that get the result, instead of those that the routes in the settings name.",
    )
    idempotency_key: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="A second request with the same key creates no second job.",
    )
    deadline: float | None = Field(
        default=None, gt=0, le=30 * 86400, description="Seconds after which the job expires, from when it is due."
    )
    countdown: float | None = Field(
        default=None,
        ge=0,
        le=30 * 86400,
        allow_inf_nan=False,
        description="Seconds until the job is due: it is not submitted before.",
    )
    metadata: dict[str, JsonValue] = Field(default={}, description="Passed on to every handler unchanged.")
    tenant: Annotated[str, StringConstraints(pattern=TENANT_PATTERN)] | None = Field(
        default=None,
        description="Owner of the job. Tenants take turns, so that one tenant's backlog does not delay another's jobs.",
    )
    priority: int = Field(
        default=NORMAL, ge=0, le=9, description="Order of a tenant's jobs: 9 is submitted first, 0 last."
    )
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
        unknown_polls: how many polls said that the provider does not know the external id.
        unknown_since_ms: when the first of them did; a poll that found the job since then ends the count.
        expires_ms: when the external id expires, as the provider said last.
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
    unknown_polls: int = 0
    unknown_since_ms: int = 0
    expires_ms: int = 0

    def age(self, now_ms: int) -> float:
        """Seconds since the job was submitted."""
        return (now_ms - self.submitted_ms) / 1000

    def time_left(self, now_ms: int) -> float:
        """Seconds until the job's deadline; infinity if it has none."""
        return (self.deadline_ms - now_ms) / 1000 if self.deadline_ms else math.inf


class Ledger(msgspec.Struct, frozen=True):
    """Requests really sent for one job, and webhooks received for it."""

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
        """The error as it is stored."""
        return msgspec.json.encode(self).decode()


class TimelineEntry(msgspec.Struct, frozen=True):
    """One event of a job: its time (seconds, Redis's clock), its name, and a detail without secrets."""

    at: float
    event: str
    detail: str = ""


class Delivery(msgspec.Struct, frozen=True):
    """One job for one handler. `id` is stable, so that the handler can detect repetitions."""

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
    """A job as it is in the store. Times are seconds since 1970 of Redis's clock."""

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
    abridged: bool = False  # in a list: its request is large, so targets and metadata are left out

    @property
    def exception(self) -> JobEnded:
        """The error that a job without a result raises in its producer; its text is "code: message"."""
        message = f"{self.error.code}: {self.error.message}" if self.error else f"the job is {self.state}"
        match self.state:
            case JobState.EXPIRED:
                return JobExpired(message)
            case JobState.CANCELLED:
                return JobCancelled(message)
            case _:
                return JobFailed(message)
