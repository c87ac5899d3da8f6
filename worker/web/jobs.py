"""`/v1/jobs`: enqueue, look, decide."""

from typing import Any

import msgspec
from fastapi import APIRouter

from worker.web.auth import Reader
from worker.web.services import Shared

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.get("/{job_id}")
async def job(job_id: str, shared: Shared, key: Reader) -> dict[str, Any]:  # noqa: ARG001 - it must be there
    """The job as it stands."""
    found: dict[str, Any] = msgspec.to_builtins(await shared.client.job(job_id))
    return found
