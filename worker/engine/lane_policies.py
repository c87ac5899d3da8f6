"""How each lane is claimed: from the settings of its step and the limits of its provider."""

import msgspec

from outwait.config.groups import StepSettings
from outwait.config.settings import Settings
from outwait.worker.model.jobs import Step
from outwait.worker.model.lanes import Lane
from outwait.worker.model.times import milliseconds
from outwait.worker.providers.registry import Registry
from outwait.worker.store.lanes import LanePolicy

SMALL_BATCH = 16
"""Deliveries in one batch: each brings its whole result into memory. Submits too: each has a connection of its own, and
costs far more than its share of a message."""

_DELIVER = Lane(Step.DELIVER)
"""Stands for every deliver lane."""


class Policies:
    """The policies of one process, worked out once a lane."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._settings = settings
        self._registry = registry
        self._known: dict[Lane, LanePolicy] = {}

    def of(self, lane: Lane) -> LanePolicy:
        """The policy of a lane. Lanes of deliveries share one: there may be as many as receivers of webhooks."""
        known = _DELIVER if lane.step is Step.DELIVER else lane
        if known not in self._known:
            self._known[known] = self._build(lane)
        return self._known[known]

    def step(self, step: Step) -> StepSettings:
        """The settings of a step."""
        settings: StepSettings = getattr(self._settings, step)
        return settings

    def _build(self, lane: Lane) -> LanePolicy:
        if lane.step is None:
            raise ValueError(f"no step takes jobs from {lane}")
        match lane.step:
            case Step.SUBMIT:
                return self._provider_policy(lane.step, lane.name, min(self._settings.worker.batch, SMALL_BATCH))
            case Step.POLL:
                return self._provider_policy(lane.step, lane.name, self._settings.worker.batch)
            case Step.CALLBACK:
                return self._policy(lane.step, self._settings.worker.batch)
            case Step.DELIVER:
                return self._policy(lane.step, min(self._settings.worker.batch, SMALL_BATCH))

    def _policy(self, step: Step, batch: int) -> LanePolicy:
        settings = self.step(step)
        return LanePolicy(batch=batch, lease_ms=milliseconds(settings.lease), cap=settings.cap)

    def _provider_policy(self, step: Step, provider: str, batch: int) -> LanePolicy:
        limits = self._registry.limits(provider)
        interval = self._registry.longest_interval(provider) if step is Step.POLL else 0
        return msgspec.structs.replace(
            self._policy(step, batch),
            provider=provider,
            rate_limit=limits.rate_limit or 0,
            rate_window_ms=milliseconds(limits.rate_window),
            in_flight=limits.in_flight or 0,
            jobs_in_flight=(limits.jobs_in_flight or 0) if step is Step.SUBMIT else 0,
            min_interval_ms=milliseconds(interval),
        )
