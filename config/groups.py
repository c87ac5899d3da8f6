"""The groups of settings: one a step, one a part of the system. `config.settings` puts them together."""

import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from outwait.config.errors import Clash

SECRET_LEAST = 24
"""Characters of a secret that signs."""


def _login(value: SecretStr) -> SecretStr:
    user, _, password = value.get_secret_value().partition(":")
    if not (user and password):
        raise ValueError("must be user:password")
    return value


def _loopback(address: str) -> bool:
    return address in {"localhost", "::1"} or address.startswith("127.")


def _split(value: object) -> object:
    """`a.b,c.d` as well as a JSON list."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _secret(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value()) < SECRET_LEAST:
        raise ValueError(f"must have at least {SECRET_LEAST} characters: `openssl rand -hex 32` makes one")
    return value


def _place(value: str) -> str:
    try:
        ip_network(value, strict=False)
    except ValueError:
        if not _HOST.fullmatch(value.lower()):
            raise ValueError(
                "must be host names (media.internal, *.svc.cluster.local), addresses or networks (10.1.0.0/16)"
            ) from None
    return value


_HOST = re.compile(r"(?!.*(?:^|\.)[0-9]+$)(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")

BaseUrl = Annotated[str, Field(pattern=r"^https?://[^/?#\s]+[^?#\s]*$")]
"""Where a service is: http or https, with neither query nor fragment."""

WebhookSecret = Annotated[SecretStr, AfterValidator(_secret)]
Login = Annotated[SecretStr, AfterValidator(_login)]
Names = Annotated[list[str], BeforeValidator(_split)]
Places = Annotated[list[Annotated[str, AfterValidator(_place)]], BeforeValidator(_split)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Group(BaseModel):
    """A nested group: an unknown name in it is an error, so that a typing slip is seen."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class StepSettings(Group):
    """How one step behaves: submit, poll, callback or deliver."""

    time_limit: Seconds = Field(default=20, description="Seconds one step of one job may take.")
    lease: Seconds = Field(default=40, description="Seconds one worker owns a claimed step; longer than TIME_LIMIT.")
    attempts: int = Field(default=10, ge=1, description="Consecutive failed attempts before the step gives up.")
    backoff: Seconds = Field(default=2, description="Seconds before the first retry; doubled each time, with jitter.")
    backoff_max: Seconds = Field(
        default=300, description="Seconds that only a Retry-After may make a retry's countdown exceed."
    )
    cap: int = Field(default=2048, ge=1, description="Leases that may be out at once for one lane, over all workers.")

    @model_validator(mode="after")
    def _times_fit(self) -> Self:
        if self.lease <= self.time_limit:
            raise Clash(
                {"lease": self.lease, "time_limit": self.time_limit},
                "the lease must be longer, or a second worker would start a step that is still running",
            )
        if self.backoff_max < self.backoff:
            raise Clash(
                {"backoff": self.backoff, "backoff_max": self.backoff_max}, "the longest retry must not be the shorter"
            )
        return self


class PollSettings(StepSettings):
    """The poll step."""

    adaptive: bool = Field(default=True, description="Poll when jobs usually end, as learnt, not at fixed intervals.")


class StoreSettings(Group):
    """Sizes and times of what is kept in Redis."""

    retention: Seconds = Field(default=7 * 86400, description="Seconds a closed job is kept before it is purged.")
    params_max: int = Field(default=1_048_576, ge=1, description="Bytes of JSON that a job's request may have.")
    result_max: int = Field(default=33_554_432, ge=1, description="Bytes that a provider's answer may have.")
    compress_above: int = Field(
        default=1024, ge=0, description="Bytes above which requests and results are compressed."
    )
    timeout: Seconds = Field(default=10, description="Seconds to wait for an answer of Redis.")
    strict: bool = Field(default=False, description="Refuse to start unless Redis runs with appendfsync always.")


class WorkerSettings(Group):
    """One worker process."""

    concurrency: int = Field(default=16, ge=1, le=512, description="Batches that one worker process runs at once.")
    batch: int = Field(default=64, ge=1, le=1000, description="Claims in one Celery message.")
    tick: Seconds = Field(default=0.25, description="Seconds between two looks at what is due.")
    handoff: Seconds = Field(
        default=1.0, description="Seconds a batch may hold its thread; slow answers go on without it."
    )
    grace: Seconds = Field(
        default=65, description="Seconds to finish or give back held work at shutdown; longer than a submit may take."
    )
    alive: Path | None = Field(
        default=None, description="File that is touched whenever the worker has looked for due work, for health checks."
    )


