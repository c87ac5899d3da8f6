"""`/providers`: what goes to each provider now, its limits, and what holds requests back."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple
from urllib.parse import quote

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from outwait.web.auth import need_whole
from outwait.web.pages.rendering import HEADERS, page, span
from outwait.web.pages.session import Operating, Viewing
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
        """Of a hundred."""
        return min(100, round(100 * self.used / self.limit)) if self.limit else 0


class Card(NamedTuple):
    """One provider."""

    status: GroupStatus
    gauges: Sequence[Gauge]
    counts: Mapping[str, int]
    lanes: Sequence[LaneStatus]


@router.get("")
async def providers(request: Request, shared: Shared, seen: Viewing) -> Response:
    """All of them."""
    need_whole(seen.key)
    groups, counts, lanes = await asyncio.gather(
        shared.client.providers(), shared.client.counts(), shared.client.lanes()
    )
    cards = [
        Card(group, _gauges(group), counts.get(group.group, {}), [one for one in lanes if _of(one, group.group)])
        for group in groups
    ]
    return await page(request, "providers.html", seen, cards=cards, states=list(JobState))


@router.post("/{provider}/pause")
async def pause(
    shared: Shared, seen: Operating, provider: str, reason: Annotated[str, Form(max_length=200)] = ""
) -> Response:
    """Send nothing more there until a person resumes it."""
    need_whole(seen.key)
    await shared.client.pause(provider, f"{reason.strip()} (by {seen.key.name})".strip())
    return _back(seen.key.name, provider, "paused")


@router.post("/{provider}/resume")
async def resume(shared: Shared, seen: Operating, provider: str) -> Response:
    """Let it go on."""
    need_whole(seen.key)
    await shared.client.resume(provider)
    return _back(seen.key.name, provider, "resumed")


def _back(key: str, provider: str, done: str) -> Response:
    log.info("pressed", extra={"what": done, "provider": provider, "key": key})
    return RedirectResponse(f"/providers?done={done}#{quote(provider)}", 303, HEADERS)


def _gauges(group: GroupStatus) -> list[Gauge]:
    rate = [Gauge("Requests", group.rate, group.rate_limit, f"in the last {span(group.rate_window)}")]
    return [
        *(rate if group.rate_limit else []),
        Gauge("In flight", group.in_flight, group.in_flight_limit),
        Gauge("Jobs there", group.jobs, group.jobs_limit),
    ]


def _of(lane: LaneStatus, provider: str) -> bool:
    return lane.lane.name == provider and lane.lane.step is not Step.DELIVER
