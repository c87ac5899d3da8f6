"""Moves jobs: enqueue, look, claim, begin, renew, record, purge. One method a script."""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import msgspec

from outwait.worker.model.jobs import NORMAL, Claim
from outwait.worker.model.outcomes import Outcome
from outwait.worker.store.connection import Connection


class Enqueued(IntEnum):
    """What became of a new job."""

    CREATED = 1
    SAME = 2
    CONFLICT = 3


class Recorded(IntEnum):
    """What became of an outcome."""

    WRITTEN = 1
    ASKED = 2  # a cancel that waits for a submit's answer
    REFUSED = 0  # the fence is stale, or the job has ended
    UNKNOWN = -1  # purged


class NewJob(msgspec.Struct, frozen=True, array_like=True):
    """A job to record, as the enqueue script reads it.

    `deadline` (0: none) and `countdown` are milliseconds from now.
    """

    id: str
    provider: str
    operation: str
    digest: str
    spec: msgspec.Raw
    key: str = ""
    deadline: int = 0
    error: str = ""
    message: str = ""
    countdown: int = 0
    tenant: str = ""
    priority: int = NORMAL
    trace: str = ""


class LanePolicy(NamedTuple):
    """How a lane is claimed. Times in milliseconds; 0 is no limit. `lanes` are all lanes of the rate group.

    `apart` is the least time between two requests for one item.
    """

    batch: int
    lease: int
    cap: int
    kind: str = "job"
    group: str = ""
    rate_limit: int = 0
    rate_window: int = 0
    in_flight: int = 0
    jobs_in_flight: int = 0
    apart: int = 0
    lanes: tuple[str, ...] = ()


Item = tuple[str, int]
"""An item and its fence."""

_answers = msgspec.msgpack.Decoder(list[tuple[int, str]])
_looked = msgspec.msgpack.Decoder(tuple[list[str], float])
_claims = msgspec.msgpack.Decoder(list[Claim])
_begun = msgspec.msgpack.Decoder(tuple[int, list[int]])
_recorded = msgspec.msgpack.Decoder(tuple[list[int], list[str]])
_pack = msgspec.msgpack.Encoder().encode


class Lanes:
    """The due and leased work of one namespace, for one event loop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._retention = int(connection.settings.store.retention * 1000)

    async def enqueue(self, jobs: Sequence[NewJob]) -> list[tuple[Enqueued, str]]:
        """Record new jobs; for each what became of it and the id of the job that stands for it."""
        answer = _answers.decode(await self._run("enqueue", _pack(jobs), self._retention))
        return [(Enqueued(code), job_id) for code, job_id in answer]

    async def look(self, most: int = 100) -> tuple[list[str], float | None]:
        """The lanes with something to do now, and the seconds until the next one has (None: nothing waits)."""
        lanes, wait = _looked.decode(await self._run("look", most))
        return lanes, None if wait < 0 else wait / 1000

    async def claim(self, lane: str, policy: LanePolicy) -> list[Claim]:
        """Lease what is due in a lane, as many as may go now."""
        return _claims.decode(
            await self._run(
                "claim",
                lane,
                policy.batch,
                policy.lease,
                policy.cap,
                policy.kind,
                policy.group,
                policy.rate_limit,
                policy.rate_window,
                policy.in_flight,
                policy.jobs_in_flight,
                policy.apart,
                *policy.lanes,
            )
        )

    async def begin(
        self, lane: str, policy: LanePolicy, items: Sequence[Item], *, intent: str = ""
    ) -> tuple[int, list[int]]:
        """Make claims running steps: Redis's time in milliseconds, and the new fences (0: no longer ours).

        `intent` names this begin where one is written: whoever does not hear the answer can take it back by it.
        """
        packed = _pack(items)
        return _begun.decode(await self._run("begin", lane, policy.lease, intent, policy.kind, policy.group, packed))

    async def renew(self, lane: str, policy: LanePolicy, items: Sequence[Item]) -> int:
        """Lengthen the leases of running steps; how many were still ours."""
        return int(await self._run("renew", lane, policy.lease, policy.kind, _pack(items)))

    async def record(self, outcomes: Sequence[Outcome]) -> tuple[list[Recorded], list[str]]:
        """Write outcomes; what became of each, and the lanes that have work due now."""
        codes, lanes = _recorded.decode(await self._run("record", _pack(outcomes), self._retention))
        return [Recorded(code) for code in codes], lanes

    async def purge(self, most: int = 100) -> int:
        """Forget closed jobs whose retention is over; how many."""
        return int(await self._run("purge", most))

    async def _run(self, name: str, *arguments: str | bytes | int) -> Any:
        async with self._connection.translated():
            return await self._connection.scripts.run(name, *arguments)
