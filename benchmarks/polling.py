"""Requests a job and lateness of detection: adaptive polling beside fixed intervals. A pure simulation; seconds.

The countdowns are the engine's own (worker/engine/pacing.py), and learning is as the record script does it: of each
job that succeeded, the middle of the interval in which it ended, the last 200 of them. Nothing is known at the start;
the first jobs are polled at the interval, and counted too.
"""

import argparse
import math
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from statistics import mean

from report import Bar, finish

from outwait.worker.engine.pacing import poll_countdown

MINIMUM = 5.0
"""Seconds that a provider wants between two polls of a job: ElevateAI's for texts."""

SHARE = 2
"""Per cent of a job's length by which its end may be seen late where that is more than the minimum."""

KEPT, READ_EVERY = 200, 20
"""Durations that are kept, and jobs between two reads of them."""

Took = Callable[[], float]
Countdown = Callable[[float, Sequence[float]], float]


def around(median: float, sigma: float) -> Took:
    """Durations of a log-normal distribution."""
    return lambda: median * math.exp(random.gauss(0, sigma))


def mixed(*kinds: Took) -> Took:
    """Jobs of several kinds under one operation."""

    def draw() -> float:
        return random.choice(kinds)()

    return draw


def workloads(jobs: int) -> dict[str, list[float]]:
    """How long the jobs of each workload take, one after the other."""
    half, hour = jobs // 2, 3600
    minute, ten = around(60, 0.3), around(600, 0.3)
    return {
        "one length, 60 s": drawn(jobs, lambda: random.gauss(60, 2)),
        "around 12 s": drawn(jobs, around(12, 0.5)),
        "around 60 s": drawn(jobs, minute),
        "around 60 s, wide": drawn(jobs, around(60, 0.6)),
        "around 5 min": drawn(jobs, around(300, 0.5)),
        "around an hour": drawn(jobs, around(hour, 0.4)),
        "20 s or 200 s": drawn(jobs, mixed(around(20, 0.2), around(200, 0.2))),
        "without memory, 60 s": drawn(jobs, lambda: random.expovariate(1 / 60)),
        "heavy tail from 20 s": drawn(jobs, lambda: 20 * random.paretovariate(1.5)),
        "60 s, then 10 min": drawn(half, minute) + drawn(half, ten),
        "10 min, then 60 s": drawn(half, ten) + drawn(half, minute),
    }


def drawn(jobs: int, took: Took) -> list[float]:
    return [max(took(), 0.1) for _ in range(jobs)]


WAYS: dict[str, Countdown] = {
    "every minimum": lambda _age, _durations: poll_countdown(MINIMUM, jitter=random.random()),
    "every 2nd minimum": lambda _age, _durations: poll_countdown(2 * MINIMUM, jitter=random.random()),
    "adaptive": lambda age, durations: poll_countdown(MINIMUM, age=age, durations=durations, jitter=random.random()),
}


def run(lengths: Sequence[float], countdown: Countdown) -> Iterator[tuple[int, float, float]]:
    """Of each job: its polls, how late its end was seen, and the shortest time between two polls."""
    kept: deque[float] = deque(maxlen=KEPT)
    known: list[float] = []
    for number, length in enumerate(lengths):
        if number % READ_EVERY == 0:
            known = sorted(kept)
        age, before, polls, shortest = 0.0, 0.0, 0, math.inf
        while age < length:
            before, age = age, age + countdown(age, known)
            polls += 1
            shortest = min(shortest, age - before)
        kept.append((before + age) / 2)
        yield polls, age - length, shortest


def measure(lengths: Sequence[float], countdown: Countdown) -> dict[str, float]:
    rows = list(run(lengths, countdown))
    late = sorted(row[1] for row in rows)
    return {
        "requests a job": round(mean(row[0] for row in rows), 2),
        "late, mean s": round(mean(late), 2),
        "late, 95 % s": round(late[int(0.95 * len(late))], 2),
        "late, % of the job": round(100 * sum(late) / sum(lengths), 2),
        "shortest interval s": round(min(row[2] for row in rows), 3),
    }


def bars(simulated: dict[str, dict[str, dict[str, float]]]) -> Iterator[Bar]:
    adaptive = [ways["adaptive"] for ways in simulated.values()]
    for way, limit in (("every minimum", 0.5), ("every 2nd minimum", 0.9)):
        ratios = [ways["adaptive"]["requests a job"] / ways[way]["requests a job"] for ways in simulated.values()]
        yield Bar(f"requests, where {way} is 1: on average", limit, mean(ratios))
    late = max(min(row["late, mean s"] / MINIMUM, row["late, % of the job"] / SHARE) for row in adaptive)
    yield Bar(f"late on average, in minimums or in {SHARE} % of the job: at worst", 1.5, late)
    yield Bar("shortest interval", MINIMUM, min(row["shortest interval s"] for row in adaptive), "s", is_maximum=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2000, help="of each workload")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    random.seed(options.seed)
    simulated = {
        name: {way: measure(lengths, countdown) for way, countdown in WAYS.items()}
        for name, lengths in workloads(options.jobs).items()
    }
    rows = {f"{name}: {way}": row for name, ways in simulated.items() for way, row in ways.items()}
    finish("polling", "Polling: requests and lateness", rows, list(bars(simulated)), **vars(options), minimum_s=MINIMUM)


if __name__ == "__main__":
    main()
