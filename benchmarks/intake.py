"""How fast one worker takes jobs in that a Celery producer has sent in bulk.

A producer of its own process sends `tasks.submit` with `send_task` and `producer.batch`, as the README tells; then
a worker starts on the full queue. The provider is paused, so that what is measured is the intake: messages decoded,
requests validated, jobs recorded. Counted from the first job in the store to the last.
"""

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from uuid import uuid4

from report import Bar, figure, finish, machine
from stage import ROOT, Process, Stage, settings, wait_for

from outwait.worker.model.outcomes import Pause
from outwait.worker.store.connection import Connection
from outwait.worker.store.keys import Keys
from outwait.worker.store.lanes import Lanes

BAR = 5_000
"""Messages a second on one core."""

LOOK = 0.02
"""Seconds between two looks at how many jobs there are."""


class Taken(NamedTuple):
    """One look: seconds, jobs in the store, CPU seconds of the worker and of Redis."""

    at: float
    jobs: int
    worker: float
    redis: float


def send(broker: str, queue: str, number: int) -> None:
    """The producer: sends this many jobs."""
    from celery import Celery  # noqa: PLC0415 - only the producer's process needs it

    app = Celery(broker=broker)
    params = {"query": "What does it cost to wait?", "sessionId": "session-1", "visitorId": "visitor-1"}
    request = {"provider": "unless", "operation": "query", "params": params, "targets": ["crm"]}
    with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
        for start in range(0, number, 500):
            with producer.batch(max_size=500):
                for _ in range(start, min(start + 500, number)):
                    app.send_task("tasks.submit", kwargs=request, queue=queue, producer=producer)


async def _pause(variables: Mapping[str, str]) -> None:
    connection = Connection(settings(variables))
    await Lanes(connection).record([Pause(provider="unless", pause_ms=3_600_000, reason="only the intake is measured")])
    await connection.close()


def measure(stage: Stage, number: int) -> dict[str, float]:
    """One round: fill the queue, start a worker, measure."""
    namespace = f"in-{uuid4().hex[:6]}"
    variables = stage.variables(namespace)
    asyncio.run(_pause(variables))
    queue = variables["OUTWAIT_INTAKE__QUEUE"]
    argv = [sys.executable, str(Path(__file__)), "--messages", str(number), "--send", stage.server.url, queue]
    began = time.monotonic()
    subprocess.run(argv, cwd=ROOT, check=True)
    sent = time.monotonic() - began
    with stage.worker(variables) as worker:
        first, last = _watch(stage, worker, Keys(namespace)("INDEX", "unless", "queued"), number)
    jobs, cpu = last.jobs - first.jobs, last.worker - first.worker
    return {
        "messages a CPU second": jobs / cpu,
        "messages a second": jobs / (last.at - first.at),
        "worker CPU, microseconds a message": 1e6 * cpu / jobs,
        "Redis CPU, microseconds a message": 1e6 * (last.redis - first.redis) / jobs,
        "sent a second": number / sent,
    }


def _watch(stage: Stage, worker: Process, index: str, number: int) -> tuple[Taken, Taken]:
    def read() -> Taken:
        jobs: Any = stage.redis.zcard(index)
        info: Any = stage.redis.info("cpu")
        return Taken(time.monotonic(), jobs, worker.cpu, info["used_cpu_user"] + info["used_cpu_sys"])

    def begun() -> Taken | None:
        taken = read()
        return taken if taken.jobs else None

    first: Taken = wait_for(begun, "the first job")
    last = first
    while last.jobs < number:
        time.sleep(LOOK)
        last = read()
        if last.at - first.at > 120:
            raise TimeoutError(f"{last.jobs} of {number} messages in 120 s:\n{worker.log.read_text()[-3000:]}")
    return first, last


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--send", nargs=2, metavar=("BROKER", "QUEUE"), help="act as the producer, and exit")
    return parser.parse_args()


def main() -> None:
    options = _options()
    if options.send:
        broker, queue = options.send
        send(broker, queue, options.messages)
        return
    with Stage() as stage:
        facts = machine(stage.redis.info("server"))
        rounds = [measure(stage, options.messages) for _ in range(options.rounds)]
    row = {name: figure([figures[name] for figures in rounds]) for name in rounds[0]}
    rate = median([figures["messages a CPU second"] for figures in rounds])
    finish(
        "intake",
        f"Intake of {options.messages:,} messages: median of {options.rounds} rounds (lowest to highest)",
        {"one worker": row},
        [Bar("messages taken in on one core", BAR, rate, "a CPU second", is_maximum=False)],
        machine=facts,
        options={"messages": options.messages, "rounds": options.rounds},
    )


if __name__ == "__main__":
    main()
