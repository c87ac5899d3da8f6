"""The groups of settings: one for each step and each part of the system. `config.settings` puts them together."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from outwait.config.errors import Clash
from outwait.config.patterns import Owned, split
from outwait.config.reserved import name_pattern

BaseUrl = Annotated[str, Field(pattern=r"^https?://[^/?#\s]+[^?#\s]*$")]
"""Address of a service: http or https, without query or fragment."""

Names = Annotated[list[str], BeforeValidator(split)]
NamePatterns = Annotated[list[Annotated[str, AfterValidator(name_pattern)]], BeforeValidator(split)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Group(BaseModel):
    """A nested group. An unknown name in it is an error, so that a typing error is noticed."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class StepSettings(Group):
    """How one step behaves: submit, poll, callback or deliver."""

    time_limit: Seconds = Field(default=20, description="Time limit of this step for one job, in seconds.")
    lease: Annotated[Seconds, Field(ge=1)] = Field(
        default=12,
        description="Seconds for which one worker owns a claimed step; it is renewed while the step runs.",
    )
    attempts: int = Field(
        default=10,
        ge=1,
        description="Failed attempts in a row after which the step gives up; polls become rarer then.",
    )
    backoff: Seconds = Field(
        default=2, description="Seconds before the first retry; doubled for each further one, with jitter."
    )
    backoff_max: Seconds = Field(
        default=300, description="Longest time before a retry, in seconds; only a Retry-After can be longer."
    )
    cap: int = Field(
        default=2048, ge=1, description="Maximum number of leases of one lane at the same time, over all workers."
    )

    @model_validator(mode="after")
    def _times_fit(self) -> Self:
        if self.backoff_max < self.backoff:
            raise Clash(
                {"backoff": self.backoff, "backoff_max": self.backoff_max}, "BACKOFF_MAX must not be less than BACKOFF"
            )
        return self


class PollSettings(StepSettings):
    """The poll step: it never gives up before the deadline. After `attempts` failed polls in a row the longest time
    between two polls doubles with each further one, up to an hour.
    """

    adaptive: bool = Field(
        default=True, description="Learn when jobs usually end and poll then, instead of at fixed intervals."
    )
    unknown_for: Seconds = Field(
        default=900,
        description="Seconds in which several polls must say that the external id is unknown before the job fails.",
    )


class DeliverSettings(StepSettings):
    """The deliver step. What is more than its two limits waits in its tenant's backlog."""

    per_tenant: int = Field(
        default=128,
        ge=1,
        description="Maximum number of deliveries of one tenant at the same time: of all its webhooks, and for each "
        "handler and other kind of target.",
    )
    per_host: int = Field(
        default=32, ge=1, description="Maximum number of webhooks of one tenant to one host at the same time."
    )


class StoreSettings(Group):
    """Limits of sizes and times in Redis."""

    retention: Seconds = Field(
        default=7 * 86400, description="Seconds for which a closed job is kept before it is purged."
    )
    audit_retention: Seconds = Field(
        default=90 * 86400, description="Seconds for which the acts of persons are kept (`outwait audit`)."
    )
    params_max: int = Field(default=1_048_576, ge=1, description="Maximum size of a job's request, in bytes of JSON.")
    result_max: int = Field(default=33_554_432, ge=1, description="Maximum size of a provider's answer, in bytes.")
    compress_above: int = Field(
        default=1024, ge=0, description="Requests and results larger than this number of bytes are compressed."
    )
    timeout: Seconds = Field(default=10, description="Seconds to wait for an answer from Redis.")
    strict: bool = Field(default=False, description="Refuse to start unless Redis uses `appendfsync always`.")
    replicas: int = Field(
        default=0,
        ge=0,
        le=100,
        description="Replicas that must have a write before anything is promised on it (`WAIT`).",
    )
    files: int = Field(
        default=0,
        ge=0,
        le=100,
        description="Append-only files, Redis's own first, that must have it on disk (`WAITAOF`; Redis 7.2 or Valkey).",
    )


