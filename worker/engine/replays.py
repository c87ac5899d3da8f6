"""Deliveries that were given up: shown, and made pending again. The paid submit is never repeated."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypedDict, Unpack

from outwait.worker.model import targets
from outwait.worker.model.errors import NotReplayable
from outwait.worker.model.jobs import Delivery, DeliveryState
from outwait.worker.model.outcomes import Replay
from outwait.worker.providers.registry import Registry
from outwait.worker.store.dead import DeadDelivery
from outwait.worker.store.store import Store


class Wanted(TypedDict, total=False):
    """Which dead deliveries are meant. `since` is seconds since 1970 of when they were given up."""

    target: str | None
    provider: str | None
    tenant: str | None
    since: float | None


class Replays:
    """The deliveries of one namespace, for one event loop.

    Args:
        store: where they are.
        registry: the providers that there are.
    """

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry

    async def dead(self, limit: int, **wanted: Unpack[Wanted]) -> list[DeadDelivery]:
        """Those that are dead, newest first. Raises InvalidRequest if `target` or `provider` is none."""
        found: list[DeadDelivery] = []
        async with aclosing(self._pages(wanted)) as pages:
            async for page in pages:
                found += page
                if len(found) >= limit:
                    break
        return found[:limit]

    async def one(self, job_id: str, target: str | None) -> int:
        """Repeat a job's dead deliveries, or those to `target`; how many. Raises InvalidRequest or NotReplayable."""
        target = target and targets.canonical(targets.parse(target))
        deliveries = await self._store.reads.deliveries(job_id)
        wanted = [one for one in deliveries if _replayable(one, target)]
        if not wanted:
            raise NotReplayable(_why_not(job_id, deliveries, target))
        return await self._repeat(wanted)

    async def all(self, **wanted: Unpack[Wanted]) -> int:
        """Repeat all that are dead now; how many. Raises InvalidRequest if `target` or `provider` is none."""
        return sum([await self._repeat(page) async for page in self._pages(wanted)])

    async def _pages(self, wanted: Wanted) -> AsyncGenerator[list[DeadDelivery], None]:
        target, provider, tenant = wanted.get("target"), wanted.get("provider"), wanted.get("tenant")
        target = target and targets.canonical(targets.parse(target))
        if provider is not None:
            self._registry.limits(provider)  # a misspelt one is told, not taken for one without dead deliveries
        async for page in self._store.dead_letters.pages(wanted.get("since")):
            yield [
                one
                for one in page
                if target in {None, one.target} and provider in {None, one.provider} and tenant in {None, one.tenant}
            ]

    async def _repeat(self, deliveries: Sequence[Delivery]) -> int:
        codes, _ = await self._store.lanes.record([Replay(work_id=one.id) for one in deliveries])
        return sum(code > 0 for code in codes)


def _replayable(delivery: Delivery, target: str | None) -> bool:
    if target is None:
        return delivery.state is DeliveryState.DEAD
    return delivery.target == target and delivery.state is not DeliveryState.PENDING


def _why_not(job_id: str, deliveries: Sequence[Delivery], target: str | None) -> str:
    if not deliveries:
        return f"job {job_id} has no deliveries: it has not ended yet, or it names no target and no route matches it"
    states = ", ".join(f"{one.target} is {one.state}" for one in deliveries)
    return (
        f"job {job_id}: nothing to replay for {target}; {states}"
        if target
        else (f"job {job_id} has no dead delivery ({states}); name a target to repeat a delivered one")
    )
