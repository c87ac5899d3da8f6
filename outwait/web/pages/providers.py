"""`/providers`: each provider's load, its limits, and what holds requests back."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple
from urllib.parse import quote

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from outwait.web.actors import caller
from outwait.web.auth import require_all_tenants
from outwait.web.pages.rendering import HEADERS, page, span
from outwait.web.pages.session import Deciding, Operating, Viewer, Viewing
from outwait.web.services import Shared
from outwait.worker.model.jobs import JobState, Step
from outwait.worker.store.governors import GroupStatus
from outwait.worker.store.reads import LaneStatus

log = logging.getLogger(__name__)

router = APIRouter(prefix="/providers", include_in_schema=False)


class Gauge(NamedTuple):
    """How much of a limit is used; `limit` is None where there is none."""

    name: str
    used: int
    limit: int | None
    note: str = ""

    @property
    def share(self) -> int:
        """Per cent of the limit."""
        return min(100, round(100 * self.used / self.limit)) if self.limit else 0


class Card(NamedTuple):
    """What the page shows of one provider."""

    status: GroupStatus
    gauges: Sequence[Gauge]
    counts: Mapping[str, int]
    lanes: Sequence[LaneStatus]


@router.get("")
async def providers(request: Request, shared: Shared, viewer: Viewing) -> Response:
    """The page."""
    require_all_tenants(viewer.key)
    statuses, counts, lanes = await asyncio.gather(
        shared.client.providers(), shared.client.counts(), shared.client.lanes()
    )
    cards = [
        Card(
            status,
            _gauges(status),
            counts.get(status.provider, {}),
            [lane for lane in lanes if _is_lane_of(lane, status.provider)],
        )
        for status in statuses
    ]
    return await page(request, "providers.html", viewer, cards=cards, states=list(JobState))


@router.post("/{provider}/pause")
async def pause(
    viewer: Operating,
    client: Deciding,
    provider: str,
    reason: Annotated[str, Form(max_length=200)] = "",
) -> Response:
    """Send no more requests to the provider until a person resumes it."""
    require_all_tenants(viewer.key)
    await client.pause(provider, f"{reason.strip()} (by {viewer.key.name})".strip())
    return _back(viewer, provider, "paused")


@router.post("/{provider}/resume")
async def resume(viewer: Operating, client: Deciding, provider: str) -> Response:
    """End a pause, a person's or one that the provider asked for."""
    require_all_tenants(viewer.key)
    await client.resume(provider)
    return _back(viewer, provider, "resumed")


def _back(viewer: Viewer, provider: str, done: str) -> Response:
    log.info("pressed", extra={"what": done, "provider": provider, "caller": caller(viewer.key)})
    return RedirectResponse(f"/providers?done={done}#{quote(provider)}", 303, HEADERS)


def _gauges(status: GroupStatus) -> list[Gauge]:
    rate = [Gauge("Requests", status.rate, status.rate_limit, f"in the last {span(status.rate_window)}")]
    return [
        *(rate if status.rate_limit else []),
        Gauge("In flight", status.in_flight, status.in_flight_limit),
        Gauge("Jobs at the provider", status.jobs, status.jobs_limit),
    ]


def _is_lane_of(lane: LaneStatus, provider: str) -> bool:
    return lane.lane.name == provider and lane.lane.step is not Step.DELIVER
