"""The attacks that `attacks.py` measures: those of tests/attacks that concern another tenant's waiting time."""

import asyncio
import json
from contextlib import suppress
from functools import cache
from itertools import cycle
from typing import Any, NamedTuple
from uuid import uuid4

import httpx

from outwait.client.http import HttpClient
from outwait.client.store import StoreClient
from outwait.worker.model.errors import StoreUnavailable
from outwait.worker.model.jobs import JobRequest, JobState
from tests.attacks import test_answers as answers
from tests.attacks import test_fuzz as fuzz
from tests.attacks import test_lanes as lanes
from tests.attacks import test_lists as lists
from tests.attacks import test_messages as messages
from tests.attacks import test_neighbours as neighbours
from tests.attacks import test_quotas as quotas
from tests.attacks import test_receivers as receivers
from tests.attacks import test_targets as targets
from tests.attacks import test_turns as turns
from tests.attacks import test_web_process as web_process
from tests.attacks.fuzzing import Api, Fuzzer
from tests.patience import PATIENCE, until
from tests.stack import ROOT, Stack, query

ACME, MALLORY = receivers.ACME, receivers.MALLORY
WAVE = 200
"""Messages, requests or jobs of one wave of the fuzzer."""

SETTLE = 15
"""Seconds for the work of an attack to end before the next quiet job."""

LATER = 3600.0
"""A countdown of jobs that only lie in the store."""


class Place(NamedTuple):
    """A stack under attack: what the attacker has (the queue, a key), and what the other tenant has."""

    stack: Stack
    web: web_process.Web
    client: StoreClient
    victim: HttpClient
    victim_key: str
    service: receivers.Service
    attacker: httpx.AsyncClient
    attacker_key: str
    state: dict[str, Any]

    @property
    def redis(self) -> Any:
        """The attacker's connection."""
        return self.client._store.connection.redis  # noqa: SLF001 - the attacker's way in, as in the tests

    async def send(self, *raw: bytes) -> None:
        """Put messages into the queue of producers."""
        await self.redis.lpush(self.stack.settings.intake.queue, *raw)

    async def flood(self, number: int, *texts: str, **fields: Any) -> list[str]:
        """Enqueue jobs of the attacker, whose texts are gone through again and again."""
        requests: list[tuple[JobRequest, str | None]] = [
            (query(texts[n % len(texts)], **({"tenant": MALLORY} | fields)), None) for n in range(number)
        ]
        ids = [enqueued.job_id for enqueued in await self.client.enqueue_many(requests)]  # type: ignore[union-attr]
        self.state.setdefault("flood", []).extend(ids)
        return ids

    async def taken_in(self) -> bool:
        """Whether every message is taken in."""
        keys = self.client._store.connection.keys  # noqa: SLF001
        queue = self.stack.settings.intake.queue
        return not await self.redis.llen(queue) and not await self.redis.zcard(keys("IN_LEASED"))

    async def settle(self) -> None:
        """End what the attack has left, so that the next job is a quiet one."""
        flood = self.state.pop("flood", [])
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE):
                await until(self.taken_in)
                for job_id in flood:
                    with suppress(Exception):  # it has ended
                        await self.client.cancel(job_id)
                await self.client.resume("unless")

                async def ended() -> bool:
                    jobs = await self.client.named(flood)
                    return all(job.closed or job.state is JobState.UNCERTAIN for job in jobs)

                await until(ended)


async def own_job(place: Place) -> str:
    """The other tenant's job: over HTTP, delivered to a handler and to its own server; a 503 is tried again."""
    request = query(uuid4().hex, targets=["crm", place.service.url], idempotency_key=uuid4().hex)
    while True:
        try:
            return (await place.victim.enqueue(request)).job_id
        except StoreUnavailable:
            await asyncio.sleep(0.1)


async def other_provider(place: Place) -> str:
    """The same at a provider that the attack does not reach: what a provider asks for holds for all of its jobs."""
    params = {"contentUri": "https://a.example/1.wav", "encoding": "Wav", "languageCode": "en-US"}
    sinks = ["crm", place.service.url]
    request = JobRequest(provider="ringcentral", operation="speech-to-text", params=params, targets=sinks)
    return (await place.victim.enqueue(request)).job_id


async def behind_own(place: Place) -> str:
    """The same behind a job of its own tenant: where jobs take turns, one job before it is no attack."""
    await own_job(place)
    return await own_job(place)


async def logged_in(place: Place) -> str:
    """The same after a login at the pages."""
    async with httpx.AsyncClient(base_url=place.web.url, timeout=PATIENCE) as browser:
        assert (await browser.post("/login", data={"key": place.victim_key})).status_code == 303
    return await own_job(place)


async def kombus_keys(place: Place) -> None:
    for form in ("stream://{}", "celery://x?queue={}") * 5:
        await targets.sent(place.stack, place.redis, [form.format(name) for name in targets.names(place.stack)])


async def bombs(place: Place) -> None:
    kinds = [*messages.PACKERS] * 5
    await place.send(*[messages.envelope(messages.bomb(kind), uuid4().hex, kind) for kind in kinds])


async def masked_texts(place: Place) -> None:
    await place.flood(10, *(f"{number} = {neighbours.OPTIONS}" for number in range(10)))


async def masked_requests(place: Place) -> None:
    url = "https://a.example/" + neighbours.OPTIONS * 16  # 62 KB
    request = {"provider": url, "operation": url, "params": {"query": url, url: url}, "targets": [url], url: url}
    while True:
        await place.attacker.post("/v1/jobs", json=request)


