"""The contract of a provider: its operations, and how to submit and poll a job.

A provider is one file. It subclasses `Provider`, has its own settings, and builds plain `httpx.Request`s; an `Exchange`
sends and counts them. Its methods return or raise only what is defined below. A provider never uses the store, another
provider or Celery.
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
from outwait.worker.model.external_ids import is_external_id
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
"""A setting that is sent in a header and is not secret."""


class ProviderSettings(BaseModel):
    """Settings that every provider has: `OUTWAIT_PROVIDERS__<NAME>__…`. Each sets its own default for `base_url`."""

    # A variable with only digits is read as a number; here it is a string again, for example a key.
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
    breaker_longest: float = Field(default=60, gt=0, description="Maximum seconds between two probes.")
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
    """Parameters of one operation. An unknown name or a value of a wrong type is an error."""

    # Built when the first job needs it: most processes and commands never validate most operations.
    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True, strict=True)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a provider. Times are seconds."""

    name: str
    params: type[BaseModel]
    poll_every: float  # the provider's shortest allowed interval, or our choice if it publishes none
    first_poll: float  # after the submit
    deadline: float  # after the enqueue
    expiry: float | None = None  # life of the external id after the submit


Tenant = Callable[[], Awaitable[str]]
"""Reads the tenant of a job from the store, for a provider that needs it; empty if it has none."""


async def no_tenant() -> str:
    """Of a job without a tenant."""
    return ""


@dataclass(frozen=True, slots=True)
class Submission:
    """A job to submit."""

    job_id: str
    operation: str
    params: Any  # an instance of the operation's params model
    webhook_url: str | None = None
    tenant: Tenant = no_tenant


@dataclass(frozen=True, slots=True)
class Waiting:
    """A submitted job to poll."""

    job_id: str
    operation: str
    external_id: str
    memo: str  # a note from submit for poll, at most 64 bytes
    age: float  # seconds since the submit
    params: Callable[[], Awaitable[Any]]  # reads the parameters from the store, for a poll that needs them
    tenant: Tenant = no_tenant


@dataclass(frozen=True, slots=True)
class SubmitAnswer:
    """The provider accepted the job."""

    # Up to 500 printable characters; "" if the provider names none and only a webhook follows: the job waits for it.
    external_id: str
    memo: str = ""
    first_poll: float | None = None  # seconds; None: that of the operation


def traceable(answer: SubmitAnswer, job: Submission) -> SubmitAnswer:
    """The answer, by which the job can be followed: under its external id, or by its webhook. Raises Unreadable."""
    if answer.external_id and not is_external_id(answer.external_id):
        raise Unreadable("the job was accepted with an external id that has not the form of one")
    if not (answer.external_id or job.webhook_url):
        raise Unreadable("the job was accepted without an external id")
    return answer


@dataclass(frozen=True, slots=True)
class Pending:
    """Not finished. `status` is the provider's word for it."""

    status: str
    poll_in: float | None = None  # minimum seconds until the next poll; None: the operation's interval
    warning: str | None = None
    memo: str | None = None  # replaces the memo for the next poll; None keeps it
    safety: float | None = None  # seconds to the next poll while a webhook is expected; None: none is expected
    expires_in: float | None = (
        None  # seconds until the external id expires; None: as was said before, or the operation's
    )
    partial: "Succeeded | None" = None  # the end of the job if its time is over before more comes; None: it expires


@dataclass(frozen=True, slots=True)
class Succeeded:
    """Finished, with a result as JSON data. `warning` says what is missing or changed in it, for the timeline."""

    result: Any
    status: str
    warning: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """Finished with a failure. `code` and `message` are the provider's; secrets and URLs are removed from all of it."""

    status: str
    code: str
    message: str
    detail: Any = field(default=None)


PollAnswer = Pending | Succeeded | Failed


@dataclass(frozen=True, slots=True)
class WebhookAnswer:
    """What a provider's webhook says. If it has no `external_id`, only our URL identifies the job."""

    external_id: str | None
    answer: PollAnswer


class Provider(ABC):
    """One provider. Each process has one instance; it holds no state of jobs."""

    name: ClassVar[str]
    operations: ClassVar[Mapping[str, Operation]]
    settings_model: ClassVar[type[ProviderSettings]]
    refused: ClassVar[frozenset[int]] = frozenset()
    """HTTP statuses of a submit, beside 401, 403 and 429, which say for certain that the job was not accepted."""
    webhooks: ClassVar[bool] = False
    """Whether the provider sends webhooks: submit passes `webhook_url` on, and `read_webhook` reads the body."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        self._base = httpx.URL(settings.base_url.rstrip("/"))

    @abstractmethod
    async def submit(self, job: Submission, exchange: Exchange) -> SubmitAnswer:
        """Submit the job. Raises a ProviderError."""

    @abstractmethod
    async def poll(self, job: Waiting, exchange: Exchange) -> PollAnswer:
        """Ask for the job's status, and fetch its result if it is finished. Raises a ProviderError."""

    async def cancel(self, job: Waiting, exchange: Exchange) -> str:  # noqa: ARG002 - for providers that can cancel
        """Cancel the job at the provider. Returns what happened, for the timeline. Raises a ProviderError."""
        return f"{self.name} does not support cancelling"

    async def prepare(self, exchange: Exchange) -> None:  # noqa: B027 - most providers need none
        """Do what a submit needs before it and what costs nothing if it fails, for example get a token."""

    def read_webhook(self, body: bytes) -> WebhookAnswer:  # noqa: ARG002 - for providers that send webhooks
        """Read the body of a webhook. Raises Unreadable."""
        raise Unreadable(f"{self.name} sends no webhooks")

    def recognises(self, body: Any) -> bool:
        """Whether a decoded answer to a poll has a form that the provider documents: `outwait doctor` asks for a job
        that does not exist, and any web server answers that with 404.
        """
        return isinstance(body, dict)

    def request(self, method: str, path: str, **content: Any) -> httpx.Request:
        """A request to a path below the base URL. `path` may have a query; both must be percent-encoded."""
        if content.keys() <= {"headers"}:
            content["stream"] = _NO_BODY  # saves the time that httpx needs to find out that there is no body
        return httpx.Request(method, below(self._base, path), **content)


_NO_BODY = httpx.ByteStream(b"")

_PLAIN = re.compile(r"((?:/[\w~-][\w.~-]*)+)(?:\?([\w.~=&%-]*))?", re.ASCII)
"""A path, perhaps with a query, that httpx would not change."""


def below(base: httpx.URL, path: str) -> httpx.URL:
    """The URL of a path below `base`. The base is not parsed again: that took a tenth of the CPU of a poll."""
    plain = _PLAIN.fullmatch(path)
    if plain is None:
        return httpx.URL(str(base).rstrip("/") + path)
    url = httpx.URL(base)
    parts = url._uri_reference  # noqa: SLF001 - see above
    url._uri_reference = parts._replace(path=parts.path.rstrip("/") + plain[1], query=plain[2])  # noqa: SLF001
    return url
