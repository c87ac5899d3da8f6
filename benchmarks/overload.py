"""Three times the load that a worker can carry, for minutes: what it still does, what it loses, how it recovers.

The load is offered by jobs that are due again a fixed interval after each poll. At the sustainable load the interval is
such that the worker just keeps up; for the overload the same worker gets three times as many jobs. Throughput is polls
a second as the stub counts them, in windows. A lease that ended would stand in a job's timeline. Afterwards a worker
with a third of the load takes over, and the time until no poll is late any more is the drain.
"""

import argparse
import asyncio
import time
from statistics import median

from report import Bar, Figure, figure, finish, machine
from stage import JITTER, Cost, Process, Stage, settings, wait_for
from waiting import ids, seed, spread

from outwait.client.store import StoreClient

INTERVAL = 2.0
"""Seconds between two polls of a job at the loads that are offered."""

WINDOW = 10.0
"""Seconds in which throughput is counted."""

LATE = 0.5
"""Seconds of lateness below which a backlog is drained."""

KEPT, GROWTH = 0.9, 1.1
"""The bars: the median window against the best load's; and a worker's memory after against before, and the CPU of its
polls against the best load's, which a busy neighbour disturbs less than the throughput."""


class Load:
    """Jobs that all want to be polled every so many seconds."""

    def __init__(self, stage: Stage, number: int) -> None:
        self._stage = stage
        self._namespace = f"o{number}"
        self.number = number
        asyncio.run(seed(settings(self.variables(INTERVAL)), number))

    def variables(self, every: float) -> dict[str, str]:
        """Settings of a worker for these jobs."""
        return self._stage.variables(
            self._namespace,
            OUTWAIT_PROVIDERS__UNLESS__POLL_EVERY=f"{every / JITTER:.3f}",
            OUTWAIT_POLL__ADAPTIVE="false",
        )

    def worker(self, every: float) -> Process:
        """A worker that polls each of them every so many seconds."""
        variables = self.variables(every)
        asyncio.run(spread(settings(variables), self.number, over=every))
        return self._stage.worker(variables)

    def windows(self, worker: Process, seconds: float) -> list[Cost]:
        """Polls a second and what each cost, window by window."""
        return [self._stage.cost(worker, WINDOW) for _ in range(max(1, int(seconds / WINDOW)))]

    def late(self) -> float:
        """Seconds for which the first poll of the lane is overdue."""
        return asyncio.run(self._late())

    def leases_ended(self) -> int:
        """Leases that ended while their work was still queued or running."""
        return asyncio.run(self._ended())

    async def _late(self) -> float:
        async with StoreClient(settings(self.variables(INTERVAL))) as client:
            return max(lane.oldest_due_age for lane in await client.lanes())

    async def _ended(self) -> int:
        async with StoreClient(settings(self.variables(INTERVAL))) as client:
            count = 0
            for job_id in ids(self.number):
                count += sum(entry.event == "lease-ended" for entry in await client.timeline(job_id))
            return count


def _capacity(stage: Stage, seconds: float) -> list[Cost]:
    load = Load(stage, 4000)
    with load.worker(0.2) as worker:
        _settle(stage, worker)
        return load.windows(worker, seconds)


def _rate(costs: list[Cost]) -> float:
    return median(cost.rate for cost in costs)


def _cpu(costs: list[Cost]) -> float:
    return median(cost.worker for cost in costs)


def _row(costs: list[Cost], late: float) -> dict[str, Figure]:
    return {
        "polls a second": figure([cost.rate for cost in costs]),
        "worker CPU a poll, µs": figure([cost.worker for cost in costs]),
        "lateness, s": figure([late]),
    }


def _settle(stage: Stage, worker: Process) -> None:
    before = stage.polls
    wait_for(lambda: worker.cpu and stage.polls > before, "the first poll")
    time.sleep(WINDOW / 2)


def _drain(stage: Stage, load: Load, capacity: float) -> float:
    """Seconds until nothing is late any more, when late jobs come due again at a third of the capacity."""
    with stage.worker(load.variables(3 * load.number / capacity)) as worker:
        began = time.monotonic()
        wait_for(lambda: worker.cpu and load.late() < LATE, "the backlog drained", within=300)
        return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="of overload")
    parser.add_argument("--calm", type=float, default=30, help="seconds at the sustainable load")
    options = parser.parse_args()
    with Stage() as stage:
        facts = machine(stage.redis.info())
        peak = _capacity(stage, options.calm)
        capacity = _rate(peak)
        best = Load(stage, int(0.95 * capacity * INTERVAL))
        with best.worker(INTERVAL) as worker:
            _settle(stage, worker)
            calm, calm_late = best.windows(worker, options.calm), best.late()
        over = Load(stage, int(3 * capacity * INTERVAL))
        with over.worker(INTERVAL) as worker:
            _settle(stage, worker)
            before = worker.memory
            rates = over.windows(worker, options.seconds)
            after, late = worker.memory, over.late()
        ended, drained = over.leases_ended(), _drain(stage, over, capacity)
    best_of = max((peak, calm), key=_rate)
    rows = {"sustainable load": _row(calm, calm_late), "three times that": _row(rates, late)}
    bars = [
        Bar("median throughput, beside the best", KEPT, _rate(rates) / _rate(best_of), is_maximum=False),
        Bar("worker CPU a poll, beside the best", GROWTH, _cpu(rates) / _cpu(best_of)),
        Bar("leases that ended", 0, ended),
        Bar("memory after, beside before", GROWTH, after / before),
        Bar("drained", 300, drained, "s"),
    ]
    finish("overload", "Overload", rows, bars, machine=facts, capacity=round(capacity), seconds=options.seconds)


if __name__ == "__main__":
    main()
