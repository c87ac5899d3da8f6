"""Shows what the governor of each provider lets through, and why not more; and asks it for what no lane claims."""

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from outwait.worker.model.jobs import JobState
from outwait.worker.store.connection import Connection
from outwait.worker.store.fields import GovernorField
from outwait.worker.store.lanes import LanePolicy


class Breaker(StrEnum):
    """What the outages of a provider have led to."""

    CLOSED = "closed"  # requests go
    OPEN = "open"  # none goes
    PROBING = "probing"  # one request goes and decides


class GroupStatus(msgspec.Struct, frozen=True):
    """A provider's load and limits. Times are seconds since 1970 of Redis's clock; a limit of None is none.

    `rate` counts the requests of the last `rate_window` seconds (only where there is a limit), `in_flight` the claims
    that workers hold, `jobs` what the provider has. `suspended` is a pause by a person, `suspended_by`.
    """

    provider: str = msgspec.field(name="group")  # the HTTP API and the command line have shown it under this name
    rate: int
    rate_limit: int | None
    rate_window: float
    in_flight: int
    in_flight_limit: int | None
    jobs: int
    jobs_limit: int | None
    paused_until: float | None
    paused_why: str
    suspended_since: float | None
    suspended_why: str
    breaker: Breaker
    breaker_until: float | None
    breaker_why: str
    outages: int
    suspended_by: str = ""

    @property
    def flows(self) -> bool:
        """Whether nothing but the limits holds requests back."""
        return self.paused_until is None and self.suspended_since is None and self.breaker is Breaker.CLOSED


class Governors:
    """The governors of one namespace, for one event loop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def status(self, policies: Sequence[LanePolicy]) -> list[GroupStatus]:
        """The providers of these submit lanes."""
        redis, keys = self._connection.redis, self._connection.keys
        async with self._connection.translated():
            now = await self._connection.now_ms()
            async with redis.pipeline(transaction=False) as pipe:
                for policy in policies:
                    pipe.hgetall(keys("GOVERNOR", policy.provider))
                    pipe.zcount(keys("RATE", policy.provider), f"({now - policy.rate_window_ms}", "+inf")
                    pipe.zcard(keys("INDEX", policy.provider, JobState.WAITING))
                    for lane in policy.lanes:
                        pipe.zcard(keys("LEASED", str(lane)))
                answers = iter(await pipe.execute())
        return [
            _status(policy, now, next(answers), next(answers), next(answers), sum(next(answers) for _ in policy.lanes))
            for policy in policies
        ]

    async def take_slot(self, policy: LanePolicy, request: str) -> bool:
        """Whether the provider's rate has room for one more request; it then counts until `Spent` says otherwise."""
        if not policy.rate_limit:
            return True
        async with self._connection.translated():
            taken = await self._connection.scripts.run(
                "take_slot",
                provider=policy.provider,
                rate_limit=policy.rate_limit,
                rate_window_ms=policy.rate_window_ms,
                longest_ms=policy.lease_ms,
                request=request,
            )
        return bool(taken)


def _status(
    policy: LanePolicy, now: int, stored: dict[bytes, bytes], rate: int, jobs: int, in_flight: int
) -> GroupStatus:
    fields = {name.decode(): value.decode(errors="replace") for name, value in stored.items()}
    paused, opened = float(fields.get(GovernorField.PAUSED_UNTIL, 0)), float(fields.get(GovernorField.OPEN_UNTIL, 0))
    suspended = fields.get(GovernorField.SUSPENDED)
    return GroupStatus(
        provider=policy.provider,
        rate=rate,
        rate_limit=policy.rate_limit or None,
        rate_window=policy.rate_window_ms / 1000,
        in_flight=in_flight,
        in_flight_limit=policy.in_flight or None,
        jobs=jobs,
        jobs_limit=policy.jobs_in_flight or None,
        paused_until=paused / 1000 if paused > now else None,
        paused_why=fields.get(GovernorField.PAUSE_REASON, "") if paused > now else "",
        suspended_since=float(suspended) / 1000 if suspended else None,
        suspended_why=fields.get(GovernorField.SUSPEND_REASON, ""),
        breaker=_breaker(opened, now),
        breaker_until=opened / 1000 if opened > now else None,
        breaker_why=fields.get(GovernorField.OPEN_REASON, ""),
        outages=int(fields.get(GovernorField.OUTAGES, 0)),
        suspended_by=_person(fields.get(GovernorField.SUSPENDED_BY, ""), suspended),
    )


def _person(stored: str, suspended: str | None) -> str:
    """Who made this pause; nobody if what is stored is of another one."""
    since, _, person = stored.partition(" ")
    return person if since == suspended else ""


def _breaker(opened_until: float, now: int) -> Breaker:
    if not opened_until:
        return Breaker.CLOSED
    return Breaker.OPEN if opened_until > now else Breaker.PROBING
