"""What the steps of one worker process share: an event loop in a thread, the store, the connections, the providers.

Built once, by the Celery app (`outwait.worker.app`), in the process that runs the steps.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import msgspec

from outwait.config.settings import Settings
from outwait.worker.celery.flower_events import FlowerEvents
from outwait.worker.engine.batches import LAST_WRITE, Batches, StepRun
from outwait.worker.engine.begun_submits import BegunSubmits
from outwait.worker.engine.lane_policies import Policies
from outwait.worker.engine.provider_step import ProviderGateway
from outwait.worker.engine.provider_webhooks import WebhookUrls
from outwait.worker.engine.recorder import Recorder
from outwait.worker.model.errors import StoreRefused, StoreUnavailable
from outwait.worker.model.jobs import Claim, JobError, Step
from outwait.worker.model.lanes import Lane
from outwait.worker.model.outcomes import Cancel
from outwait.worker.net.http import Http
from outwait.worker.net.outbound import Guard
from outwait.worker.providers.exchange import Exchange
from outwait.worker.providers.registry import Registry
from outwait.worker.store.store import Store
from outwait.worker.telemetry.tally import Tally
from outwait.worker.telemetry.traces import tracer

log = logging.getLogger(__name__)

T = TypeVar("T")

REVOKED_KEPT_MS = 3 * 3_600_000
"""How long a revoked id that no job has yet is remembered, in milliseconds; Celery's workers remember it as long."""

COUNT_EVERY = 5.0
"""Seconds between two writes of what was counted; a `kill -9` loses that much of it."""


class Runtime:
    """Shared parts of one process.

    Args:
        settings: this process's settings.
        registry: the providers.
        events: where job events go.
        serves: whether this process can do the work of a lane.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        events: FlowerEvents,
        serves: Callable[[Lane], bool] = lambda _lane: True,
    ) -> None:
        self.settings = settings
        self.registry = registry
        self.events = events
        self._serves = serves
        self.policies = Policies(settings, registry)
        self.guard = Guard(settings.outbound.allow)
        self._tracer = tracer(settings)
        self.on_due: Callable[[list[str]], None] = lambda _lanes: None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="outwait-steps", daemon=True)
        self._thread.start()
        self.call(self._open())

    async def _open(self) -> None:
        self.store = Store.open(self.settings)
        self.webhook_urls = WebhookUrls(self.settings, self.store.webhooks)
        self.http = Http(body_max=self.settings.store.result_max, guard=self.guard, proxy=self.settings.outbound.proxy)
        self.recorder = Recorder(self.store.lanes, self._due)
        self._tally = Tally()
        self._counting = asyncio.create_task(self._count())
        self._submits = BegunSubmits(self.settings.store.retention)
        self.store.connection.epoch.on_change(self._remind)
        self.batches = Batches(
            self.store.lanes,
            self.policies,
            self.recorder,
            self._submits,
            self._tally,
            self._tracer,
        )

    def _due(self, lanes: list[str]) -> None:
        self.on_due(lanes)

    def _remind(self) -> None:
        """Another Redis is the master: tell it what has left. Called from any thread."""
        with suppress(RuntimeError):  # the loop has just been closed
            self._loop.call_soon_threadsafe(self._tell_again)

    def _tell_again(self) -> None:
        for outcome, claim in self._submits.again():
            self.recorder.add(outcome, claim=claim)

    def gateway(self, step: Step, provider: str) -> ProviderGateway:
        """A provider, for one step. A callback's requests count as polls do. Raises InvalidRequest."""
        lane = Lane.of(Step.POLL if step is Step.CALLBACK else step, provider)
        time_limit = self.policies.step(step).time_limit
        return ProviderGateway(
            name=provider,
            registry=self.registry,
            policy=self.policies.of(lane),
            limits=self.registry.limits(provider),
            new_exchange=partial(Exchange, self.http, self.store.tokens, time_limit, provider, self._tally),
            durations_s=partial(self._durations_s, provider),
        )

    def _durations_s(self, provider: str, operation: str) -> tuple[float, ...]:
        """How long jobs took, sorted seconds; empty while too little is known, or if polling is not to adapt."""
        return self.store.durations.of(provider, operation) if self.settings.poll.adaptive else ()

    def run(self, lane: Lane, claims: Sequence[Any], step: StepRun) -> None:
        """Run a batch from one of Celery's threads.

        Returns when the batch is recorded, or after `worker.handoff` seconds: slow answers then go on without
        holding the thread, so that other lanes get it.
        """
        batch = self._batch(lane, msgspec.convert(claims, list[Claim]), step)
        future = asyncio.run_coroutine_threadsafe(batch, self._loop)
        try:
            future.result(self._handoff(lane, len(claims)))
        except TimeoutError:
            if future.done():
                raise

    def _handoff(self, lane: Lane, claims: int) -> float:
        """Seconds for which a batch may hold its thread. A tenant may name any number of slow receivers, each of which
        is a batch of few deliveries: those hold it for their share of a whole batch only.
        """
        share = min(1.0, claims / self.policies.of(lane).batch) if lane.step is Step.DELIVER else 1.0
        return self.settings.worker.handoff * share

    def _batch(self, lane: Lane, claims: list[Claim], step: StepRun) -> Coroutine[Any, Any, None]:
        return self.batches.run(lane, claims, step) if self._serves(lane) else self.batches.decline(lane, claims)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on the loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def cancel(self, job_ids: Sequence[str]) -> None:
        """Cancel jobs; those whose messages are still on their way are cancelled when they come. Returns at once."""
        asyncio.run_coroutine_threadsafe(self._cancel(job_ids), self._loop)

    async def _cancel(self, job_ids: Sequence[str]) -> None:
        error = JobError("cancelled", "revoked through Celery").text()
        self.recorder.add(*(Cancel(work_id=job_id, error=error, remember_ms=REVOKED_KEPT_MS) for job_id in job_ids))

    def drain(self) -> None:
        """Finish or give back what is held, within the grace time."""
        self.call(self.batches.drain(self.settings.worker.grace))

    def close(self) -> None:
        """Write what is left, close the connections and end the loop."""
        self.call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self._tracer is not None:
            self._tracer.close()

    async def _count(self) -> None:
        """Bring what was counted to the store now and then, and see how things stand."""
        while True:
            await asyncio.sleep(COUNT_EVERY)
            try:
                await self._write_counts()
                await self.store.statistics.sample()
            except (StoreUnavailable, StoreRefused):
                continue  # the store logs the outage
            except Exception:
                log.exception("counting-broken")

    async def _write_counts(self) -> None:
        counts = self._tally.take()
        if not counts:
            return
        try:
            await self.store.statistics.add(counts)
        except BaseException:
            self._tally.give_back(counts)
            raise

    async def _close(self) -> None:
        with suppress(TimeoutError):  # Redis may be away: what is not written comes again when its lease ends
            await asyncio.wait_for(self.recorder.flushed(), LAST_WRITE)
        self.recorder.abandon()
        self._counting.cancel()
        with suppress(TimeoutError, StoreUnavailable, StoreRefused):
            await asyncio.wait_for(self._write_counts(), LAST_WRITE)
        await self.store.durations.read()
        await self.http.close()
        await self.store.close()
