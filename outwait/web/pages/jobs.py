"""`/jobs`: the list with its filters, and the search."""

import asyncio
import contextlib
import time
from typing import Annotated
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel

from outwait.web.auth import visible
from outwait.web.pages.rendering import HEADERS, page
from outwait.web.pages.session import Viewer, Viewing
from outwait.web.services import Services, Shared, services
from outwait.worker.model.errors import JobNotFound
from outwait.worker.model.jobs import Job, JobState
from outwait.worker.store.access import ApiKey
from outwait.worker.store.listing import Filter, Page

JOBS = 50
"""Jobs on one page."""

AGES = {"900": "15 minutes", "3600": "hour", "86400": "day", "604800": "7 days"}
"""Seconds since which jobs were created, as the list's filter offers them."""

router = APIRouter(include_in_schema=False)


class Asked(BaseModel):
    """The list's query; what makes no sense in it filters nothing."""

    state: str = ""
    provider: str = ""
    within: str = ""
    cursor: str = ""
    q: str = ""

    def filter(self, tenant: str | None) -> Filter:
        """Which jobs are wanted."""
        state = JobState(self.state) if self.state in list(JobState) else None
        return {"state": state, "provider": self.provider or None, "since": since(self.within), "tenant": tenant}


@router.get("/jobs")
async def jobs(request: Request, shared: Shared, seen: Viewing, asked: Annotated[Asked, Query()]) -> Response:
    """The list, or the one job that is searched for."""
    found = await _find(shared, seen.key, asked.q.strip()) if asked.q.strip() else None
    if found:
        return RedirectResponse(f"/jobs/{quote(found.id)}", 303, HEADERS)
    return await listing(request, seen, asked)


async def _find(shared: Services, key: ApiKey, text: str) -> Job | None:
    """The job with this id, or else with this idempotency key; a tenant's is `TENANT/KEY` for those who see all."""
    reads, (tenant, _, rest) = shared.store.reads, text.partition("/")
    lookups = [reads.of_key(text, key.tenant)]
    if key.tenant is None and rest:
        lookups.append(reads.of_key(rest, tenant))
    for job_id in (text, *await asyncio.gather(*lookups)):
        with contextlib.suppress(JobNotFound):
            if job_id:
                return await visible(shared, key, job_id)
    return None


def since(within: str) -> float | None:
    """When the span of a filter began."""
    return time.time() - int(within) if within in AGES else None


async def listing(request: Request, seen: Viewer, asked: Asked) -> Response:
    """The list as a page."""
    sought = asked.q.strip()
    found = Page([], None)
    if not sought:
        wanted = asked.filter(seen.key.tenant)
        found = await services(request).client.jobs(limit=JOBS, cursor=asked.cursor or None, **wanted)
    shown = asked.model_dump(include={"state", "provider", "within"})
    kept = {name: value for name, value in shown.items() if value}
    return await page(
        request,
        "jobs.html",
        seen,
        jobs=found.jobs,
        more=f"/jobs?{urlencode(kept | {'cursor': found.cursor})}" if found.cursor else None,
        first=f"/jobs?{urlencode(kept)}" if asked.cursor else None,
        states=list(JobState),
        providers=services(request).registry.names,
        ages=AGES,
        wanted=shown,
        filtered=bool(kept),
        q=sought,
    )