class TenantSettings(Group):
    """What the jobs of one tenant may take. Jobs without a tenant have no such limits."""

    open_jobs: int = Field(
        default=0, ge=0, description="Maximum number of a tenant's jobs that have not ended; 0 is no limit."
    )
    jobs_per_minute: int = Field(
        default=0, ge=0, description="Maximum number of jobs that a tenant may enqueue in a minute; 0 is no limit."
    )
    memory_share: float = Field(
        default=0.25,
        gt=0,
        le=1,
        description="Share of Redis's `maxmemory` that a tenant's requests and results may take; 1 is no limit.",
    )
    bytes: int = Field(
        default=0, ge=0, description="Maximum size of a tenant's stored requests and results; 0: only the share counts."
    )


class WorkerSettings(Group):
    """One worker process."""

    concurrency: int = Field(
        default=16, ge=1, le=512, description="Maximum number of batches that one worker process runs at the same time."
    )
    batch: int = Field(default=64, ge=1, le=1000, description="Maximum number of claims in one Celery message.")
    tick: Seconds = Field(default=0.25, description="Seconds between two checks for due work.")
    handoff: Seconds = Field(
        default=1.0, description="Seconds for which a batch may hold its thread; slow answers continue without it."
    )
    grace: Seconds = Field(
        default=65, description="Seconds to finish or give back work at shutdown; not less than SUBMIT__TIME_LIMIT."
    )
    alive: Path | None = Field(
        default=None, description="File that the worker touches after each check for due work, for health checks."
    )


class IntakeSettings(Group):
    """How producers' messages become jobs."""

    queue: str = Field(
        default="outwait", min_length=1, description="Celery queue to which producers send tasks.submit."
    )
    queue_type: Literal["classic", "quorum"] = Field(
        default="classic", description="Type of that queue on RabbitMQ, as producers declare it: classic or quorum."
    )
    batch: int = Field(default=256, ge=1, le=5000, description="Maximum number of messages taken in at once.")
    lease: Seconds = Field(default=12, description="Seconds for which one worker owns the messages that it takes in.")

    @property
    def expired_queue(self) -> str:
        """Where a policy of RabbitMQ puts the queue's expired messages, which it would delete without one."""
        return f"{self.queue}.expired"


class Route(Group):
    """Targets for jobs that name no targets. The first matching route is used."""

    provider: str | None = None
    operation: str | None = None
    targets: list[str] = Field(min_length=1)


class HandlerSettings(Group):
    """Where results go."""

    modules: Names = Field(default=[], description="Python modules with functions marked `@handler`: `a.b,c.d`.")
    routes: list[Route] = Field(default=[], description="Targets for jobs that name none, by provider and operation.")
    expected: Names = Field(
        default=[],
        description="Handlers that jobs may name though no worker has said that it has them: workers of 0.2.0 do not.",
    )
    folder: Path = Field(default=Path("outwait-data/results"), description="Folder for the files of `file:` targets.")
    streams: NamePatterns = Field(
        default=["outwait-stream:*"],
        description="Patterns of the Redis streams that `stream://` targets may name: `transcripts,crm:*`.",
    )
    queues: NamePatterns = Field(
        default=["outwait-queue:*"],
        description="Patterns of the queues that `celery://` targets may name; `celery` only if it is listed as such.",
    )
    tenants: Owned = Field(
        default={},
        description='Targets that belong to tenants, by pattern: `{"crm": ["acme"]}`. The first pattern that matches '
        "counts; a target that none matches is for all.",
    )
    traceparent: bool = Field(
        default=False,
        description="Pass the producer's trace context on to `https://` and `celery://` targets, as `traceparent`.",
    )


class EventSettings(Group):
    """What Celery's own tools show of a job."""

    jobs: bool = Field(default=True, description="Send the events from which Flower shows one row for each job.")
    internal: bool = Field(default=False, description="Also send events of the internal batches.")
    results: bool = Field(default=True, description="Keep results for `AsyncResult(job_id).get()`.")
    results_expire: Seconds = Field(default=86400, description="Seconds for which such a result is kept.")


class TraceSettings(Group):
    """OpenTelemetry. Its own OTEL_* variables say where spans are sent."""

    enabled: bool = Field(default=False, description="Send a trace of each job; needs the extra `outwait[traces]`.")


class LogSettings(Group):
    """Logging of every process."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Minimum level of messages that are logged."
    )
    format: Literal["text", "json"] = Field(
        default="text", description="`text`: lines for people; `json`: one JSON object per line."
    )
