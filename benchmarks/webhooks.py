"""A burst of webhooks to one web process: 10,000 jobs of RingCentral end at once.

Each connection posts one webhook after another, as fast as it is answered, so that the whole burst is there at once.
A webhook is lost if it was answered with 200 and does not stand in its job's ledger. Latency is what the sender sees,
who runs on the same cores.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from statistics import quantiles
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from report import Bar, figure, finish, machine
from stage import Process, Stage, settings, wait_for
from waiting import BATCH, ids

from outwait.client.store import StoreClient
from outwait.worker.engine.acceptance import Acceptance
from outwait.worker.engine.provider_webhooks import WebhookUrls
from outwait.worker.local.embedded import free_port
from outwait.worker.model.jobs import JobRequest
from outwait.worker.model.outcomes import NO_FENCE, Submitted
from outwait.worker.providers.registry import build
from outwait.worker.store.connection import Connection
from outwait.worker.store.lanes import Lanes
from outwait.worker.store.provider_webhooks import ProviderWebhooks

P99 = 1000
"""The bar, in milliseconds."""

REQUEST = JobRequest(
    provider="ringcentral",
    operation="speech-to-text",
    params={"contentUri": "https://media.example.com/call.mp3", "encoding": "Mpeg", "languageCode": "en-US"},
    deadline=7 * 86400,
)

WORDS = [{"word": "outwait", "start": n * 0.4, "end": n * 0.4 + 0.35, "confidence": 0.93} for n in range(30)]
"""A transcript of twelve seconds: some two kilobytes."""


class Burst(NamedTuple):
    """What the sender saw: statuses, milliseconds of each, seconds of all."""

    statuses: Counter[int]
    latencies: list[float]
    seconds: float


def variables(stage: Stage, namespace: str, port: int) -> dict[str, str]:
    """Settings of the web process."""
    account = {"CLIENT_ID": "i", "CLIENT_SECRET": "s", "JWT": "j"}
    return {
        **stage.variables(namespace),
        **{f"OUTWAIT_PROVIDERS__RINGCENTRAL__{name}": value for name, value in account.items()},
        "OUTWAIT_WEB__PORT": str(port),
        "OUTWAIT_WEB__PUBLIC_URL": f"http://127.0.0.1:{port}",
    }


async def seed(env: Mapping[str, str], number: int) -> list[str]:
    """Create jobs that wait at the provider. Returns the URLs of their webhooks."""
    used = settings(env)
    connection = Connection(used)
    lanes, addresses = Lanes(connection), WebhookUrls(used, ProviderWebhooks(connection))
    acceptance = Acceptance(build(used.providers), used)
    names = ids(number)
    for start in range(0, number, BATCH):
        group = names[start : start + BATCH]
        await lanes.enqueue([acceptance.job(job_id, REQUEST) for job_id in group])
        await lanes.record(
            [
                Submitted(
                    work_id=job_id, fence=NO_FENCE, external_id=job_id, memo="webhook", countdown_ms=300_000, submits=1
                )
                for job_id in group
            ]
        )
    urls = [str(await addresses.url("ringcentral", job_id)) for job_id in names]
    await connection.close()
    return urls


def _body(job_id: str) -> bytes:
    response = {"transcript": "a call", "confidence": 0.93, "words": WORDS}
    return json.dumps({"jobId": job_id, "status": "Success", "response": response}).encode()


def _requests(urls: list[str]) -> Iterator[bytes]:
    for job_id, url in zip(ids(len(urls)), urls, strict=True):
        parts, body = urlsplit(url), _body(job_id)
        head = f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
        yield head.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body


async def burst(urls: list[str], connections: int) -> Burst:
    """Post all webhooks."""
    where, requests = urlsplit(urls[0]), iter(list(_requests(urls)))
    statuses: Counter[int] = Counter()
    latencies: list[float] = []

    async def post() -> None:
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        for request in requests:
            began = time.perf_counter()
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.partition(b"content-length:")[2].split(maxsplit=1)[0]))
            latencies.append(1000 * (time.perf_counter() - began))
            statuses[int(head.split(maxsplit=2)[1])] += 1
        writer.close()

    began = time.monotonic()
    await asyncio.gather(*(post() for _ in range(connections)))
    return Burst(statuses, latencies, time.monotonic() - began)


async def stored_webhooks(env: Mapping[str, str], number: int) -> int:
    """The number of webhooks in the ledgers of the jobs."""
    async with StoreClient(settings(env)) as client:
        jobs, cursor = [], None
        while True:
            page = await client.jobs(limit=1000, cursor=cursor)
            jobs += [job.ledger.webhooks for job in page.jobs]
            cursor = page.cursor
            if cursor is None:
                break
    assert len(jobs) == number
    return sum(jobs)


def _listens(stage: Stage, env: Mapping[str, str], process: Process) -> None:
    async def connect() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", int(env["OUTWAIT_WEB__PORT"]))
        except OSError:
            return False
        writer.close()
        return True

    wait_for(lambda: process.cpu and asyncio.run(connect()), "the web process")
    assert stage.redis.ping()


def measure(stage: Stage, number: int, connections: int) -> dict[str, float]:
    """Send one burst to a new web process."""
    env = variables(stage, f"w-{connections}", free_port())
    urls = asyncio.run(seed(env, number))
    with stage.start([sys.executable, "-m", "outwait", "web"], "web", env) as process:
        _listens(stage, env, process)
        before, redis_before = process.cpu, _redis_cpu(stage)
        result = asyncio.run(burst(urls, connections))
        cpu, redis = process.cpu - before, _redis_cpu(stage) - redis_before
    steps = quantiles(result.latencies, n=100)
    return {
        "answered 200": result.statuses[200],
        "lost": result.statuses[200] - asyncio.run(stored_webhooks(env, number)),
        "p50, ms": steps[49],
        "p99, ms": steps[98],
        "webhooks a second": number / result.seconds,
        "web CPU, microseconds a webhook": 1e6 * cpu / number,
        "Redis CPU, microseconds a webhook": 1e6 * redis / number,
    }


def _redis_cpu(stage: Stage) -> float:
    info: Any = stage.redis.info("cpu")
    return float(info["used_cpu_user"] + info["used_cpu_sys"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--webhooks", type=int, default=10_000)
    parser.add_argument("--connections", type=int, nargs="+", default=[64, 200])
    options = parser.parse_args()
    with Stage() as stage:
        facts = machine(stage.redis.info())
        measured = {count: measure(stage, options.webhooks, count) for count in options.connections}
    rows = {
        f"{count} connections": {name: figure([value]) for name, value in row.items()}
        for count, row in measured.items()
    }
    bars = [
        Bar("answered 200", options.webhooks, min(row["answered 200"] for row in measured.values()), is_maximum=False),
        Bar("lost", 0, max(row["lost"] for row in measured.values())),
        Bar("p99", P99, max(row["p99, ms"] for row in measured.values()), "ms"),
    ]
    finish("webhooks", "Webhooks", rows, bars, machine=facts, options=vars(options))


if __name__ == "__main__":
    main()
