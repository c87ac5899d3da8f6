"""What grows with the number of waiting jobs: CPU a poll, a worker's memory, Redis's memory; and how late polls start.

**Cost.** One worker polls at the same rate with few and with many jobs waiting, in turns.

**Redis memory.** `used_memory` with the jobs minus `used_memory` without, divided by the jobs; each stands as after its
first poll (params, timeline, due time and all).

**Lateness.** First the worker's capacity: polls a second while every job is due. Then, at 70 % of that: the due times
of all polls of the next seconds are read from the store in one query (they are its scores, Redis's clock), the stub
notes when the poll of each job comes (the same machine's clock), and lateness is the difference. What has not come
when the window closes counts as late until then. It holds everything between a job's due time and its request's
arrival: the clock, Celery's queue, the event loop, a connection, and the stub's own delay.
"""

import argparse
import asyncio
import time
from statistics import median, quantiles
from typing import Any

from report import Bar, Figure, figure, finish, machine
from stage import JITTER, Cost, Process, Stage, settings
from waiting import seed, spread

from outwait.worker.store.keys import Keys

GROWTH, MEMORY_GROWTH, BYTES, LATE = 1.15, 1.1, 1024, 500.0
"""The bars: growth of CPU a poll and of a worker's memory, bytes of Redis a job, milliseconds of lateness (p99).

Memory that "does not grow" is measured with the noise of an allocator: one part in ten."""

SETTLE = 4.0
"""Seconds between a worker's first poll and the first instant of a measurement."""

GRACE = 5.0
"""Seconds after the last due time for which a late poll is waited for."""


class Herd:
    """A number of waiting jobs in a namespace of their own.

    Args:
        stage: where they wait.
        number: how many.
    """

    def __init__(self, stage: Stage, number: int) -> None:
        self._stage = stage
        self._namespace = f"w{number}"
        self._due = Keys(self._namespace)("DUE", "poll:unless")
        self.number = number
        self.bytes = 0.0

    def worker(self, every: float) -> Process:
        """A worker that polls each of them about every so many seconds."""
        variables = self._variables(every)
        before = self._memory()
        if not self.bytes:
            asyncio.run(seed(settings(variables), self.number))
        asyncio.run(spread(settings(variables), self.number, over=every))
        self.bytes = self.bytes or (self._memory() - before) / self.number
        return self._stage.worker(variables)

    def cost(self, rate: float, seconds: float) -> tuple[Cost, int]:
        """What a poll costs at this rate, and the worker's memory then."""
        with self.worker(self.number / rate) as worker:
            self._stage.settle(worker, SETTLE)
            return self._stage.cost(worker, seconds), worker.memory

    def capacity(self, seconds: float) -> float:
        """Polls a second while every job is due at once."""
        with self.worker(0.1) as worker:
            self._stage.settle(worker, SETTLE)
            return self._stage.cost(worker, seconds).rate

    def lateness(self, rate: float, seconds: float) -> list[float]:
        """Milliseconds after its due time at which each poll came that was due in a window of so many seconds."""
        with self.worker(self.number / rate) as worker:
            self._stage.settle(worker, SETTLE)
            self._stage.stub("/note")
            began = time.time()
            rows: Any = self._stage.redis.zrangebyscore(
                self._due, (began + 1) * 1000, (began + 1 + seconds) * 1000, withscores=True
            )
            time.sleep(1 + seconds + GRACE)
            arrivals, now = self._stage.stub("/arrivals"), time.time()
        return [1000 * arrivals.get(item.decode(), now) - due for item, due in rows]

    def _variables(self, every: float) -> dict[str, str]:
        return self._stage.variables(
            self._namespace, OUTWAIT_PROVIDERS__UNLESS__POLL_EVERY=f"{max(0.1, every / JITTER):.3f}"
        )

    def _memory(self) -> int:
        info: Any = self._stage.redis.info("memory")
        return int(info["used_memory"])