class IntakeSettings(Group):
    """How producers' messages become jobs."""

    queue: str = Field(default="outwait", min_length=1, description="Queue that producers send tasks.submit to.")
    batch: int = Field(default=256, ge=1, le=5000, description="Messages taken in at once.")
    lease: Seconds = Field(default=30, description="Seconds one worker owns the messages that it takes in.")


class Route(Group):
    """Targets for jobs that name none of their own. The first route that matches is taken."""

    provider: str | None = None
    operation: str | None = None
    targets: list[str] = Field(min_length=1)


class HandlerSettings(Group):
    """Where results go."""

    modules: Names = Field(default=[], description="Python modules with functions marked @handler: `a.b,c.d`.")
    routes: list[Route] = Field(default=[], description="Targets by provider and operation.")
    folder: Path = Field(default=Path("outwait-data/results"), description="Folder that file: targets are kept inside.")


class EventSettings(Group):
    """What Celery's own tools see of a job."""

    jobs: bool = Field(default=True, description="Send events that give each job a row in Flower.")
    internal: bool = Field(default=False, description="Send events of the internal batches too.")
    results: bool = Field(default=True, description="Keep results for AsyncResult(job_id).get().")
    results_expire: Seconds = Field(default=86400, description="Seconds such a result is kept.")


class FlowerSettings(Group):
    """The Flower process."""

    address: str = Field(default="127.0.0.1", description="Address that Flower listens on.")
    port: int = Field(default=5555, ge=0, le=65535, description="Port that Flower listens on.")
    basic_auth: Login | None = Field(default=None, description="user:password for Flower's login.")
    max_tasks: int = Field(default=20_000, ge=100, description="Rows that Flower keeps in memory (about 6 KB each).")

    @model_validator(mode="after")
    def _locked(self) -> Self:
        if self.basic_auth is None and not _loopback(self.address):
            raise Clash(
                {"address": self.address, "basic_auth": ""},
                "Flower shows jobs to whoever reaches it: set a login (user:password), or listen on 127.0.0.1",
            )
        return self


class WebSettings(Group):
    """The web process: the HTTP API, the pages, providers' webhooks and metrics."""

    address: str = Field(default="127.0.0.1", description="Address that the web process listens on.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port that the web process listens on.")
    public_url: BaseUrl | None = Field(
        default=None, description="Where providers reach the web process; without it they are asked for no webhooks."
    )
    body_max: int = Field(default=4_194_304, ge=1024, description="Bytes that a request's body may have.")
    targets: Names = Field(
        default=["https://*", "[a-z]*"],
        description="Patterns of targets that HTTP producers may name: by default handlers' names and https URLs.",
    )
    cors_origins: Names = Field(default=[], description="Origins whose pages may call the API from a browser.")
    session: Seconds = Field(default=12 * 3600, description="Seconds for which a login to the pages is good.")
    flower_url: BaseUrl | None = Field(default=None, description="Where people reach Flower; the pages link to it.")


class OutboundSettings(Group):
    """Where workers may connect to on a producer's word: receivers of webhooks, sources of media."""

    allow: Places = Field(
        default=[], description="Hosts and networks allowed though private: `media.internal,10.1.0.0/16`."
    )


class WebhookSettings(Group):
    """Signed webhooks to `https://` targets."""

    secrets: Annotated[list[WebhookSecret], BeforeValidator(_split)] = Field(
        default=[],
        max_length=2,
        description="Master secrets that receivers' own are derived from, the newest first; two while they rotate.",
    )
    schedule: Annotated[list[Seconds], BeforeValidator(_split)] = Field(
        default=[5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400],
        min_length=1,
        description="Seconds between attempts; after the last one the delivery is dead.",
    )
    time_limit: Seconds = Field(default=15, description="Seconds in which a receiver must answer.")


class TraceSettings(Group):
    """OpenTelemetry; where spans go is told by its own OTEL_* variables."""

    enabled: bool = Field(default=False, description="Send a trace of each job; needs the extra `outwait[traces]`.")


class LogSettings(Group):
    """Logging of every process."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least level that is shown."
    )
    format: Literal["text", "json"] = Field(default="text", description="Lines for people, or one JSON object a line.")
