"""The Celery app, and the composition root of a worker process.

Nothing is read at import: settings are loaded when Celery first asks for its configuration, the engine is built when a
worker starts. Works as `outwait worker` and as `celery -A outwait.worker.app worker`.
"""

import gc
import logging
import os
import re
from collections.abc import Iterable
from functools import cached_property, partial
from typing import Any

from celery import Celery, Task, bootsteps, signals
from celery.backends.base import DisabledBackend
from celery.utils.nodenames import host_format
from celery.worker import state as worker_state
from celery.worker.control import Panel

from outwait.config.celery import celery_config
from outwait.config.errors import ConfigError
from outwait.config.exits import Exit
from outwait.config.logs import configure
from outwait.config.settings import Settings, load_settings
from outwait.worker.celery import inflating
from outwait.worker.celery.flower_events import FlowerEvents
from outwait.worker.celery.results import CeleryResults
from outwait.worker.engine.acceptance import Acceptance
from outwait.worker.engine.clock import Clock, Ticking
from outwait.worker.engine.intake import Intake
from outwait.worker.engine.lane_policies import Policies
from outwait.worker.engine.messages import content_max
from outwait.worker.engine.runtime import Runtime
from outwait.worker.model.errors import StoreRefused, StoreUnavailable, StoreUnfit
from outwait.worker.model.jobs import JOB_ID_PATTERN, Step
from outwait.worker.model.lanes import Lane
from outwait.worker.net import proxies
from outwait.worker.net.redaction import redact
from outwait.worker.providers.registry import Registry, build
from outwait.worker.store.inbox import Taken
from outwait.worker.store.store import Store

log = logging.getLogger(__name__)

GC_THRESHOLD = 50_000
"""Objects made and not yet given up again between two runs of the collector; some 300 belong to one poll in flight."""

TASKS = {
    Step.SUBMIT: "tasks.submit_due",
    Step.POLL: "tasks.poll",
    Step.CALLBACK: "tasks.callback",
    Step.DELIVER: "tasks.deliver",
}
"""The task of each step, by its wire name: nothing here imports tasks."""


EQUIPMENT = "outwait_equipment"
"""The remote control command that each worker answers with what it has (`Outwait.equipment`). `outwait doctor` asks."""


class StepTask(Task):  # type: ignore[misc] # Celery has no types
    """A task of ours. It stores no result: what producers read under a job's id, only the job's end writes.

    A producer's message can ask for the result of `tasks.submit` itself (`ignore_result: false`), which is None.
    """

    @property
    def backend(self) -> DisabledBackend:
        """A backend that stores nothing."""
        return DisabledBackend(app=self.app)

    def prepare(self) -> None:
        """What must work before the worker takes its first job; called once at its start."""

    def serves(self, name: str) -> bool:  # noqa: ARG002 - of the lane: a provider or a target
        """Whether this process can do the step's work of a lane."""
        return True

    def equipment(self) -> Iterable[str]:
        """What this process has for the step and another worker may lack, in words for people."""
        return ()

    def handler_names(self) -> Iterable[str]:
        """The handler functions of this process."""
        return ()


class ProviderTask(StepTask):
    """A task that asks a provider."""

    def serves(self, name: str) -> bool:
        """Whether the provider is configured here: a job must not fail because this worker has no credentials."""
        return name in app.registry.providers

    def equipment(self) -> Iterable[str]:
        """The credentials."""
        return (f"credentials of {name}" for name in app.registry.providers)


