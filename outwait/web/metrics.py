"""`/metrics` for Prometheus: the present state of the store, and the counts of all workers, which survive restarts.

Workers come and go, so no worker is scraped: every web process shows everything. The reads grow neither with the number
of jobs nor with that of targets. It needs no API key and shows no job: labels are providers, states, steps and kinds of
handlers.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, product
from typing import NamedTuple

from fastapi import APIRouter, Request, Response
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder

from outwait.web.services import Services, Shared
from outwait.worker.model.counts import LATE_BOUNDS, REQUEST_BOUNDS
from outwait.worker.model.jobs import JobState, Step
from outwait.worker.model.lanes import BACKLOG, CALLBACK, Lane
from outwait.worker.store.governors import Breaker, GroupStatus
from outwait.worker.store.inbox import lists_of
from outwait.worker.store.reads import LaneStatus

OTHER = "other"
"""Label for all unknown providers: a refused request may contain any name."""

router = APIRouter(include_in_schema=False)

Counts = dict[tuple[str, ...], int]


class Reading(NamedTuple):
    """The data of one scrape."""

    jobs: Mapping[str, Mapping[str, int]]
    lanes: Sequence[LaneStatus]
    providers: Sequence[GroupStatus]
    held: Mapping[str, int]
    dead: int
    inbox: int
    batches: Mapping[str, int]
    counted: Counts
    names: Sequence[str] = ()
    """The providers that are set up."""
    unserved: Sequence[Lane] = ()


class _Families(NamedTuple):
    """Metrics as prometheus_client's encoders want them."""

    families: Sequence[Metric]

    def collect(self) -> Sequence[Metric]:
        """All of them."""
        return self.families


@router.get("/metrics")
async def metrics(request: Request, shared: Shared) -> Response:
    """All metrics, in the text format of Prometheus or of OpenMetrics."""
    encode, media_type = choose_encoder(request.headers.get("accept", ""))
    metrics = _Families(list(families(await read(shared))))
    return Response(encode(metrics), headers={"content-type": media_type})


async def read(shared: Services) -> Reading:
    """Read the store, in a dozen round trips. Raises StoreUnavailable."""
    settings, reads = shared.settings, shared.store.reads
    stats, inbox = shared.store.statistics, shared.store.inbox
    names = shared.registry.names
    ours = {Lane.of(step, name) for step in (Step.SUBMIT, Step.POLL) for name in names}
    queues = settings.step_queues if settings.broker_is_redis else {}
    return Reading(
        jobs=_ours(await reads.counts(), names),
        lanes=[await reads.backlog(), *await reads.lanes({CALLBACK, *ours, *await reads.active_lanes()})],
        providers=await shared.client.providers(),
        held=await stats.held(names),
        dead=await stats.dead(),
        inbox=sum(await inbox.waiting(lists_of(settings.intake.queue))) if queues else 0,
        batches=dict(zip(queues, await inbox.waiting(list(queues.values())), strict=True)),
        counted=await stats.counted(),
        names=names,
        unserved=await shared.store.lanes.unserved(),
    )


def families(reading: Reading) -> Iterator[Metric]:
    """The metrics of a reading."""
    yield from _jobs(reading)
    yield from _work(reading)
    for name, text, value in _GAUGES:
        yield _gauge(name, text, ("provider",), [((status.provider,), value(status)) for status in reading.providers])
    yield from _counters(reading.counted, _zeros(reading.names))
    yield from _histograms(reading.counted)


def _jobs(reading: Reading) -> Iterator[Metric]:
    jobs = (((name, state), number) for name, states in reading.jobs.items() for state, number in states.items())
    yield _gauge("outwait_jobs", "Jobs in each state.", ("provider", "state"), jobs)
    held = (((name,), number) for name, number in reading.held.items())
    yield _gauge("outwait_held_jobs", "Uncertain jobs that wait for a person.", ("provider",), held)
    yield _gauge("outwait_dead_deliveries", "Deliveries that were given up.", (), [((), reading.dead)])
    yield _gauge("outwait_inbox_messages", "Producers' messages that are not jobs yet.", (), [((), reading.inbox)])
    batches = (((step,), number) for step, number in reading.batches.items())
    yield _gauge("outwait_queued_batches", "Batches that no worker has taken from Celery yet.", ("step",), batches)


