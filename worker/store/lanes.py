"""Moves jobs: enqueue, due_lanes, claim, begin, renew, record, overdue, purge. One method a script."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from outwait.worker.model.jobs import NORMAL, Claim, Step
from outwait.worker.model.lanes import Lane
from outwait.worker.model.outcomes import Outcome
from outwait.worker.model.times import milliseconds
from outwait.worker.store.codes import EnqueueResult, Recorded
from outwait.worker.store.connection import Connection
from outwait.worker.store.quotas import Quotas

UNSERVED_AFTER = 30.0
"""Seconds for which no worker has looked at a lane, after which none serves it."""

UNSERVED_SHOWN = 100
"""Lanes that nobody serves and that are named."""

OVERDUE_LEASE_MS = 10_000
"""Milliseconds in which a job whose deadline passed is ended by whoever leased it for that."""


CATCH_UP_JOBS = 300
"""Stored jobs, about, that one call brings up to date: a millisecond of Redis's time."""


class NewJob(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job to record, as the enqueue script reads it; a field that has its default is not sent.

    Args:
        id: of the job.
        provider: its name.
        operation: one of the provider's.
        digest: hash of the request (`codec.digest`).
        spec: params, targets and metadata as JSON, made by `codec.blob`.
        key: the idempotency key, if there is one.
        deadline_ms: from now; 0: none.
        error: JSON of a refusal: the job then is failed from the start.
        message: the taken-in message that the job came in.
        countdown_ms: until its submit.
        tenant: whose job it is.
        priority: 0 to 9; 9 is submitted before all others of its tenant.
        trace: the producer's trace context.
    """

    id: str
    provider: str
    operation: str
    digest: str
    spec: msgspec.Raw
    key: str = ""
    deadline_ms: int = 0
    error: str = ""
    message: str = ""
    countdown_ms: int = 0
    tenant: str = ""
    priority: int = NORMAL
    trace: str = ""


class LanePolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a lane is claimed, as the claim script reads it; 0 is no limit.

    Args:
        batch: claims in one batch at most.
        lease_ms: how long a claim is good.
        cap: claims of the lane at once.
        provider: whose governor the lane obeys; empty for lanes that send nothing to a provider.
        rate_limit: requests in a window.
        rate_window_ms: the window.
        in_flight: requests to the provider at once.
        jobs_in_flight: jobs at the provider at once; 0 too in lanes that submit nothing.
        min_interval_ms: between two requests for one job.
    """

    batch: int
    lease_ms: int
    cap: int
    provider: str = ""
    rate_limit: int = 0
    rate_window_ms: int = 0
    in_flight: int = 0
    jobs_in_flight: int = 0
    min_interval_ms: int = 0

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """The lanes that share the provider's rate."""
        return (Lane.of(Step.SUBMIT, self.provider), Lane.of(Step.POLL, self.provider)) if self.provider else ()


class Held(NamedTuple):
    """A job or delivery that is claimed, and the fence that proves it."""

    work_id: str
    fence: int


_answers = msgspec.msgpack.Decoder(list[tuple[int, str]])
_due = msgspec.msgpack.Decoder(tuple[list[str], float])
_claims = msgspec.msgpack.Decoder(list[Claim])
_begun = msgspec.msgpack.Decoder(tuple[int, list[int]])
_lapsed = msgspec.msgpack.Decoder(list[Held])
_overdue = msgspec.msgpack.Decoder(tuple[list[Held], int, int])
_recorded = msgspec.msgpack.Decoder(tuple[list[int], list[str]])


class Lanes:
    """The due and leased work of one namespace, for one event loop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        store, deliver = connection.settings.store, connection.settings.deliver
        self._retention_ms = milliseconds(store.retention)
        self._kept: dict[str, Any] = {
            "retention_ms": self._retention_ms,
            "audit_ms": milliseconds(store.audit_retention),
        }
        self._room: dict[str, Any] = {
            "per_tenant": deliver.per_tenant,
            "per_host": min(deliver.per_host, deliver.per_tenant),
        }
        self._quotas = Quotas(connection)

    async def enqueue(self, jobs: Sequence[NewJob]) -> list[tuple[EnqueueResult, str]]:
        """Record new jobs; for each what became of it, and the id of the job that stands for it or what is exceeded."""
        began = time.monotonic()
        quotas = await self._quotas.limits() if any(job.tenant for job in jobs) else None
        reply = await self._run("enqueue", promised=True, jobs=jobs, retention_ms=self._retention_ms, quotas=quotas)
        answer = _answers.decode(reply)
        if any(code == EnqueueResult.CREATED for code, _ in answer):
            self._connection.wrote(began)
        return [(EnqueueResult(code), job_id) for code, job_id in answer]

    async def due_lanes(self, limit: int = 100) -> tuple[list[Lane], float | None]:
        """The lanes with something to do now, and the seconds until the next one has (None: nothing waits).

        Deliveries that wait for room are admitted to their lanes first.
        """
        lanes, wait_ms = _due.decode(await self._run("due_lanes", limit=limit, **self._room))
        return [Lane.parse(lane) for lane in lanes], None if wait_ms < 0 else wait_ms / 1000

    async def claim(self, lane: Lane, policy: LanePolicy) -> list[Claim]:
        """Lease what is due in a lane, as many as may go now."""
        return _claims.decode(await self._run("claim", lane=str(lane), policy=policy))

    async def begin(self, lane: Lane, policy: LanePolicy, claims: Sequence[Held]) -> tuple[int, list[int]]:
        """Make claims running steps: Redis's time in milliseconds, and the new fences (0: no longer ours)."""
        provider, lease_ms = policy.provider or None, policy.lease_ms
        return _begun.decode(
            await self._run("begin", lane=str(lane), lease_ms=lease_ms, provider=provider, claims=claims)
        )

    async def renew(
        self, lane: Lane, policy: LanePolicy, claims: Sequence[Held], *, intent: bool = False
    ) -> list[bool]:
        """Lengthen the leases of running steps; for each whether it is still ours.

        With `intent` it is written that the requests of these submits may have left from now on; False then also if
        their provider is silenced.
        """
        answers = await self._run(
            "renew",
            promised=intent,
            lane=str(lane),
            lease_ms=policy.lease_ms,
            provider=policy.provider or None,
            rate_window_ms=policy.rate_window_ms,
            intent=intent or None,
            claims=claims,
        )
        return [bool(answer) for answer in answers]

    async def record(self, outcomes: Sequence[Outcome]) -> tuple[list[Recorded], list[str]]:
        """Write outcomes; what became of each, and the lanes that have work due now.

        Raises:
            StoreUnavailable: they are not written, or that is not known; they may be sent again, and count once.
            StoreRefused: at least one of them can never be written.
        """
        began = time.monotonic()
        answer = await self._run("record", promised=True, outcomes=outcomes, **self._kept, **self._room)
        codes, lanes = _recorded.decode(answer)
        if any(code > 0 for code in codes):
            self._connection.wrote(began)
        return [Recorded(code) for code in codes], lanes

    async def unserved(self, seconds: float = UNSERVED_AFTER, limit: int = UNSERVED_SHOWN) -> list[Lane]:
        """Lanes with due work at which no worker has looked for so long: none that runs serves them. -1 is no limit."""
        async with self._connection.translated():
            second, micro = await self._connection.redis.time()
            latest = second * 1000 + micro // 1000 - int(seconds * 1000)
            key = self._connection.keys("LANES")
            names = await self._connection.redis.zrangebyscore(key, "-inf", latest, start=0, num=limit)
        return [Lane.parse(name.decode()) for name in names]

    async def overdue(self, lane: Lane, offset: int, limit: int = 1000) -> tuple[list[Held], int, int]:
        """Lease jobs of an unserved lane whose deadline has passed.

        Returns:
            The jobs, where to look next, and how many leases of the lane ended with their worker.
        """
        answer = await self._run("overdue", lane=str(lane), lease_ms=OVERDUE_LEASE_MS, offset=offset, limit=limit)
        return _overdue.decode(answer)

    async def lapsed(self, limit: int = 100) -> list[Held]:
        """Lease jobs whose deadline has passed and that nothing else ends in time, such as its provider's silence."""
        return _lapsed.decode(await self._run("lapsed", lease_ms=OVERDUE_LEASE_MS, limit=limit))

    async def purge(self, limit: int = 100) -> int:
        """Forget closed jobs whose retention is over; how many."""
        return int(await self._run("purge", limit=limit))

    async def catch_up(self) -> bool:
        """Bring some stored jobs of a release before up to date; whether more are to be done."""
        return bool(await self._run("catch_up", limit=CATCH_UP_JOBS))

    async def caught_up(self) -> None:
        """The same, for all of them: after it every job with an external id is known by it."""
        while await self.catch_up():
            pass

    @property
    def in_outage(self) -> bool:
        """Whether this process has met an outage of the store of which nobody has seen the end."""
        return self._connection.in_outage

    async def probe(self) -> None:
        """Raises StoreUnavailable while Redis takes no writes."""
        await self._connection.probe()

    @property
    def epoch(self) -> int:
        """Number of the time of one Redis as the master; another one may have older data."""
        return self._connection.epoch.number

    async def _run(self, name: str, *, promised: bool = False, **arguments: Any) -> Any:
        async with self._connection.translated():
            return await self._connection.scripts.run(name, promised=promised, **arguments)
