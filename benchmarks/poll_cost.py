"""What one poll costs: Outwait, the plain Celery recipe and bare HTTP clients, in one run, against one stub.

They take turns, each alone with the stub and Redis, several rounds over; ratios are made inside a round, so that a busy
neighbour, who slows all of a round, disturbs them little. CPU is counted by the kernel, polls by the stub.
"""

import argparse
import asyncio
import os
import random
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from redis import Redis
from report import Bar, Figure, figure, finish, machine
from stage import HERE, JITTER, Cost, Process, Stage, settings, wait_for
from waiting import seed, spread

CLIENTS = {"outwait": "our HTTP client alone", "aiohttp": "aiohttp alone", "httpx": "httpx.AsyncClient alone"}

SETTLE = 3.0
"""Seconds between the first poll of a contender and the first instant of its measurement."""

WITHIN_PLAIN = 8.0
"""The bar: how many times less worker CPU than the plain recipe."""

WITHIN_CLIENT = 1.6
"""The bar: how many times the worker CPU of the bare client."""


class Contest:
    """The contenders of one run.

    Args:
        stage: where they run.
        options: rates, seconds.
    """

    def __init__(self, stage: Stage, options: argparse.Namespace) -> None:
        self._stage = stage
        self._options = options
        self._seeded: set[int] = set()

    def client(self, kind: str) -> Cost:
        """A bare client, at Outwait's rate and concurrency."""
        argv = [sys.executable, str(HERE / "clients.py"), kind, self._stage.url]
        argv += ["--rate", str(self._options.rate), "--concurrency", str(self._options.concurrency)]
        with self._stage.start(argv, kind) as process:
            return self._measure(process)

    def outwait(self, waiting: int) -> Cost:
        """One `outwait worker` with this many jobs waiting."""
        every = waiting / self._options.rate
        variables = self._stage.variables(f"n{waiting}", OUTWAIT_PROVIDERS__UNLESS__POLL_EVERY=f"{every / JITTER:.3f}")
        if waiting not in self._seeded:
            asyncio.run(seed(settings(variables), waiting))
            self._seeded.add(waiting)
        asyncio.run(spread(settings(variables), waiting, over=every))
        with self._stage.worker(variables) as process:
            return self._measure(process)

    def plain(self, waiting: int) -> Cost:
        """The plain recipe with this many countdowns."""
        every = waiting / self._options.plain_rate
        with _broker(self._stage.server.url[:-1] + "1") as broker:
            environment = {
                "PLAIN_BROKER": broker,
                "PLAIN_API": self._stage.url,
                "PLAIN_EVERY": f"{every / JITTER:.3f}",
                "PYTHONPATH": str(HERE),
            }
            options = [
                "--pool=threads",
                "--concurrency=8",
                "--loglevel=WARNING",
                "--without-gossip",
                "--without-mingle",
            ]
            argv = [sys.executable, "-m", "celery", "--app=plain", "worker", *options]
            with self._stage.start(argv, "plain", environment) as process:
                _send(broker, waiting, every)
                with Redis.from_url(broker) as redis:  # until the worker holds each countdown in its memory
                    wait_for(lambda: redis.llen("celery") < 50, "countdowns taken by the worker", within=240)
                return self._measure(process)

    def _measure(self, process: Process) -> Cost:
        self._stage.settle(process, SETTLE)
        return self._stage.cost(process, self._options.seconds)


@contextmanager
def _broker(url: str) -> Iterator[str]:
    with Redis.from_url(url) as redis:
        redis.flushdb()
        yield url
        redis.flushdb()


def _send(broker: str, waiting: int, every: float) -> None:
    os.environ["PLAIN_BROKER"] = broker
    from plain import app, poll  # noqa: PLC0415 - reads its broker at import, as a user's module does

    app.conf.broker_url = broker
    with app.connection_for_write(broker) as connection, app.amqp.Producer(connection) as producer:
        for start in range(0, waiting, 500):
            with producer.batch(max_size=500):
                for number in range(start, min(start + 500, waiting)):
                    poll.apply_async((f"p-{number}",), countdown=random.uniform(0, every), producer=producer)


