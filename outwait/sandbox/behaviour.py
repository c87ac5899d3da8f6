"""Orders for the sandbox: how a job behaves, and which faults its requests have. Pure data."""

import random
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class Call(StrEnum):
    """The purpose of a request."""

    SUBMIT = "submit"
    POLL = "poll"
    FETCH = "fetch"
    TOKEN = "token"  # noqa: S105 - a kind of request
    UPLOAD = "upload"
    OTHER = "other"  # declared parameters, delete, revoke
    ANY = "any"  # only in an order: any purpose


class FaultKind(StrEnum):
    """The kinds of faults. The request is processed unless the comment says otherwise."""

    ERROR = "error"  # an error status, and the request was not processed
    ERROR_AFTER = "error_after"  # an error status although it was processed
    RATE_LIMIT = "rate_limit"  # 429 and a penalty, not processed
    DROP = "drop"  # the connection breaks, not processed
    DROP_AFTER = "drop_after"
    HANG = "hang"  # no answer comes, not processed
    HANG_AFTER = "hang_after"
    HTML = "html"  # a web page with status 200
    BROKEN_JSON = "broken_json"  # half of the answer
    ODD_JSON = "odd_json"  # the answer with NaN and half a character in it, which strict readers refuse
    EMPTY = "empty"  # no body
    CONTENT_TYPE = "content_type"  # the right body as text/plain
    BYTE_ORDER_MARK = "byte_order_mark"  # the right body behind such a mark
    HEADERS = "headers"  # the right answer, with headers replaced or added


class Outcome(StrEnum):
    """How a job ends."""

    SUCCESS = "success"
    FAILURE = "failure"
    DOWNLOAD_FAILURE = "download_failure"  # the provider could not fetch the media
    NEVER = "never"
    UNKNOWN = "unknown"  # an undocumented status, for ever


class WebhookMode(StrEnum):
    """When a job's webhook is sent."""

    ON_TIME = "on_time"
    EARLY = "early"  # before the submit's answer
    LATE = "late"  # `webhook_delay` seconds after the end
    TWICE = "twice"
    NEVER = "never"


class WebhookShape(StrEnum):
    """The body of a webhook: the provider's samples show both forms."""

    ENVELOPE = "envelope"  # the document of the job status
    BARE = "bare"  # status and response only, without the job's id


class _Order(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Fault(_Order):
    """One fault."""

    fault: FaultKind
    on: Call
    times: int | None = Field(default=1, ge=1, description="Number of requests with the fault; null: all.")
    probability: float = Field(default=1, gt=0, le=1)
    status: int = Field(default=503, ge=400, le=599, description="Status of `error` and `error_after`.")
    seconds: float | None = Field(
        default=None,
        ge=0,
        description="hang: its length (default: an hour); rate_limit: the penalty (default: the sandbox's); "
        "error: a Retry-After (default: none).",
    )
    headers: dict[str, str] = Field(default={}, description="headers: replaced or added.")


class Behaviour(_Order):
    """How a job behaves. Times in seconds."""

    duration: float = Field(default=2, ge=0, description="From submit (or upload) to the end.")
    jitter: float = Field(default=0.2, ge=0, le=1, description="Share by which durations vary.")
    unfinished_polls: int = Field(
        default=0, ge=0, description="Polls that find it unfinished, however much later they come."
    )
    outcome: Outcome = Outcome.SUCCESS
    word: str | None = Field(
        default=None, max_length=60, description="A status to use instead of the normal ones in progress."
    )
    latency: float = Field(default=0, ge=0, description="Before each answer.")
    result_bytes: int = Field(default=0, ge=0, le=1 << 30, description="Minimum size of the result's text.")
    upload_failures: int = Field(default=0, ge=0, description="Uploads that end in fileUploadFailed.")
    absences: int = Field(
        default=0, ge=0, description="How often the punctuated transcript and the AI results are 404 before they come."
    )
    punctuated_empty: bool = Field(default=False, description="204 for the punctuated transcript.")
    expiry: float | None = Field(
        default=None, ge=0, le=1e9, description="Life of the id; null: as long as the real provider's."
    )
    webhook: WebhookMode = WebhookMode.ON_TIME
    webhook_shape: WebhookShape = WebhookShape.ENVELOPE
    webhook_delay: float = Field(default=5, ge=0)
    faults: tuple[Fault, ...] = ()


class BadOrder(ValueError):
    """An invalid order. The message names the field and what is allowed."""


class Plan:
    """The faults that are still to come, in order."""

    __slots__ = ("_left",)

    def __init__(self, faults: Sequence[Fault]) -> None:
        self._left: list[tuple[Fault, int | None]] = [(fault, fault.times) for fault in faults]

    def take(self, call: Call, rng: random.Random) -> Fault | None:
        """The fault for this request, or None. A fault that is returned is counted."""
        for at, (fault, left) in enumerate(self._left):
            if fault.on not in (call, Call.ANY) or (fault.probability < 1 and rng.random() >= fault.probability):
                continue
            if left == 1:
                del self._left[at]
            elif left is not None:
                self._left[at] = (fault, left - 1)
            return fault
        return None


def ordered(base: Behaviour, changes: dict[str, Any]) -> Behaviour:
    """`base` with changes; faults are not inherited. Raises BadOrder."""
    try:
        return Behaviour.model_validate({**base.model_dump(exclude={"faults"}), **changes})
    except ValidationError as error:
        raise BadOrder(describe(error)) from error


def describe(error: ValidationError) -> str:
    """What is wrong with each value: where it is, what was given, what is allowed."""
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc']) or 'order'}: given {problem.get('input')!r}, {problem['msg']}"
        for problem in error.errors()
    )
