"""`/held`: jobs that were submitted, perhaps, and wait for a person to decide."""

from fastapi import APIRouter, Request, Response

from outwait.web.pages.jobs import JOBS
from outwait.web.pages.rendering import page
from outwait.web.pages.session import Viewing
from outwait.web.services import Shared
from outwait.worker.model.jobs import JobState

router = APIRouter(include_in_schema=False)


@router.get("/held")
async def held(request: Request, shared: Shared, seen: Viewing, cursor: str = "") -> Response:
    """The list. Its buttons lead to the jobs' own pages."""
    found = await shared.client.jobs(
        limit=JOBS, cursor=cursor or None, state=JobState.UNCERTAIN, tenant=seen.key.tenant
    )
    return await page(request, "held.html", seen, jobs=found.jobs, cursor=found.cursor)