class Outwait(Celery):  # type: ignore[misc] # Celery has no types
    """The Celery app with what a worker process shares."""

    task_cls = StepTask
    hostname = ""

    @cached_property
    def settings(self) -> Settings:
        """The settings of this process. Raises ConfigError."""
        return load_settings()

    @cached_property
    def registry(self) -> Registry:
        """The providers. Raises ConfigError."""
        return build(self.settings.providers)

    @cached_property
    def events_of_jobs(self) -> FlowerEvents:
        """Where job events go."""
        return FlowerEvents(self, self.hostname, enabled=self.settings.events.jobs)

    @cached_property
    def runtime(self) -> Runtime:
        """What steps share; built when a worker starts."""
        return Runtime(self.settings, self.registry, self.events_of_jobs, self.serves)

    def serves(self, lane: Lane) -> bool:
        """Whether this process can do the work of a lane."""
        if lane.step is None:
            return False
        task: StepTask = self.tasks[TASKS[lane.step]]
        return task.serves(lane.name)

    def equipment(self) -> list[str]:
        """What this process has and another worker may lack, in words for people."""
        return sorted({name for task in self.tasks.values() if isinstance(task, StepTask) for name in task.equipment()})

    def handler_names(self) -> frozenset[str]:
        """The handler functions of this process."""
        tasks = [task for task in self.tasks.values() if isinstance(task, StepTask)]
        return frozenset(name for task in tasks for name in task.handler_names())

    def send_claims(self, lane: Lane, claims: list[list[object]]) -> None:
        """Hand a batch of claims to the task of its step."""
        if lane.step is not None:
            # argsrepr: Celery would otherwise build a printable copy of every claim.
            text = str(lane)
            self.send_task(TASKS[lane.step], args=[text, claims], argsrepr=redact(text), kwargsrepr="{}")

    def results(self, store: Store) -> CeleryResults | None:
        """Where producers' results are kept; None if they are not wanted."""
        return CeleryResults(self.backend, store) if self.settings.events.results else None

    def parks(self, body: bytes | str | None, reason: str) -> bool:
        """Put aside a producer's message that Celery could not decode. Returns whether it is stored."""
        runtime = self.runtime
        text = body.encode() if isinstance(body, str) else body or b""
        try:
            runtime.call(self.intake(runtime.store).park(Taken("", text), reason))
        except (StoreUnavailable, StoreRefused):
            return False
        return True

    def intake(self, store: Store) -> Intake:
        """What turns producers' messages into jobs."""
        missing = partial(store.handlers.missing, ours=self.handler_names())
        acceptance = Acceptance(self.registry, self.settings, missing)
        results = self.results(store)
        return Intake(store.lanes, store.inbox, acceptance, self.events_of_jobs, results, self.settings.intake)


app = Outwait("outwait", include=[f"outwait.tasks.{name}" for name in ("accept", *Step)])
app.add_defaults(lambda: celery_config(app.settings))


@signals.setup_logging.connect
def _set_up_logging(**_signal: Any) -> None:
    configure(app.settings.log)  # with a receiver here, Celery sets up none of its own