def measure(stage: Stage, options: argparse.Namespace) -> list[dict[str, Cost]]:
    """All rounds: the cost of each contender, by its label."""
    contest = Contest(stage, options)
    rounds = []
    for number in range(options.rounds):
        costs: dict[str, Cost] = {CLIENTS[kind]: contest.client(kind) for kind in CLIENTS}
        for waiting in options.waiting:
            costs[_label("Outwait", waiting)] = contest.outwait(waiting)
            if number == 0 or waiting <= options.plain_every_round:
                costs[_label("plain Celery", waiting)] = contest.plain(waiting)
        rounds.append(costs)
        summary = ", ".join(f"{label} {cost.worker:.0f}" for label, cost in costs.items())
        print(f"round {number + 1} of {options.rounds}, worker CPU microseconds a poll: {summary}", flush=True)
    return rounds


def _label(name: str, waiting: int) -> str:
    return f"{name}, {waiting:,} waiting"


def _rows(rounds: list[dict[str, Cost]]) -> dict[str, dict[str, Figure]]:
    rows: dict[str, dict[str, Figure]] = defaultdict(dict)
    for label in rounds[0]:
        costs = [by_label[label] for by_label in rounds if label in by_label]
        rows[label]["worker CPU, microseconds a poll"] = figure([cost.worker for cost in costs])
        if label not in CLIENTS.values():
            rows[label]["Redis CPU, microseconds a poll"] = figure([cost.redis for cost in costs])
        rows[label]["polls a second"] = figure([cost.rate for cost in costs])
    return rows


def _ratios(rounds: list[dict[str, Cost]], waiting: list[int]) -> dict[str, Figure]:
    """The ratios of costs in each round: others to Outwait, and Outwait to plain HTTP clients."""
    ratios = {}
    for number in waiting:
        ours, plain = _label("Outwait", number), _label("plain Celery", number)
        ratios[f"{plain} / Outwait"] = figure(
            [costs[plain].worker / costs[ours].worker for costs in rounds if plain in costs]
        )
        for client in CLIENTS.values():
            ratios[f"{ours} / {client}"] = figure([costs[ours].worker / costs[client].worker for costs in rounds])
    return ratios


def _bars(ratios: dict[str, Figure], waiting: list[int]) -> list[Bar]:
    bars = []
    for number in waiting:
        plain, client = (
            f"{_label('plain Celery', number)} / Outwait",
            f"{_label('Outwait', number)} / {CLIENTS['outwait']}",
        )
        bars += [
            Bar(plain, WITHIN_PLAIN, ratios[plain].median, "times", is_maximum=False),
            Bar(client, WITHIN_CLIENT, ratios[client].median, "times"),
        ]
    return bars


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6, help="of each measurement")
    parser.add_argument("--waiting", type=int, nargs="+", default=[2_000, 50_000], help="jobs that wait")
    parser.add_argument("--rate", type=float, default=1_500, help="polls a second of Outwait and of the bare clients")
    parser.add_argument("--plain-rate", type=float, default=200, help="polls a second that the plain recipe sustains")
    parser.add_argument(
        "--plain-every-round",
        type=int,
        default=10_000,
        help="the plain recipe waits with more jobs than this in the first round only: its worker takes a minute to "
        "read their countdowns into its memory",
    )
    parser.add_argument("--concurrency", type=int, default=64, help="of the bare clients; Outwait's batches have 64")
    return parser.parse_args()


def main() -> None:
    options = _options()
    with Stage() as stage:
        facts = machine(stage.redis.info("server"))
        rounds = measure(stage, options)
    ratios = _ratios(rounds, options.waiting)
    finish(
        "poll_cost",
        f"What a poll costs: median of {options.rounds} rounds (lowest to highest)",
        _rows(rounds),
        _bars(ratios, options.waiting),
        machine=facts,
        options=vars(options),
        ratios=ratios,
        rounds=[{label: cost._asdict() for label, cost in costs.items()} for costs in rounds],
    )


if __name__ == "__main__":
    main()
