"""`/livez`: this process answers. `/readyz`: its store answers and takes writes too, and is safe to use.

Neither needs an API key.
"""

import asyncio
import logging

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from outwait.web.problems import detail, problem
from outwait.web.services import Shared
from outwait.worker.model.errors import OutwaitError, StoreUnavailable

log = logging.getLogger(__name__)

WITHIN = 3.0
"""Seconds within which the store must answer; probes have short time-outs."""

router = APIRouter(include_in_schema=False)


@router.get("/livez")
async def live() -> dict[str, str]:
    """Whether the process answers. It does not depend on Redis."""
    return {"status": "alive"}


@router.get("/readyz")
async def ready(shared: Shared) -> Response:
    """Whether requests can be served now."""
    try:
        async with asyncio.timeout(WITHIN):
            await shared.store.health.require_fit()
            await shared.store.health.require_writable()
            await shared.store.health.require_key_types()
    except TimeoutError:
        return _not_ready(StoreUnavailable(f"Redis did not answer within {WITHIN:g} s"))
    except StoreUnavailable as error:
        return _answer(error)  # the store logs it
    except OutwaitError as error:
        return _not_ready(error)
    return JSONResponse({"status": "ready"})


def _not_ready(error: OutwaitError) -> Response:
    log.warning("not-ready", extra={"error": str(error)})
    return _answer(error)


def _answer(error: OutwaitError) -> Response:
    return problem(503, error.code, "Not ready", detail(error), {"Retry-After": "5"})
