"""Lanes that this worker cannot serve: it has no credentials for the provider, or no handler of that name.

It leaves them to other workers. If none serves one for a while, it warns, and still ends jobs whose deadline passes.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from outwait.worker.engine.lane_policies import Policies
from outwait.worker.model.errors import InvalidRequest
from outwait.worker.model.jobs import Claim, Step
from outwait.worker.model.lanes import Lane
from outwait.worker.model.outcomes import expired
from outwait.worker.net.redaction import redact
from outwait.worker.store.lanes import UNSERVED_AFTER, Lanes

log = logging.getLogger(__name__)

LOOK_EVERY = 5.0
"""Seconds between two looks at the lanes that nobody serves."""


class UnservedLanes:
    """The lanes that one worker leaves to others.

    Args:
        lanes: the store.
        policies: how each lane is claimed.
        after: seconds without any worker after which nobody serves a lane.
    """

    def __init__(self, lanes: Lanes, policies: Policies, after: float = UNSERVED_AFTER) -> None:
        self._lanes = lanes
        self._policies = policies
        self._after = after
        self._look_at: float | None = None
        self._warned: set[str] = set()
        self._offsets: dict[Lane, int] = {}
        self.count = 0

    async def leave(self, lanes: Sequence[Lane]) -> None:
        """These lanes have due work, and this worker serves none of them."""
        self.count = len(lanes)
        now = asyncio.get_running_loop().time()
        if self._look_at is None:
            self._look_at = now + self._after  # after a stop of all workers, those that serve them come first
        if not lanes or now < self._look_at:
            return
        self._look_at = now + LOOK_EVERY
        by_nobody = set(await self._lanes.unserved(self._after, limit=-1)) & set(lanes)
        shown = {redact(str(lane)) for lane in by_nobody}  # of receivers the hosts
        for text in shown - self._warned:
            log.warning("lane-not-served", extra={"lane": text, "seconds": self._after})
        self._warned = shown
        for lane in by_nobody:
            if lane.step in (Step.SUBMIT, Step.POLL):
                await self._end_overdue(lane)

    async def _end_overdue(self, lane: Lane) -> None:
        overdue, self._offsets[lane], lapsed = await self._lanes.overdue(lane, self._offsets.get(lane, 0))
        message = f"the deadline passed, and no worker serves {lane}"
        if overdue:
            await self._lanes.record(
                [expired(Claim(work_id=held.work_id, fence=held.fence), message) for held in overdue]
            )
        if lapsed:
            # What the last worker that served the lane held: put back, and nothing is claimed.
            with suppress(InvalidRequest):  # a provider of another release: that one knows its interval
                await self._lanes.claim(lane, msgspec.structs.replace(self._policies.of(lane), cap=0))
