"""What every handler receives."""

from typing import Any

import msgspec

from outwait.worker.model.jobs import JobError, JobState

TENANT_HEADER = "outwait-tenant"
"""Where webhooks and Celery messages name the tenant beside the envelope, if the job has one."""


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """One ended job, for one handler: version 1 of the contract with receivers (docs/handlers.md).

    Within a version fields are only added, never removed, renamed or given another meaning.
    """

    delivery_id: str  # the same at every attempt and replay: throw away what you have seen already
    job_id: str
    provider: str
    operation: str
    state: JobState  # one of the four ends: succeeded, failed, expired, cancelled
    result: Any = None  # the provider's JSON; None unless succeeded
    error: JobError | None = None  # why the job did not succeed
    external_id: str | None = None  # the provider's own id; None if the job never reached it
    metadata: dict[str, Any] = {}  # the producer's, as it came
    created: float  # seconds since 1970: when the job was enqueued
    ended: float | None = None  # seconds since 1970: when its outcome was decided
    attempt: int = 1  # of this delivery, counted from 1
    version: int = 1
    tenant: str | None = None  # whose job it is; None if the producer named no tenant

    def json(self) -> bytes:
        """As one line of JSON."""
        return msgspec.json.encode(self)

    def data(self) -> dict[str, Any]:
        """As JSON data."""
        data: dict[str, Any] = msgspec.to_builtins(self)
        return data