def _work(reading: Reading) -> Iterator[Metric]:
    """The work in the lanes. The lanes of all handlers are added up, because there may be any number of them."""
    statuses = {status.provider: status for status in reading.providers}
    due: dict[tuple[str, str], list[float]] = {
        (step.value, ""): [0] * len(_WORK) for step in (Step.CALLBACK, Step.DELIVER)
    }
    for lane in reading.lanes:
        step, name = lane.lane.step, lane.lane.name
        if step is None:
            continue
        label = (step.value, name if step in (Step.SUBMIT, Step.POLL) else "")
        sums = due.setdefault(label, [0] * len(_WORK))
        sums[0] += lane.due_now
        sums[1] += ready(lane, step, statuses.get(name))
        sums[2] += lane.leased
        sums[3] = max(sums[3], lane.oldest_due_age)
        sums[4] += lane.due_now if lane.lane in reading.unserved else 0
    for index, (name, text) in enumerate(_WORK):
        yield _gauge(name, text, ("step", "provider"), ((label, sums[index]) for label, sums in due.items()))


_WORK = (
    ("outwait_due_jobs", "Steps that are due and that no worker has claimed."),
    ("outwait_ready_jobs", "Due steps that no limit, pause or breaker holds back: more workers would help."),
    ("outwait_leased_jobs", "Steps that workers have claimed."),
    ("outwait_oldest_due_seconds", "How long the first due step has been due."),
    ("outwait_unserved_jobs", "Due steps that no running worker can do: it lacks the credentials or the handler."),
)


def ready(lane: LaneStatus, step: Step, status: GroupStatus | None) -> int:
    """How many of a lane's due steps the provider's governor, or a tenant's room, would allow now."""
    if lane.lane == BACKLOG:
        return 0
    if status is None or step in (Step.CALLBACK, Step.DELIVER):
        return lane.due_now
    limits = [(status.rate_limit, status.rate), (status.in_flight_limit, status.in_flight)]
    if step is Step.SUBMIT:
        limits.append((status.jobs_limit, status.jobs))
    rooms = [limit - used for limit, used in limits if limit is not None]
    rooms.append(lane.due_now if status.flows else int(_probes(status)))
    return max(0, min(lane.due_now, *rooms))


def _probes(status: GroupStatus) -> bool:
    return status.breaker is Breaker.PROBING and status.paused_until is None and status.suspended_since is None


_BREAKER = {Breaker.CLOSED: 0.0, Breaker.PROBING: 0.5, Breaker.OPEN: 1.0}

_GAUGES: tuple[tuple[str, str, Callable[[GroupStatus], float | None]], ...] = (
    ("outwait_rate_used", "Requests in the rate's window (where there is a limit).", lambda status: status.rate),
    ("outwait_rate_limit", "Requests that the window may have, if there is a limit.", lambda status: status.rate_limit),
    ("outwait_rate_window_seconds", "Length of the rate's window.", lambda status: status.rate_window),
    ("outwait_in_flight", "Claims that workers hold.", lambda status: status.in_flight),
    (
        "outwait_in_flight_limit",
        "Claims that may be held at once, if there is a limit.",
        lambda status: status.in_flight_limit,
    ),
    ("outwait_paused", "1 while the provider has asked for silence.", lambda status: status.paused_until is not None),
    ("outwait_suspended", "1 while a person has paused it.", lambda status: status.suspended_since is not None),
    ("outwait_breaker_open", "0 closed, 0.5 one request at a time, 1 open.", lambda status: _BREAKER[status.breaker]),
    ("outwait_outages_in_row", "Outages since the last good answer.", lambda status: status.outages),
)


def _zeros(names: Sequence[str]) -> Counts:
    """What may be counted one day. A series that begins with its first event shows no increase, and alerts miss it."""
    return dict.fromkeys(
        [
            *product(["accepted", "opened"], names),
            *product(["state"], names, [state.value for state in JobState]),
            *product(["delivery"], _HANDLER_KINDS, ["delivered", "retried", "dead"]),
            *product(["requests"], names, ["submits", "polls", "fetches", "other"], _REQUEST_RESULTS),
        ],
        0,
    )


