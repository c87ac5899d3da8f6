"""Makes jobs and deliveries of what the store has of them. Pure."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from outwait.worker.model.jobs import Delivery, DeliveryState, Job, JobError, JobState, Ledger, job_of
from outwait.worker.store import codec
from outwait.worker.store.fields import DeliveryField, JobField

_LEDGER = {
    "submits": JobField.SUBMITS,
    "polls": JobField.POLLS,
    "fetches": JobField.FETCHES,
    "webhooks": JobField.WEBHOOKS,
    "deliveries": JobField.DELIVERY_ATTEMPTS,
}
"""Where each count of the ledger stands."""

LISTED_MAX = 8192
"""Bytes of a request, or an error, that a list reads: so many of a page's 500 jobs are 4 MiB, not 500."""

FIRST_TIME = 1e12
"""Scores below are places in lines of a submit lane, not times (prelude.lua)."""


class Shown(msgspec.Struct):
    """The part of a request that a job shows; its parameters are not decoded."""

    targets: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}


_ERROR_HEAD = re.compile(rb'\{"code":"(?:[^"\\]|\\.)*","message":"(?:[^"\\]|\\.)*"')
"""An error as `JobError.text` writes it, up to its detail."""

_decode_shown = msgspec.json.Decoder(Shown).decode


def _seconds(value: str | None) -> float | None:
    return int(value) / 1000 if value else None


def texts(row: Mapping[bytes, bytes]) -> dict[str, str]:
    """The fields of a job's hash."""
    return {name.decode(): value.decode() for name, value in row.items()}


def shown(spec: bytes | None) -> Shown:
    """What a job shows of its request."""
    return _decode_shown(codec.inflate(spec)) if spec else Shown()


def shown_within(spec: bytes) -> Shown | None:
    """What a list shows of a request; None if that is too large, although it was stored in few bytes."""
    text = codec.inflate_within(spec, LISTED_MAX)
    return None if text is None else _decode_shown(text) if text else Shown()


def brief_error(beginning: bytes) -> JobError | None:
    """An error of which at most `LISTED_MAX` bytes and one more were read: the detail of a longer one is left out."""
    if len(beginning) <= LISTED_MAX:
        return codec.decode_error(beginning) if beginning else None
    head = _ERROR_HEAD.match(beginning)
    return codec.decode_error(head[0] + b"}") if head else JobError("unknown", "the error is too long for a list")


def job(job_id: str, fields: dict[str, str], request: Shown | None, error: JobError | None, due: float | None) -> Job:
    """A job as it is stored.

    Args:
        job_id: its id.
        fields: of its hash.
        request: what it shows of it; None abridges the job.
        error: its error.
        due: its score in its lane, if it stands in one.
    """
    asked = request or Shown()
    return Job(
        id=job_id,
        provider=fields[JobField.PROVIDER],
        operation=fields[JobField.OPERATION],
        state=JobState(fields[JobField.STATE]),
        created=int(fields[JobField.CREATED]) / 1000,
        external_id=fields.get(JobField.EXTERNAL_ID),
        provider_status=fields.get(JobField.PROVIDER_STATUS),
        submitted=_seconds(fields.get(JobField.SUBMITTED)),
        ended=_seconds(fields.get(JobField.ENDED)),
        closed=_seconds(fields.get(JobField.CLOSED)),
        deadline=_seconds(fields.get(JobField.DEADLINE)),
        due=_due(due, fields),
        attempts=int(fields.get(JobField.ATTEMPTS, 0)),
        ledger=Ledger(**{count: int(fields.get(field, 0)) for count, field in _LEDGER.items()}),
        error=error,
        targets=asked.targets,
        metadata=asked.metadata,
        tenant=fields.get(JobField.TENANT),
        abridged=request is None,
    )


def _due(score: float | None, fields: dict[str, str]) -> float | None:
    if score is None or score == float("inf"):
        return None
    return (score if score >= FIRST_TIME else int(fields.get(JobField.DUE) or fields[JobField.CREATED])) / 1000


def delivery(delivery_id: str, row: Mapping[bytes, bytes]) -> Delivery:
    """A delivery as it is stored."""
    fields = {name.decode(): value for name, value in row.items()}
    error = fields.get(DeliveryField.ERROR)
    return Delivery(
        id=delivery_id,
        job_id=job_of(delivery_id),
        target=fields[DeliveryField.TARGET].decode(),
        state=DeliveryState(fields[DeliveryField.STATE].decode()),
        attempts=int(fields.get(DeliveryField.ATTEMPTS, 0)),
        error=codec.decode_error(error) if error else None,
    )
