"""Every setting of Outwait, typed, from `OUTWAIT_*` variables, a `.env` file and secret files.

Nested groups are joined by two underscores: `OUTWAIT_POLL__TIME_LIMIT=20`. Nothing is read at import; a process
calls `load_settings()` once, in its composition root.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from config.errors import ConfigError, explain

SECRETS_DIR = "OUTWAIT_SECRETS_DIR"
"""Variable that names a folder of secret files, one a setting: `outwait_redis_url`, `outwait_providers__unless__api_key`."""


def _redis_scheme(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().startswith(("redis://", "rediss://", "unix://", "sentinel://")):
        raise ValueError("must begin with redis://, rediss://, unix:// or sentinel://")
    return value


RedisUrl = Annotated[SecretStr, AfterValidator(_redis_scheme)]
Seconds = Annotated[float, Field(gt=0)]


class Group(BaseModel):
    """A nested group: an unknown name in it is an error, so that a typing slip is seen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StepSettings(Group):
    """How one step behaves: submit, poll, callback or deliver."""

    time_limit: Seconds = Field(default=20, description="Seconds one step of one job may take.")
    lease: Seconds = Field(default=40, description="Seconds one worker owns a claimed step; longer than time_limit.")
    attempts: int = Field(default=10, ge=1, description="Consecutive failed attempts before the step gives up.")
    backoff: Seconds = Field(default=2, description="Seconds before the first retry; doubled each time, with jitter.")
    backoff_max: Seconds = Field(default=300, description="Seconds that no retry's countdown exceeds.")
    cap: int = Field(default=2048, ge=1, description="Leases that may be out at once for one lane, over all workers.")

    @model_validator(mode="after")
    def _lease_outlives_step(self) -> Self:
        if self.lease <= self.time_limit:
            raise ValueError(
                f"lease ({self.lease:g} s) must be longer than time_limit ({self.time_limit:g} s), "
                "or a second worker would start a step that is still running"
            )
        return self


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
    grace: Seconds = Field(default=30, description="Seconds to finish or give back held work at shutdown.")


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

    modules: list[str] = Field(default=[], description="Python modules with functions marked @handler.")
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
    basic_auth: SecretStr | None = Field(default=None, description="user:password for Flower's login.")
    max_tasks: int = Field(default=20_000, ge=100, description="Rows that Flower keeps in memory (about 6 KB each).")


class LogSettings(Group):
    """Logging of every process."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["text", "json"] = "text"


class Settings(BaseSettings):
    """All settings of one process."""

    model_config = SettingsConfigDict(
        env_prefix="OUTWAIT_",
        env_nested_delimiter="__",
        env_file=".env",
        extra="ignore",
        frozen=True,
        nested_model_default_partial_update=True,  # OUTWAIT_POLL__TIME_LIMIT alone keeps the poll step's other values
    )

    redis_url: RedisUrl = Field(
        default=SecretStr("redis://127.0.0.1:6379/0"), description="The store, and the broker unless broker_url is set."
    )
    broker_url: SecretStr | None = Field(default=None, description="Celery's broker, if it is not the store's Redis.")
    namespace: str = Field(
        default="outwait", pattern=r"^[A-Za-z0-9_.-]{1,40}$", description="Prefix and hash tag of every key of ours."
    )
    submit: StepSettings = StepSettings(time_limit=60, lease=90, attempts=6)
    poll: StepSettings = StepSettings(time_limit=20, lease=40, attempts=30)
    callback: StepSettings = StepSettings(time_limit=10, lease=20, attempts=100)
    deliver: StepSettings = StepSettings(time_limit=30, lease=45, attempts=8)
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
        """Whether Celery's messages live in Redis lists, so that the intake may take them itself."""
        return self.broker.startswith(("redis://", "rediss://", "unix://", "sentinel://"))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order of precedence: arguments, environment, `.env`, secret files, defaults."""
        secrets = NestedSecretsSettingsSource(
            file_secret_settings,
            secrets_dir=os.environ.get(SECRETS_DIR, "/run/secrets"),
            secrets_dir_missing="ok",
            secrets_prefix="OUTWAIT_",
            secrets_nested_delimiter="__",
        )
        return init_settings, env_settings, dotenv_settings, secrets


def load_settings(**overrides: Any) -> Settings:
    """Read the settings of this process.

    Raises:
        ConfigError: a value is wrong; the message names the variable, what was given and what is allowed.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise ConfigError(explain(error, prefix="OUTWAIT_")) from error