_HANDLER_KINDS = ("function", "celery", "stream", "file", "https", "http")

_REQUEST_RESULTS = ("2xx", "4xx", "429", "5xx", "lost", "not_sent")


def _counters(counted: Counts, zeros: Counts) -> Iterator[Metric]:
    for what, name, text, labels in _COUNTERS:
        rows = ((key[1:], number) for key, number in (zeros | counted).items() if key[0] == what)
        yield _counter(name, text, labels, rows)
    requests: dict[tuple[str, ...], int] = {key[1:]: 0 for key in zeros if key[0] == "requests"}
    for key, number in counted.items():
        if key[0] == "requests":
            requests[key[1:4]] = requests.get(key[1:4], 0) + number
    text = "Requests to providers. not_sent never left, lost got no complete answer."
    yield _counter("outwait_requests", text, ("provider", "kind", "result"), requests.items())


_COUNTERS = (
    ("accepted", "outwait_jobs_accepted", "Jobs recorded; repeated requests are not counted.", ("provider",)),
    ("state", "outwait_jobs_entered", "Jobs that entered a state; each end is counted once.", ("provider", "state")),
    ("event", "outwait_timeline_events", "Entries of jobs' timelines.", ("event",)),
    ("delivery", "outwait_deliveries", "Delivery attempts that ended.", ("kind", "result")),
    ("orphaned", "outwait_orphaned_answers", "Paid answers that no job was there for.", ("provider",)),
    ("opened", "outwait_breaker_openings", "How often a provider was cut off.", ("provider",)),
)


def _histograms(counted: Counts) -> Iterator[Metric]:
    text = "How long requests to providers took."
    yield _histogram("outwait_request_seconds", text, ("provider", "kind"), REQUEST_BOUNDS, _durations(counted))
    text = "How long after they were due steps started."
    yield _histogram("outwait_late_seconds", text, ("step", "provider"), LATE_BOUNDS, _lateness(counted))


Classes = tuple[list[int], float]
"""The count of each class, and the sum of the seconds."""


def _durations(counted: Counts) -> dict[tuple[str, ...], Classes]:
    classes: dict[tuple[str, ...], list[int]] = {}
    for name, number in counted.items():
        if name[0] == "requests":
            classes.setdefault(name[1:3], [0] * (len(REQUEST_BOUNDS) + 1))[int(name[4])] += number
    return {label: (row, counted.get(("request-micros", *label), 0) / 1e6) for label, row in classes.items()}


def _lateness(counted: Counts) -> dict[tuple[str, ...], Classes]:
    classes: dict[tuple[str, ...], list[int]] = {}
    for name, number in counted.items():
        if name[0] == "late":
            classes.setdefault(name[1:3], [0] * (len(LATE_BOUNDS) + 1))[int(name[3])] += number
    return {label: (row, counted.get(("late-ms", *label), 0) / 1e3) for label, row in classes.items()}


def _gauge(name: str, text: str, labels: Sequence[str], rows: Iterable[tuple[Sequence[str], float | None]]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, number in rows:
        if number is not None:
            family.add_metric(values, number)
    return family


def _counter(name: str, text: str, labels: Sequence[str], rows: Iterable[tuple[Sequence[str], int]]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, number in rows:
        family.add_metric(values, number)
    return family


def _histogram(
    name: str, text: str, labels: Sequence[str], bounds: Sequence[float], rows: Mapping[tuple[str, ...], Classes]
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, (classes, seconds) in rows.items():
        uppers = [*map(str, bounds), "+Inf"]
        family.add_metric(values, list(zip(uppers, map(float, accumulate(classes)), strict=True)), seconds)
    return family


def _ours(jobs: Mapping[str, Mapping[str, int]], names: Sequence[str]) -> dict[str, Mapping[str, int]]:
    """The jobs of each known provider, and of all unknown ones together."""
    counts: dict[str, Mapping[str, int]] = {}
    for name, states in jobs.items():
        label = name if name in names else OTHER
        sums = counts.get(label, {})
        counts[label] = {state: sums.get(state, 0) + number for state, number in states.items()}
    return counts
