"""The groups of settings: one for each step and each part of the system. `config.settings` puts them together."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from outwait.config.errors import Clash
from outwait.config.patterns import HostsAndNetworks, Networks, Owned, ReceiverPatterns, split
from outwait.config.reserved import name_pattern
from outwait.config.urls import ProxyUrl, loopback

SECRET_MIN_LENGTH = 24
"""Minimum number of characters of a master secret."""


def _login(value: SecretStr) -> SecretStr:
    user, _, password = value.get_secret_value().partition(":")
    if not (user and password):
        raise ValueError("must be user:password")
    return value


def _secret(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value()) < SECRET_MIN_LENGTH:
        raise ValueError(f"must have at least {SECRET_MIN_LENGTH} characters: `openssl rand -hex 32` makes one")
    return value


BaseUrl = Annotated[str, Field(pattern=r"^https?://[^/?#\s]+[^?#\s]*$")]
"""Address of a service: http or https, without query or fragment."""

WebhookSecret = Annotated[SecretStr, AfterValidator(_secret)]
Login = Annotated[SecretStr, AfterValidator(_login)]
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


class FlowerSettings(Group):
    """The Flower process."""

    address: str = Field(default="127.0.0.1", description="Address on which Flower listens.")
    port: int = Field(default=5555, ge=0, le=65535, description="Port on which Flower listens.")
    basic_auth: Login | None = Field(default=None, description="Flower's login, as `user:password`.")
    max_tasks: int = Field(
        default=20_000, ge=100, description="Maximum number of rows that Flower keeps in memory (about 6 KB each)."
    )

    @model_validator(mode="after")
    def _locked(self) -> Self:
        if self.basic_auth is None and not loopback(self.address):
            raise Clash(
                {"address": self.address, "basic_auth": ""},
                "Flower shows jobs to everybody who can reach it: set a login (user:password), or listen on 127.0.0.1",
            )
        return self


class WebSettings(Group):
    """The web process: the HTTP API, the pages, provider webhooks and metrics."""

    address: str = Field(default="127.0.0.1", description="Address on which the web process listens.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port on which the web process listens.")
    public_url: BaseUrl | None = Field(
        default=None, description="URL at which providers reach the web process; without it, no provider webhooks."
    )
    trusted_proxies: Networks = Field(
        default=[],
        description="Addresses and networks of the proxies in front: `10.0.0.5,10.1.0.0/16`. Only what they say about "
        "a caller's address counts.",
    )
    proxy_header: Literal["x-forwarded-for", "forwarded"] = Field(
        default="x-forwarded-for", description="Header in which the trusted proxies name the caller's address."
    )
    connections: int = Field(
        default=1000, ge=1, description="Maximum number of open connections; fewer if fewer files may be open."
    )
    connections_per_address: int = Field(
        default=200,
        ge=1,
        description="The same of one address (IPv6: of one /64 network). Trusted proxies have no such limit.",
    )
    read_time: Seconds = Field(
        default=10,
        description="Seconds for the head of a request, and for each part of its body (at least 1 KiB a second).",
    )
    body_max: int = Field(default=4_194_304, ge=1024, description="Maximum size of a request's body, in bytes.")
    targets: Names = Field(
        default=["https://*", "[a-z]*"],
        description="Patterns of targets that HTTP producers may name; by default handlers' names and https URLs.",
    )
    priority_max: int = Field(default=9, ge=5, le=9, description="Highest priority that HTTP producers may name.")
    cors_origins: Names = Field(default=[], description="Origins whose pages may call the API from a browser.")
    session: Seconds = Field(default=12 * 3600, description="Seconds for which a login to the pages is valid.")
    flower_url: BaseUrl | None = Field(
        default=None, description="URL at which people reach Flower; the pages link to it."
    )


class OutboundSettings(Group):
    """How workers connect to others: which hosts of producers are allowed, and the proxy before providers."""

    allow: HostsAndNetworks = Field(
        default=[], description="Private hosts and networks that workers may connect to: `media.internal,10.1.0.0/16`."
    )
    proxy: ProxyUrl | None = Field(
        default=None,
        description="HTTP proxy for requests to providers (`https://` only): `http://user:password@proxy:3128`. "
        "`HTTPS_PROXY` and the like are not read.",
    )


class WebhookSettings(Group):
    """Signed webhooks to `https://` targets."""

    secrets: Annotated[list[WebhookSecret], BeforeValidator(split)] = Field(
        default=[],
        max_length=2,
        description="Master secrets from which receivers' secrets are derived, newest first; two while they rotate.",
    )
    signed: bool = Field(
        default=False,
        description="Workers have the secrets: `https://` targets are accepted in processes without them.",
    )
    shared: ReceiverPatterns = Field(
        default=[],
        description="Patterns of receivers that serve all tenants, with one secret: `https://crm.example/*`. They must "
        "obey the `tenant` in the envelope.",
    )
    schedule: Annotated[list[Seconds], BeforeValidator(split)] = Field(
        default=[5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400],
        min_length=1,
        description="Seconds between attempts; after the last attempt the delivery is dead.",
    )
    time_limit: Seconds = Field(default=15, description="Seconds within which a receiver must answer.")


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
