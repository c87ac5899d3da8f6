"""`/`: the overview, and what needs a person. Who sees only one tenant's jobs is redirected to the list of jobs."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from outwait.web.pages.charts import WINDOWS, charts
from outwait.web.pages.rendering import HEADERS, page
from outwait.web.pages.session import Viewing
from outwait.web.services import Services, Shared
from outwait.worker.model.jobs import JobState
from outwait.worker.store.governors import GroupStatus
from outwait.worker.store.reads import LaneStatus
from outwait.worker.store.receivers import DisabledReceiver
from outwait.worker.store.statistics import Statistics

router = APIRouter(include_in_schema=False)

Counts = Mapping[str, Mapping[str, int]]


class Needs(NamedTuple):
    """What a person should take care of."""

    held: int
    dead: int
    stopped: Sequence[GroupStatus]
    receivers: Sequence[DisabledReceiver]
    parked: int
    misdirected: int
    orphans: int
    unserved: Sequence[LaneStatus]

    @property
    def nothing(self) -> bool:
        """Whether nothing needs a person."""
        return not any(self)


@router.get("/")
async def overview(request: Request, shared: Shared, viewer: Viewing, window: str = "60") -> Response:
    """The front page."""
    if not viewer.sees_all_tenants:
        return RedirectResponse("/jobs", 303, HEADERS)
    minutes = next((length for length in WINDOWS if str(length) == window), 60)
    stats = shared.store.statistics
    counts, lanes, history, needs = await asyncio.gather(
        shared.client.counts(), shared.client.lanes(), stats.history(minutes), _needs(shared, stats)
    )
    return await page(
        request,
        "overview.html",
        viewer,
        counts=counts,
        totals=_totals(counts),
        states=list(JobState),
        lanes=[lane for lane in lanes if lane.due_now or lane.waiting or lane.leased],
        due=sum(lane.due_now for lane in lanes),
        latest=max((lane.oldest_due_age for lane in lanes if not _held(lane)), default=0.0),
        charts=charts(history, WINDOWS[minutes]),
        window=minutes,
        needs=needs,
    )


async def _needs(shared: Services, stats: Statistics) -> Needs:
    client = shared.client
    held, dead, providers, receivers, parked, misdirected = await asyncio.gather(
        stats.held(shared.registry.names),
        stats.dead(),
        client.providers(),
        client.disabled_receivers(),
        client.parked(),
        client.misdirected(),
    )
    stopped = [status for status in providers if not status.flows]
    unserved, orphans = await client.unserved(), len(await client.orphans())
    return Needs(sum(held.values()), dead, stopped, receivers, len(parked), misdirected, orphans, unserved)


def _totals(counts: Counts) -> dict[str, int]:
    return {state: sum(numbers.get(state, 0) for numbers in counts.values()) for state in JobState}


def _held(lane: LaneStatus) -> bool:
    return lane.lane.step is None
