"""Every setting of Outwait, typed, from `OUTWAIT_*` variables, a `.env` file and secret files.

Nested groups are joined by two underscores: `OUTWAIT_POLL__TIME_LIMIT=20`. Nothing is read at import; a process
calls `load_settings()` once, in its composition root.
"""

import re
from collections.abc import Iterable
from typing import Any, Self

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from outwait.config.errors import Clash, ConfigError, explain, unknown
from outwait.config.groups import (
    DeliverSettings,
    EventSettings,
    HandlerSettings,
    IntakeSettings,
    LogSettings,
    PollSettings,
    StepSettings,
    StoreSettings,
    TenantSettings,
    TraceSettings,
    WorkerSettings,
)
from outwait.config.http_groups import FlowerSettings, OutboundSettings, WebhookSettings, WebSettings
from outwait.config.names import DELIMITER, PREFIX, group_of, variables
from outwait.config.reserved import foreign
from outwait.config.sources import SECRETS_DIR, Source, sources
from outwait.config.urls import BrokerUrl, RedisAddress, RedisUrl, address_of, is_redis

_STEPS = ("submit", "poll", "callback", "deliver")

# Kubernetes and Docker put such variables into containers for a service called outwait-something.
_SERVICE_LINK = re.compile(r".+_SERVICE_(HOST|PORT)(_.+)?|.+_PORT_\d+_(TCP|UDP|SCTP)(_.+)?")
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


class Settings(BaseSettings):
    """All settings of one process."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=DELIMITER,
        env_file=".env",
        env_ignore_empty=True,  # compose files and shells pass unset variables as empty ones
        hide_input_in_errors=True,  # a traceback must not show a password
        extra="ignore",
        frozen=True,
        nested_model_default_partial_update=True,  # OUTWAIT_POLL__TIME_LIMIT alone keeps the poll step's other values
    )

    redis_url: RedisUrl = Field(
        default=SecretStr("redis://127.0.0.1:6379/0"),
        description="URL of the store; also of the broker, unless OUTWAIT_BROKER_URL is set.",
    )
    broker_url: BrokerUrl | None = Field(
        default=None, description="URL of Celery's broker, if it is RabbitMQ and not the store's Redis."
    )
    namespace: str = Field(
        default="outwait",
        pattern=r"^[A-Za-z0-9_.-]{1,40}$",
        description="Prefix and hash tag of all keys in the store.",
    )
    submit: StepSettings = StepSettings(time_limit=60, attempts=30)
    poll: PollSettings = PollSettings(time_limit=20, attempts=30)
    callback: StepSettings = StepSettings(time_limit=10, attempts=100)
    deliver: DeliverSettings = DeliverSettings(time_limit=30, attempts=8, cap=256)  # results wait in memory
    store: StoreSettings = StoreSettings()
    tenants: TenantSettings = TenantSettings()
    worker: WorkerSettings = WorkerSettings()
    intake: IntakeSettings = IntakeSettings()
    handlers: HandlerSettings = HandlerSettings()
    events: EventSettings = EventSettings()
    flower: FlowerSettings = FlowerSettings()
    web: WebSettings = WebSettings()
    outbound: OutboundSettings = OutboundSettings()
    webhooks: WebhookSettings = WebhookSettings()
    traces: TraceSettings = TraceSettings()
    log: LogSettings = LogSettings()
    providers: dict[str, dict[str, Any]] = Field(
        default={}, description="Settings of each provider, checked by the provider itself; see docs/providers.md."
    )

    @property
    def broker(self) -> str:
        """The broker's URL, password included."""
        return (self.broker_url or self.redis_url).get_secret_value()

    @property
    def broker_is_redis(self) -> bool:
        """Whether Celery's messages live in the store's Redis, so that the intake takes them itself."""
        return is_redis(self.broker)

    @property
    def redis_address(self) -> RedisAddress:
        """Where the store is."""
        return address_of(self.redis_url.get_secret_value())

    @property
    def step_queues(self) -> dict[str, str]:
        """The Celery queue that carries the batches of each step."""
        return {step: f"{self.namespace}.{step}" for step in _STEPS}

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.worker.grace < self.submit.time_limit:
            raise Clash(
                {"worker__grace": self.worker.grace, "submit__time_limit": self.submit.time_limit},
                "the grace must not be shorter, or a shutdown interrupts submits and leaves their jobs uncertain",
            )
        if self.intake.queue in self.step_queues.values() or foreign(self.intake.queue):
            raise Clash(
                {"intake__queue": self.intake.queue, "namespace": self.namespace},
                "this name is Celery's, or of a queue with our own batches; producers need another queue",
            )
        if self.broker_is_redis and address_of(self.broker).place != self.redis_address.place:
            raise Clash(
                {"broker_url": self.broker, "redis_url": self.redis_url.get_secret_value()},
                "these are two databases, but a job is taken in by one atomic step inside one database: leave "
                "OUTWAIT_BROKER_URL unset, or use RabbitMQ",
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


def _unknown(read: Iterable[Source], overrides: Iterable[str]) -> list[str]:
    given = {name.upper(): value for source in read for name, value in source.env_vars.items()}
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