async def gone(place: Place) -> None:
    """Each time as another tenant, because an answer of 410 switches the receiver off for that one."""
    await place.flood(1, "gone", tenant=f"{MALLORY}-{uuid4().hex}", targets=[place.service.url + "?order=7"])


async def unknown_handlers(place: Place) -> None:
    jobs = [lanes.attack([f"x{job}-{name}" for name in range(lanes.NAMES)]) for job in range(lanes.JOBS)]
    while True:
        await place.attacker.post("/v1/jobs", json={"jobs": jobs})


async def hanging_host(place: Place) -> None:
    host = place.state["host"] = lanes.Receiver()
    await host.server.start_server()
    jobs = [lanes.attack([host.url(f"{job}/{name}") for name in range(lanes.NAMES)]) for job in range(lanes.JOBS)]
    assert (await place.attacker.post("/v1/jobs", json={"jobs": jobs})).status_code == 207

    async def hangs() -> bool:
        return host.at_once == place.stack.settings.deliver.per_host

    await until(hangs)


async def host_answers(place: Place) -> None:
    host = place.state.pop("host")
    host.open.set()

    async def has_all() -> bool:
        return bool(host.got >= lanes.JOBS * lanes.NAMES)

    await until(has_all)
    await host.server.close()


async def refused_message(place: Place) -> None:
    await lanes.sent(place.stack, place.redis, [f"file:{number}.jsonl" for number in range(30_000)])


async def conflicts(place: Place) -> None:
    while True:
        name = place.state["latest"]
        raw = [messages.envelope(messages.asked(tenant=MALLORY, priority=n % 10), name) for n in range(210)]
        await place.send(*raw)
        await until(place.taken_in)


async def made_up_providers(place: Place) -> None:
    names = [f"p-{uuid4().hex}" for _ in range(1000)]
    await place.send(*[messages.envelope(messages.asked(provider=name), name) for name in names])


async def wrong_keys(place: Place) -> None:
    for _ in range(12):
        answer = await place.attacker.post("/login", data={"key": "ow_00000000_" + "x" * 43})
        assert answer.status_code in {401, 429}


async def half_open(place: Place) -> None:
    place.state["opened"] = await asyncio.to_thread(lambda: [place.web.connect(web_process.HEAD) for _ in range(1100)])


async def more_half_open(place: Place) -> None:
    opened = place.state["opened"]
    while True:
        await asyncio.sleep(0.01)  # a hundred a second
        opened.pop(0).close()
        opened.append(await asyncio.to_thread(place.web.connect, web_process.HEAD))


async def close_all(place: Place) -> None:
    for connection in place.state.pop("opened"):
        connection.close()


async def large_jobs(place: Place) -> None:
    if not place.state.get("large"):
        await place.flood(100, "large", metadata=lists.METADATA, countdown=LATER)
        place.state["large"] = place.state.pop("flood")  # they stay


async def listed(place: Place) -> None:
    while True:
        assert (await place.attacker.get("/v1/jobs?limit=100")).status_code == 200


async def fuzzed_messages(place: Place) -> None:
    fuzzer = place.state.setdefault("messages", Fuzzer("messages"))
    await place.send(*[fuzzer.message(f"m-{uuid4().hex}", fuzz.REQUEST) for _ in range(WAVE)])


async def fuzzed_requests(place: Place) -> None:
    fuzzer, gate = place.state.setdefault("requests", Fuzzer("requests")), asyncio.Semaphore(fuzz.AT_ONCE)
    document = json.loads((ROOT / "docs" / "openapi.json").read_text())
    api = Api(document, place.attacker_key, [place.state["latest"], "unknown"], {**fuzz.REQUEST, "targets": []})
    await asyncio.gather(*(fuzz.asked(place.web.url, fuzzer.request(api.request(fuzzer)), gate) for _ in range(WAVE)))


async def odd_answers(place: Place) -> None:
    names = [name for name in answers.SUBMITS if name != "silence"]
    await place.flood(40, *names, "result-deep", "result-deeper", "result-surrogate")


async def silence(place: Place) -> None:
    await place.flood(20, "silence", "silence-later")

    async def silenced() -> bool:
        return any(status.paused_until for status in await place.client.providers() if status.provider == "unless")

    await until(silenced)


async def fuzzed_answers(place: Place) -> None:
    await place.flood(WAVE // 2, *(uuid4().hex for _ in range(WAVE // 2)))


async def urgent(place: Place) -> None:
    await place.flood(turns.FLOOD, "flood", priority=9)


async def counted_down(place: Place) -> None:
    await place.flood(turns.FLOOD, "flood", priority=9, countdown=1)
    await asyncio.sleep(1.1)


async def failing(place: Place) -> None:
    ids = await place.flood(40, turns.FAILS)
    await until(lambda: turns.some_failed(place.client, ids))


async def probed(place: Place) -> None:
    """The breaker closes by a job that succeeds; then the next one is quiet."""
    await place.settle()
    await place.victim.end_of(await own_job(place), 60)


@cache
def fillers() -> "cycle[bytes]":
    """Requests that hold what cannot be compressed, for jobs that nobody begins."""
    sizes = [(560_000, 5), (30_000, 10), (500, 1000)]
    jobs = [[query(metadata=quotas.noise(size), countdown=LATER)] * count for size, count in sizes]
    return cycle([json.dumps({"jobs": [job.model_dump(exclude_unset=True) for job in each]}).encode() for each in jobs])


async def filled(place: Place) -> None:
    await place.redis.config_set("maxmemory", quotas.MAXMEMORY)


async def filling(place: Place) -> None:
    while True:
        await place.attacker.post("/v1/jobs", content=next(fillers()), headers={"Content-Type": "application/json"})
