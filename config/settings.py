"""Every setting of Outwait, typed, from `OUTWAIT_*` variables, a `.env` file and secret files.

Nested groups are joined by two underscores: `OUTWAIT_POLL__TIME_LIMIT=20`. Nothing is read at import; a process
calls `load_settings()` once, in its composition root.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from config.errors import Clash, ConfigError, explain, unknown
from config.names import DELIMITER, PREFIX, group_of, variables
from config.sources import SECRETS_DIR, Source, sources
from config.urls import BrokerUrl, RedisUrl, place

_STEPS = ("submit", "poll", "callback", "deliver")

# Kubernetes and Docker put such variables into containers for a service called outwait-something.
_SERVICE_LINK = re.compile(r".+_SERVICE_(HOST|PORT)(_.+)?|.+_PORT_\d+_(TCP|UDP|SCTP)(_.+)?")
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


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


Login = Annotated[SecretStr, AfterValidator(_login)]
Names = Annotated[list[str], BeforeValidator(_split)]
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


class LogSettings(Group):
    """Logging of every process."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least level that is shown."
    )
    format: Literal["text", "json"] = Field(default="text", description="Lines for people, or one JSON object a line.")


class Settings(BaseSettings):
    """All settings of one process."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=DELIMITER,
        env_file=".env",
        env_ignore_empty=True,  # compose files and shells pass on variables that nobody set as empty ones
        hide_input_in_errors=True,  # a traceback must not show a password
        extra="ignore",
        frozen=True,
        nested_model_default_partial_update=True,  # OUTWAIT_POLL__TIME_LIMIT alone keeps the poll step's other values
    )

    redis_url: RedisUrl = Field(
        default=SecretStr("redis://127.0.0.1:6379/0"),
        description="The store, and the broker unless OUTWAIT_BROKER_URL is set.",
    )
    broker_url: BrokerUrl | None = Field(
        default=None, description="Celery's broker, if it is RabbitMQ and not the store's Redis."
    )
    namespace: str = Field(
        default="outwait", pattern=r"^[A-Za-z0-9_.-]{1,40}$", description="Prefix and hash tag of every key of ours."
    )
    submit: StepSettings = StepSettings(time_limit=60, lease=90, attempts=30)
    poll: PollSettings = PollSettings(time_limit=20, lease=40, attempts=30)
    callback: StepSettings = StepSettings(time_limit=10, lease=20, attempts=100)
    deliver: StepSettings = StepSettings(time_limit=30, lease=45, attempts=8, cap=256)  # results wait in memory
    store: StoreSettings = StoreSettings()
    worker: WorkerSettings = WorkerSettings()
    intake: IntakeSettings = IntakeSettings()
    handlers: HandlerSettings = HandlerSettings()
    events: EventSettings = EventSettings()
    flower: FlowerSettings = FlowerSettings()
    log: LogSettings = LogSettings()
    providers: dict[str, dict[str, Any]] = Field(
        default={}, description="Settings of each provider, checked by the provider itself: see docs/providers.md."
    )

    @property
    def broker(self) -> str:
        """The broker's URL, password included."""
        return (self.broker_url or self.redis_url).get_secret_value()

    @property
    def broker_is_redis(self) -> bool:
        """Whether Celery's messages live in the store's Redis, so that the intake takes them itself."""
        return self.broker.startswith("redis")

    @property
    def step_queues(self) -> dict[str, str]:
        """The Celery queue that carries the batches of each step."""
        return {step: f"{self.namespace}.{step}" for step in _STEPS}

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.worker.grace < self.submit.time_limit:
            raise Clash(
                {"worker__grace": self.worker.grace, "submit__time_limit": self.submit.time_limit},
                "the grace must not be shorter, or a submit that is cut off at shutdown leaves its job uncertain",
            )
        if self.intake.queue in self.step_queues.values():
            raise Clash(
                {"intake__queue": self.intake.queue, "namespace": self.namespace},
                "that queue carries our own batches; producers need another one",
            )
        if self.broker_is_redis and place(self.broker) != place(self.redis_url.get_secret_value()):
            raise Clash(
                {"broker_url": self.broker, "redis_url": self.redis_url.get_secret_value()},
                "these are two databases, and a job is taken in by one atomic step inside one of them: leave "
                "OUTWAIT_BROKER_URL unset, or let it be RabbitMQ",
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - ours follow, and say where a value came from
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order of precedence: arguments, environment, `.env`, secret files, defaults."""
        return init_settings, *sources(settings_cls)


def load_settings(**overrides: Any) -> Settings:
    """Read the settings of this process.

    Raises:
        ConfigError: a value is wrong; the message names the variable, what was given and what is allowed.
    """
    try:
        wrong = _unknown(sources(Settings), overrides)
        settings = Settings(**overrides)
    except ValidationError as error:
        wrong.append(explain(error, PREFIX, Settings))
    except (SettingsError, OSError, UnicodeError) as error:
        raise ConfigError(str(error)) from error
    if wrong:
        raise ConfigError("\n".join(wrong))
    return settings


def _unknown(found: Iterable[Source], overrides: Iterable[str]) -> list[str]:
    given = {name.upper(): value for source in found for name, value in source.env_vars.items()}
    given |= {(PREFIX + name).upper(): "" for name in overrides}
    known = [name for name, _, _ in variables(Settings)]
    return [unknown(name, known) for name, value in sorted(given.items()) if _foreign(name, value or "")]


def _foreign(name: str, value: str) -> bool:
    if not name.startswith(PREFIX) or name == SECRETS_DIR:
        return False
    if _SERVICE_LINK.fullmatch(name) or _SERVICE_ADDRESS.match(value):
        return False
    head, nested, _ = name.removeprefix(PREFIX).lower().partition(DELIMITER)
    field = Settings.model_fields.get(head)
    return field is None or bool(nested and head != "providers" and group_of(field) is None)
