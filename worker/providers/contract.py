"""What a provider is to Outwait: its operations, and how to submit and poll one job.

A provider is one file. It subclasses `Provider`, gets its own settings, and writes plain `httpx.Request`s; an
`Exchange` sends and counts them. What its methods return or raise is the closed set below; it never touches
the store, another provider or Celery.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import httpx
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from outwait.config.groups import BaseUrl
from outwait.worker.model.errors import Unreadable
from outwait.worker.model.jobs import UncertainPolicy
from outwait.worker.providers.exchange import Exchange


def _one_line(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("must be printable ASCII characters without spaces or line ends")
    return value


Credential = Annotated[SecretStr, AfterValidator(_one_line)]
"""A secret that is sent in a header or a form."""


HeaderText = Annotated[str, Field(pattern=r"^[!-~]+$")]
"""A setting that is sent in a header and is no secret."""


class ProviderSettings(BaseModel):
    """Settings that every provider has: `OUTWAIT_PROVIDERS__<NAME>__…`. Each has its own default for `base_url`."""

    # Digits in a variable arrive as a number; a key made of digits is still a text.
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    base_url: BaseUrl
    uncertain: UncertainPolicy = UncertainPolicy.HOLD
    rate_limit: int | None = Field(default=None, ge=1, description="Requests that may start in one rate_window.")
    rate_window: float = Field(default=60, gt=0, description="Seconds.")
    in_flight: int | None = Field(
        default=None, ge=1, description="Requests that may be open at once, over all workers."
    )
    jobs_in_flight: int | None = Field(default=None, ge=1, description="Jobs that the provider may have at once.")
    breaker_after: int = Field(default=10, ge=1, description="Outages in a row after which nothing more is sent.")
    breaker_wait: float = Field(default=5, gt=0, description="Seconds until the first probe; doubled each time.")
    breaker_longest: float = Field(default=60, gt=0, description="Seconds that two probes are apart at most.")
    deadline: float | None = Field(
        default=None, gt=0, description="Seconds after which a job expires, if it says nothing."
    )
    poll_every: float | None = Field(
        default=None, gt=0, description="Seconds between polls; below the vendor's minimum only here."
    )
    trust_webhooks: bool = Field(
        default=False, description="A webhook ends its job by itself; otherwise a poll confirms what it says."
    )


class Params(BaseModel):
    """Parameters of one operation; an unknown name and a value of another type are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


@dataclass(frozen=True, slots=True)
class Operation:
    """One endpoint or kind of a provider. Times in seconds."""

    name: str
    params: type[BaseModel]
    poll_every: float  # the vendor's shortest interval, or ours where it publishes none
    first_poll: float  # after the submit
    deadline: float  # after the enqueue
    expiry: float | None = None  # life of the external id after the submit


@dataclass(frozen=True, slots=True)
class Submission:
    """A job to submit."""

    job_id: str
    operation: str
    params: Any  # an instance of the operation's params model
    webhook_url: str | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A submitted job to poll."""

    job_id: str
    operation: str
    external_id: str
    memo: str  # what submit left for poll, at most 64 bytes
    age: float  # seconds since the submit
    params: Callable[[], Awaitable[Any]]  # reads the params from the store; only where a poll needs them


@dataclass(frozen=True, slots=True)
class SubmitAnswer:
    """The provider accepted the job."""

    external_id: str
    memo: str = ""
    first_poll: float | None = None  # seconds; None: the operation's own


@dataclass(frozen=True, slots=True)
class Pending:
    """Not finished. `status` is the provider's own word."""

    status: str
    poll_in: float | None = None  # seconds that the provider, or we, want to wait at least; None: the operation's own
    warning: str | None = None
    memo: str | None = None  # what the next poll needs instead of the present memo; None: the same
    safety: float | None = None  # seconds to wait instead as long as a webhook is awaited; None: none is


@dataclass(frozen=True, slots=True)
class Succeeded:
    """Finished, with its result as JSON data."""

    result: Any
    status: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Finished, and the provider says that it failed. `code` and `message` are the provider's."""

    status: str
    code: str
    message: str
    detail: Any = field(default=None)


PollAnswer = Pending | Succeeded | Failed


@dataclass(frozen=True, slots=True)
class WebhookAnswer:
    """What a provider's webhook says. Without `external_id`, our own URL alone tells the job."""

    external_id: str | None
    answer: PollAnswer


class Provider(ABC):
    """One provider. Constructed once a process, with its settings; holds no state of jobs."""

    name: ClassVar[str]
    operations: ClassVar[Mapping[str, Operation]]
    settings_model: ClassVar[type[ProviderSettings]]
    refused: ClassVar[frozenset[int]] = frozenset({429})
    """Statuses of a submit (`ProviderError.status`) that say for certain that the job was not taken."""
    webhooks: ClassVar[bool] = False
    """Whether a submission's `webhook_url` is passed on, and `read_webhook` reads what comes there."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        self._base = httpx.URL(settings.base_url.rstrip("/"))

    @abstractmethod
    async def submit(self, job: Submission, exchange: Exchange) -> SubmitAnswer:
        """Send the job. Raises a ProviderError."""

    @abstractmethod
    async def poll(self, job: Waiting, exchange: Exchange) -> PollAnswer:
        """Ask for the job; fetch its results if it is finished. Raises a ProviderError."""

    async def cancel(self, job: Waiting, exchange: Exchange) -> str:  # noqa: ARG002 - for those who can cancel
        """Tell the provider that nobody wants the job any more; what came of it. Raises a ProviderError."""
        return f"{self.name} cannot cancel"

    async def prepare(self, exchange: Exchange) -> None:  # noqa: B027 - most providers need none
        """Do what must precede a submit and costs nothing if it fails (get a token, say)."""

    def read_webhook(self, body: bytes) -> WebhookAnswer:  # noqa: ARG002 - for those who send webhooks
        """What a webhook's body says. Raises Unreadable."""
        raise Unreadable(f"{self.name} sends no webhooks")

    def request(self, method: str, path: str, **content: Any) -> httpx.Request:
        """A request below the provider's base URL. `path` may carry a query; both are percent-encoded already."""
        if content.keys() <= {"headers"}:
            content["stream"] = _NO_BODY  # else httpx goes through the ways to give one
        return httpx.Request(method, below(self._base, path), **content)


_NO_BODY = httpx.ByteStream(b"")

_PLAIN = re.compile(r"((?:/[\w~-][\w.~-]*)+)(?:\?([\w.~=&%-]*))?", re.ASCII)
"""A path, and perhaps a query, that httpx would leave as it is."""


def below(base: httpx.URL, path: str) -> httpx.URL:
    """The URL of a path below `base`. The base is not parsed anew: that took a tenth of the CPU of a poll."""
    plain = _PLAIN.fullmatch(path)
    if plain is None:
        return httpx.URL(str(base).rstrip("/") + path)
    url = httpx.URL(base)
    parts = url._uri_reference  # noqa: SLF001 - see above
    url._uri_reference = parts._replace(path=parts.path.rstrip("/") + plain[1], query=plain[2])  # noqa: SLF001
    return url
