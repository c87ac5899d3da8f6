"""`/held`: uncertain jobs, about which a person must decide."""

from fastapi import APIRouter, Request, Response

from outwait.web.pages.jobs import JOBS
from outwait.web.pages.rendering import page
from outwait.web.pages.session import Viewing
from outwait.web.services import Shared
from outwait.worker.model.jobs import JobState

router = APIRouter(include_in_schema=False)


@router.get("/held")
async def held(request: Request, shared: Shared, viewer: Viewing, cursor: str = "") -> Response:
    """The list. Its buttons lead to the pages of the jobs."""
    tenant = viewer.key.tenant
    listed = await shared.client.jobs(limit=JOBS, cursor=cursor or None, state=JobState.UNCERTAIN, tenant=tenant)
    return await page(request, "held.html", viewer, jobs=listed.jobs, cursor=listed.cursor)
