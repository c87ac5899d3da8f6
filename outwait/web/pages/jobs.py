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
"""Choices of the filter by age: seconds, and their name."""

router = APIRouter(include_in_schema=False)


class ListQuery(BaseModel):
    """The list's query. A value that is not valid filters nothing."""

    state: str = ""
    provider: str = ""
    within: str = ""
    cursor: str = ""
    q: str = ""

    def filter(self, tenant: str | None) -> Filter:
        """The filter for the store."""
        state = JobState(self.state) if self.state in list(JobState) else None
        return {"state": state, "provider": self.provider or None, "since": since(self.within), "tenant": tenant}


@router.get("/jobs")
async def jobs(request: Request, shared: Shared, viewer: Viewing, query: Annotated[ListQuery, Query()]) -> Response:
    """The list; a search redirects to the page of its job."""
    job = await _find(shared, viewer.key, query.q.strip()) if query.q.strip() else None
    if job:
        return RedirectResponse(f"/jobs/{quote(job.id)}", 303, HEADERS)
    return await listing(request, viewer, query)


async def _find(shared: Services, key: ApiKey, text: str) -> Job | None:
    """The job with this id or idempotency key. Viewers of all tenants write `TENANT/KEY` for a tenant's job."""
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
    """The start of a filter's time span, in seconds since 1970; None without a filter."""
    return time.time() - int(within) if within in AGES else None


async def listing(request: Request, viewer: Viewer, query: ListQuery) -> Response:
    """The list as a page. After a search without a result it is empty."""
    text = query.q.strip()
    listed = Page([], None)
    if not text:
        filters = query.filter(viewer.key.tenant)
        listed = await services(request).client.jobs(limit=JOBS, cursor=query.cursor or None, **filters)
    chosen = query.model_dump(include={"state", "provider", "within"})
    kept = {name: value for name, value in chosen.items() if value}
    return await page(
        request,
        "jobs.html",
        viewer,
        jobs=listed.jobs,
        more=f"/jobs?{urlencode(kept | {'cursor': listed.cursor})}" if listed.cursor else None,
        first=f"/jobs?{urlencode(kept)}" if query.cursor else None,
        states=list(JobState),
        providers=services(request).registry.names,
        ages=AGES,
        chosen=chosen,
        filtered=bool(kept),
        q=text,
    )