def _costs(herds: list[Herd], options: argparse.Namespace) -> list[dict[int, tuple[Cost, int]]]:
    rounds = []
    for number in range(options.rounds):
        # Few jobs reach a lower rate, as their lateness lengthens a short interval: the others are measured at theirs.
        fewest = herds[0].cost(options.rate, options.seconds)
        others = {herd.number: herd.cost(fewest[0].rate, options.seconds) for herd in herds[1:]}
        rounds.append({herds[0].number: fewest} | others)
        summary = ", ".join(f"{waiting:,} {cost.worker:.0f}" for waiting, (cost, _) in rounds[-1].items())
        print(f"round {number + 1} of {options.rounds}, worker CPU microseconds a poll: {summary}", flush=True)
    return rounds


def _rows(rounds: list[dict[int, tuple[Cost, int]]], herds: list[Herd]) -> dict[str, dict[str, Figure]]:
    rows = {}
    for herd in herds:
        measured = [costs[herd.number] for costs in rounds]
        rows[f"{herd.number:,} waiting"] = {
            "worker CPU, microseconds a poll": figure([cost.worker for cost, _ in measured]),
            "Redis CPU, microseconds a poll": figure([cost.redis for cost, _ in measured]),
            "polls a second": figure([cost.rate for cost, _ in measured]),
            "worker memory, MB": figure([memory / 2**20 for _, memory in measured]),
            "Redis bytes a job": figure([herd.bytes]),
        }
    return rows


def _late(herd: Herd, options: argparse.Namespace) -> dict[str, float]:
    capacity = herd.capacity(options.seconds)
    rate = options.load * capacity
    late = herd.lateness(rate, options.window)
    cuts = quantiles(late, n=100)
    return {
        "waiting": herd.number,
        "capacity, polls a second": round(capacity),
        "rate, polls a second": round(rate),
        "polls": len(late),
        "p50, ms": round(cuts[49], 1),
        "p95, ms": round(cuts[94], 1),
        "p99, ms": round(cuts[98], 1),
        "worst, ms": round(max(late), 1),
    }


def _bars(rounds: list[dict[int, tuple[Cost, int]]], herds: list[Herd], late: float) -> list[Bar]:
    smallest, largest = herds[0].number, herds[-1].number
    cpu = median([costs[largest][0].worker / costs[smallest][0].worker for costs in rounds])
    memory = median([costs[largest][1] / costs[smallest][1] for costs in rounds])
    span = f"{largest:,} waiting / {smallest:,} waiting"
    return [
        Bar(f"worker CPU a poll, {span}", GROWTH, cpu, "times"),
        Bar(f"worker memory, {span}", MEMORY_GROWTH, memory, "times"),
        Bar("Redis memory a waiting job", BYTES, max(herd.bytes for herd in herds[1:]), "bytes"),
        Bar("p99 of how late a poll starts", LATE, late, "ms"),
    ]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--waiting", type=int, nargs="+", default=[1_000, 100_000, 1_000_000], help="jobs that wait")
    parser.add_argument("--late", type=int, default=100_000, help="which of these lateness is measured with")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=6, help="of each measurement of cost")
    parser.add_argument("--rate", type=float, default=1_000, help="polls a second while cost is measured")
    parser.add_argument("--load", type=float, default=0.7, help="share of the capacity at which lateness is measured")
    parser.add_argument("--window", type=float, default=15, help="seconds in which lateness is measured")
    options = parser.parse_args()
    if len(options.waiting) < 2 or options.late not in options.waiting:
        parser.error("--waiting needs at least two numbers, and --late must be one of them")
    return options


def main() -> None:
    options = _options()
    with Stage() as stage:
        facts = machine(stage.redis.info("server"))
        herds = [Herd(stage, number) for number in sorted(options.waiting)]
        late = _late(next(herd for herd in herds if herd.number == options.late), options)
        rounds = _costs(herds, options)
    finish(
        "scale",
        f"What grows with the jobs that wait: median of {options.rounds} rounds (lowest to highest)",
        _rows(rounds, herds),
        _bars(rounds, herds, late["p99, ms"]),
        machine=facts,
        options=vars(options),
        lateness=late,
    )
    print("lateness: " + ", ".join(f"{name} {value:g}" for name, value in late.items()))


if __name__ == "__main__":
    main()
