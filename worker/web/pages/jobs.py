"""`/jobs`: the list with its filters, and the search."""

import time
from typing import Annotated
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel

from worker.jobs import JobState
from worker.web.pages.rendering import HEADERS, page
from worker.web.pages.session import Viewer, Viewing
from worker.web.pages.sight import Filter, Sight
from worker.web.services import Shared, services

AGES = {900: "15 minutes", 3600: "hour", 86400: "day", 604800: "7 days"}
"""Seconds since which jobs were created, as the list's filter offers them."""

router = APIRouter(include_in_schema=False)


class Asked(BaseModel):
    """The list's query; what makes no sense in it filters nothing."""

    state: str = ""
    provider: str = ""
    within: str = ""
    cursor: str = ""
    q: str = ""

    @property
    def filter(self) -> Filter:
        """Which jobs are wanted."""
        state = JobState(self.state) if self.state in list(JobState) else None
        return Filter(state=state, provider=self.provider or None, since=since(self.within))


@router.get("/jobs")
async def jobs(request: Request, shared: Shared, seen: Viewing, asked: Annotated[Asked, Query()]) -> Response:
    """The list, or the one job that is searched for."""
    found = await Sight(shared, seen).find(asked.q.strip()) if asked.q.strip() else None
    if found:
        return RedirectResponse(f"/jobs/{quote(found.id)}", 303, HEADERS)
    return await listing(request, seen, asked)


def since(within: str) -> float | None:
    """When the span of a filter began."""
    return time.time() - int(within) if within.isdecimal() and int(within) in AGES else None


async def listing(request: Request, seen: Viewer, asked: Asked) -> Response:
    """The list as a page."""
    found = await Sight(services(request), seen).jobs(asked.filter, asked.cursor or None)
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
        q=asked.q.strip(),
    )
