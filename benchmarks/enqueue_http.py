"""Enqueueing over HTTP: one job a request, and a thousand; what it costs the web process and Redis.

The callers run on the same cores. Nothing submits the jobs.
"""

import argparse
import asyncio
import json
import sys
import time
from typing import Any

import aiohttp
from report import Bar, figure, finish, machine
from stage import Process, Stage, settings, wait_for

from outwait.worker.local.embedded import free_port
from outwait.worker.store.access import Access, Scope
from outwait.worker.store.connection import Connection

SINGLE, BATCHED = 1, 0.05
"""The bars: milliseconds of the web process's CPU a job."""

JOB = {"provider": "unless", "operation": "query", "params": {"query": "why?", "sessionId": "s", "visitorId": "v"}}

BATCH = 1000


async def create_key(env: dict[str, str]) -> str:
    """A key that may enqueue."""
    connection = Connection(settings(env))
    made = await Access(connection).create("bench", {Scope.ENQUEUE})
    await connection.close()
    return made.text


async def post(url: str, shown: str, body: bytes, requests: int, callers: int) -> float:
    """Seconds in which so many requests were answered, each caller sending one after the other."""
    headers = {"Authorization": f"Bearer {shown}", "Content-Type": "application/json"}
    left = iter(range(requests))

    async def caller(session: aiohttp.ClientSession) -> None:
        for _ in left:
            async with session.post(url, data=body) as answer:
                await answer.read()
                assert answer.status in {201, 207}

    async with aiohttp.ClientSession(headers=headers) as session:
        began = time.monotonic()
        await asyncio.gather(*(caller(session) for _ in range(callers)))
        return time.monotonic() - began


def cost(stage: Stage, process: Process, jobs: int, sent: Any) -> dict[str, float]:
    """What these jobs cost."""
    before, redis = process.cpu, _redis_cpu(stage)
    seconds = asyncio.run(sent)
    return {
        "jobs a second": jobs / seconds,
        "web CPU, ms a job": 1000 * (process.cpu - before) / jobs,
        "Redis CPU, ms a job": 1000 * (_redis_cpu(stage) - redis) / jobs,
    }


def _redis_cpu(stage: Stage) -> float:
    info: Any = stage.redis.info("cpu")
    return float(info["used_cpu_user"] + info["used_cpu_sys"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--callers", type=int, default=16)
    options = parser.parse_args()
    single, batch = json.dumps(JOB).encode(), json.dumps({"jobs": [JOB] * BATCH}).encode()
    with Stage() as stage:
        facts, port = machine(stage.redis.info()), free_port()
        env = {**stage.variables("http"), "OUTWAIT_WEB__PORT": str(port)}
        shown, url = asyncio.run(create_key(env)), f"http://127.0.0.1:{port}/v1/jobs"
        with stage.start([sys.executable, "-m", "outwait", "web"], "web", env) as process:
            wait_for(lambda: process.cpu and _answers(url, shown, single), "the web process")
            rows = {
                "one a request": cost(
                    stage, process, options.requests, post(url, shown, single, options.requests, options.callers)
                ),
                "a thousand a request": cost(stage, process, 30 * BATCH, post(url, shown, batch, 30, 1)),
            }
    bars = [
        Bar("one a request", SINGLE, rows["one a request"]["web CPU, ms a job"], "ms"),
        Bar("a thousand a request", BATCHED, rows["a thousand a request"]["web CPU, ms a job"], "ms"),
    ]
    figures = {name: {what: figure([value]) for what, value in row.items()} for name, row in rows.items()}
    finish("enqueue_http", "Enqueueing over HTTP", figures, bars, machine=facts, options=vars(options))


def _answers(url: str, shown: str, body: bytes) -> bool:
    try:
        asyncio.run(post(url, shown, body, 20, 1))
    except aiohttp.ClientConnectionError:
        return False
    return True


if __name__ == "__main__":
    main()
