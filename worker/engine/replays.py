"""Dead deliveries: lists them and makes them pending again. The request to the provider is never repeated."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import NamedTuple, TypedDict, Unpack

from outwait.worker.model import targets
from outwait.worker.model.acts import NewAct
from outwait.worker.model.errors import NotReplayable
from outwait.worker.model.jobs import Delivery, DeliveryState
from outwait.worker.model.outcomes import Replay
from outwait.worker.providers.registry import Registry
from outwait.worker.store.dead import DeadDelivery
from outwait.worker.store.store import Store


class DeadFilter(TypedDict, total=False):
    """Which dead deliveries are meant. `since` is the time when they were given up, in seconds since 1970."""

    target: str | None
    provider: str | None
    tenant: str | None
    since: float | None


class DeadPage(NamedTuple):
    """Dead deliveries, newest first, and the cursor of the next page (None: no more)."""

    deliveries: list[DeadDelivery]
    cursor: str | None


class Replays:
    """The deliveries of one namespace, for one event loop.

    Args:
        store: the store with the deliveries.
        registry: all providers.
    """

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry

    async def dead(self, limit: int, cursor: str | None = None, **filters: Unpack[DeadFilter]) -> DeadPage:
        """One page of the dead deliveries. Raises InvalidRequest if `target`, `provider` or `cursor` is invalid."""
        found: list[DeadDelivery] = []
        async with aclosing(self._pages(filters, cursor)) as pages:
            async for page in pages:
                found += page
                if len(found) > limit:
                    break
        return DeadPage(found[:limit], found[limit - 1].cursor if len(found) > limit else None)

    async def of_job(self, job_id: str, target: str | None, *, act: NewAct | None = None) -> int:
        """Repeat a job's dead deliveries, or the ended one to `target`. Returns their number. `act` says who wants it.

        Raises:
            InvalidRequest: `target` is invalid.
            NotReplayable: there is nothing to repeat.
        """
        target = target and targets.canonical(targets.parse(target))
        deliveries = await self._store.reads.deliveries(job_id)
        replayable = [delivery for delivery in deliveries if _replayable(delivery, target)]
        if not replayable:
            raise NotReplayable(_why_not(job_id, deliveries, target))
        return await self._repeat(replayable, act)

    async def all(self, act: NewAct | None = None, **filters: Unpack[DeadFilter]) -> int:
        """Repeat all dead deliveries that match. Returns their number. Raises InvalidRequest as `dead` does."""
        count = 0
        async for page in self._pages(filters):
            count += await self._repeat(page)
            if count and act is not None:
                await self._store.audit.write(act)
                act = None  # one entry, however many there are
        return count

    async def _pages(self, filters: DeadFilter, cursor: str | None = None) -> AsyncGenerator[list[DeadDelivery], None]:
        target, provider, tenant = filters.get("target"), filters.get("provider"), filters.get("tenant")
        target = target and targets.canonical(targets.parse(target))
        if provider is not None:
            self._registry.limits(provider)  # raises an error for a misspelt name
        async for page in self._store.dead_letters.pages(filters.get("since"), cursor):
            yield [
                dead
                for dead in page
                if target in {None, dead.target} and provider in {None, dead.provider} and tenant in {None, dead.tenant}
            ]

    async def _repeat(self, deliveries: Sequence[Delivery], act: NewAct | None = None) -> int:
        outcomes = [Replay(work_id=each.id, act=None if n else act) for n, each in enumerate(deliveries)]
        codes, _ = await self._store.lanes.record(outcomes)
        return sum(code > 0 for code in codes)


def _replayable(delivery: Delivery, target: str | None) -> bool:
    if target is None:
        return delivery.state is DeliveryState.DEAD
    return delivery.target == target and delivery.state is not DeliveryState.PENDING


def _why_not(job_id: str, deliveries: Sequence[Delivery], target: str | None) -> str:
    if not deliveries:
        return f"job {job_id} has no deliveries: it has not ended yet, or it has no target and no route matches it"
    states = ", ".join(f"{delivery.target} is {delivery.state}" for delivery in deliveries)
    if target:
        return f"job {job_id} has no delivery to {target} that can be repeated ({states})"
    return f"job {job_id} has no dead delivery ({states}); name a target to repeat a delivery that succeeded"