class Engine(bootsteps.StartStopStep):  # type: ignore[misc] # Celery has no types
    """Starts the clock and the intake with the worker, and ends them before it."""

    requires = ("celery.worker.components:Timer",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._threads: list[Ticking] = []

    def start(self, parent: Any) -> None:
        """Build the engine and start its threads."""
        app.hostname = parent.hostname
        app.events_of_jobs.start()
        inflating.bound(content_max(app.settings.store.params_max))
        try:
            runtime = app.runtime
            for task in app.tasks.values():
                if isinstance(task, StepTask):
                    task.prepare()
        except ConfigError as error:
            log.critical("settings-unusable", extra={"error": str(error)})
            raise SystemExit(Exit.CONFIG) from error
        if names := proxies.unused(os.environ, app.settings.outbound):
            log.warning("proxy-unused", extra={"variables": names, "advice": proxies.ADVICE})
        clock = Ticking("clock", self._clock, app.settings.worker.tick)
        self._threads = [clock]
        if app.settings.broker_is_redis:
            self._threads.append(Ticking("intake", self._intake, app.settings.worker.tick))
        runtime.on_due = lambda _lanes: clock.wake()
        _spare_the_collector()
        for thread in self._threads:
            thread.start()
        signals.worker_shutting_down.connect(self._ask_to_stop, weak=False)
        signals.worker_shutdown.connect(self._close, weak=False)  # a step's own `shutdown` is called in consumers only
        _cancel_what_is_revoked(runtime)
        Panel.data[EQUIPMENT] = lambda _state: app.equipment()

    def stop(self, _parent: Any) -> None:
        """Claim no more; finish or give back what is held."""
        for thread in self._threads:
            thread.stop()
        self._threads = []
        app.runtime.drain()

    def terminate(self, parent: Any) -> None:
        """Celery's cold shutdown: the same, so that nothing is left to the end of its lease without need."""
        self.stop(parent)

    def _close(self, **_signal: Any) -> None:
        """The last thing a worker does; Celery may tell it twice."""
        signals.worker_shutdown.disconnect(self._close)
        app.runtime.close()
        app.events_of_jobs.stop()

    def _ask_to_stop(self, **_signal: Any) -> None:
        # Celery calls this in its signal handler. The main thread may have been interrupted with the lock of the log in
        # its hands, and one of these threads may want to log: nobody is waited for here.
        for thread in self._threads:
            thread.ask_to_stop()

    async def _clock(self) -> Any:
        store = Store.open(app.settings)
        policies = Policies(app.settings, app.registry)
        clock = Clock(store.lanes, policies, app.send_claims, app.serves)
        fit, alive, names = False, app.settings.worker.alive, app.handler_names()

        async def tick() -> float | None:
            nonlocal fit
            if worker_state.should_stop is Exit.UNAVAILABLE:  # said once
                return None
            fit = fit or await _fit(store)
            if not fit:
                return None
            await store.handlers.announce(names)
            wait = await clock.tick()
            if alive:
                alive.touch()
            return wait

        return tick, store.close

    async def _intake(self) -> Any:
        store = Store.open(app.settings)
        intake = app.intake(store)

        async def take() -> float | None:
            try:
                await store.health.require_fit_once()
            except StoreUnfit:
                return None  # the clock ends this worker
            return 0.0 if await intake.take() else None

        return take, store.close


def _spare_the_collector() -> None:
    """Keep the cyclic collector from walking through modules and through hundreds of polls in flight again and again.

    A poll leaves no cycle behind: it found nothing there, for a fifth of the CPU of a poll and in pauses of 100 ms.
    What handlers leave behind is still collected.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, *gc.get_threshold()[1:])


def _cancel_what_is_revoked(runtime: Runtime) -> None:
    """Celery's `revoke` of a job's id cancels the job, so that Flower's button and `app.control.revoke` work.

    Celery's own is not called. It would store REVOKED as the result of a job that goes on, or that ended long ago, and
    drop the job's message.
    """

    def revoke(_state: Any, task_id: str | list[str], **_options: Any) -> dict[str, str]:
        given = [task_id] if isinstance(task_id, str) else task_id
        job_ids = [text for text in given if isinstance(text, str) and re.fullmatch(JOB_ID_PATTERN, text)]
        runtime.cancel(job_ids)
        return {"ok": f"tasks {', '.join(job_ids)} flagged as revoked"}

    def terminate(state: Any, signal: str, task_id: str | list[str], **options: Any) -> dict[str, str]:  # noqa: ARG001 - Celery's
        return revoke(state, task_id, **options)

    Panel.data |= {"revoke": revoke, "terminate": terminate}


async def _fit(store: Store) -> bool:
    """Whether this Redis may be used; one that would lose jobs ends the worker."""
    try:
        for finding in [*await store.health.require_fit(), *await store.health.key_types()]:
            log.warning("redis", extra={"subject": finding.subject, "found": finding.message, "advice": finding.advice})
    except StoreUnfit as error:
        log.critical("redis-unfit", extra={"error": str(error)})
        worker_state.should_stop = Exit.UNAVAILABLE
        return False
    return True


app.steps["worker"].add(Engine)


def run_worker(settings: Settings, name: str) -> int:
    """Run one worker until a signal stops it; its exit code. `name` is its node name, `%h` stands for the host."""
    worker = app.Worker(
        hostname=host_format(name),
        pool_cls="threads",
        concurrency=settings.worker.concurrency,
        loglevel=logging.getLevelName(settings.log.level),
        without_gossip=True,
        without_mingle=True,
        quiet=settings.log.format == "json",  # no banner among the lines
    )
    worker.start()
    return worker.exitcode or 0
