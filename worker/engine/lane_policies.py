"""How each lane is claimed: from the settings of its step and the limits of its provider."""

from outwait.config.groups import StepSettings
from outwait.config.settings import Settings
from outwait.worker.model.jobs import Step
from outwait.worker.providers.registry import Registry
from outwait.worker.store.lanes import LanePolicy

SMALL_BATCH = 16
"""Deliveries in one batch: each brings its whole result into memory. Submits too: a worker that is lost between the
intents and the requests leaves the whole batch in doubt, and a submit costs far more than its share of a message."""

CALLBACK_LANE = "callback"


def lane_of(step: Step, name: str) -> str:
    """The lane of a provider's or a handler's step."""
    return CALLBACK_LANE if step is Step.CALLBACK else f"{step}:{name}"


def parts(lane: str) -> tuple[Step, str] | None:
    """The step and the provider or handler of a lane; None for jobs held for a person, which no step takes."""
    step, _, name = lane.partition(":")
    return None if step == "held" else (Step(step), name)


class Policies:
    """The policies of one process, worked out once a lane."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._settings = settings
        self._registry = registry
        self._known: dict[str, LanePolicy] = {}

    def of(self, lane: str) -> LanePolicy:
        """The policy of a lane. Lanes of deliveries share one: there may be as many as receivers of webhooks."""
        known = "deliver" if lane.startswith("deliver:") else lane
        if known not in self._known:
            self._known[known] = self._build(lane)
        return self._known[known]

    def step(self, step: Step) -> StepSettings:
        """The settings of a step."""
        found: StepSettings = getattr(self._settings, step)
        return found

    def _build(self, lane: str) -> LanePolicy:
        found = parts(lane)
        if found is None:
            raise ValueError(f"no step takes jobs from {lane}")
        step, name = found
        own = self.step(step)
        batch = self._settings.worker.batch
        lease = int(own.lease * 1000)
        match step:
            case Step.SUBMIT | Step.POLL:
                limits = self._registry.limits(name)
                return LanePolicy(
                    min(batch, SMALL_BATCH) if step is Step.SUBMIT else batch,
                    lease,
                    own.cap,
                    group=name,
                    rate_limit=limits.rate_limit or 0,
                    rate_window=int(limits.rate_window * 1000),
                    in_flight=limits.in_flight or 0,
                    jobs_in_flight=(limits.jobs_in_flight or 0) if step is Step.SUBMIT else 0,
                    apart=int(self._registry.longest_interval(name) * 1000) if step is Step.POLL else 0,
                    lanes=(lane_of(Step.SUBMIT, name), lane_of(Step.POLL, name)),
                )
            case Step.CALLBACK:
                return LanePolicy(batch, lease, own.cap)
            case Step.DELIVER:
                return LanePolicy(min(batch, SMALL_BATCH), lease, own.cap, kind="delivery")
