"""Thousands of broken messages, HTTP requests and provider answers: everything lives on, and nobody else waits.

OUTWAIT_FUZZ_SEED makes another run and OUTWAIT_FUZZ_COUNT a longer one; a failure prints its seed. What is judged holds
for any input: no dead process, no 500, no error that nobody has foreseen, no open job without a due time, no submit
repeated that the provider may have taken, and another tenant's job is done meanwhile.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from outwait.client.store import StoreClient
from outwait.worker.engine.intake import PARKED_SHOWN
from outwait.worker.model.jobs import JobRequest, JobState
from outwait.worker.store.access import Access, Scope
from outwait.worker.store.inbox import REFUSED_KEPT
from tests.attacks.fuzzing import COUNT, SEED, Answer, Api, Fuzzer
from tests.patience import until
from tests.stack import ROOT, Stack, closed, query

BATCH = 200
AT_ONCE = 20

WAIT = 3.0
"""Seconds for an answer to a request, which may be incomplete; nothing is judged by how many come in time."""

CONTENT = {
    "a": [1, 2.5, {"b": None}],
    "c": {"d": "e", "f": [], "g": {"h": [True, "i", "j", {"k": -1}]}},
    "l": "m",
    "n": 0,
}
"""Most of what is broken is here, where anything may stand: it goes all the way."""

REQUEST = {
    "provider": "unless",
    "operation": "query",
    "params": {"query": "why?", "sessionId": "s-1", "visitorId": "v-1", "metadata": CONTENT},
    "targets": ["file:jobs.jsonl"],
    "metadata": {"order": 7, "lines": [CONTENT, CONTENT]},
    "tenant": "attacker",
    "deadline": 300.0,
    "countdown": 0,
    "priority": 5,
    "version": 1,
}

HEAD_MAX = 1 << 20
"""Bytes of a request's head that the vendor reads: an external id is in the URL."""

NOT_TAKEN = frozenset({401, 403, 429})
"""After these a submit may be sent again."""


class Subject:
    """A stack, its only worker and its web process."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.processes: dict[str, subprocess.Popen[bytes]] = {"worker": stack.worker(), "web": stack.web()}
        self.waits: list[float] = []

    async def does_anothers_job(self, client: StoreClient) -> None:
        """At another provider: that of the attack may ask for a pause, which everybody keeps."""
        params = {"contentUri": "https://a.example/1.wav", "encoding": "Wav", "languageCode": "en-US"}
        request = JobRequest(provider="ringcentral", operation="speech-to-text", params=params, tenant="other")
        began = time.monotonic()
        job_id = (await client.enqueue(request)).job_id
        assert (await closed(client, job_id)).state is JobState.SUCCEEDED
        self.waits.append(time.monotonic() - began)
        assert {name: process.poll() for name, process in self.processes.items()} == {"worker": None, "web": None}

    async def judge(self, client: StoreClient) -> None:
        await self.does_anothers_job(client)

        async def nothing_is_lost() -> bool:
            self._lost = await lost(client)
            return not self._lost

        try:
            await until(nothing_is_lost)
        except AssertionError:
            pytest.fail(f"open jobs that stand in no lane: {self._lost[:10]}")
        logs = self.stack.logs("worker") + self.stack.logs("web")
        unforeseen = [line for line in logs.splitlines() if "Traceback" in line or " CRITICAL " in line]
        assert not unforeseen, logs[max(0, logs.index(unforeseen[0]) - 500) :][:4000]
        quiet, attacked = self.waits[0], max(self.waits[1:])
        sys.stdout.write(f"another tenant's job took {quiet:.2f} s before, at most {attacked:.2f} s meanwhile\n")


async def lost(client: StoreClient) -> list[str]:
    """Jobs that are not closed, and of which nothing is due, leased or held."""
    redis, keys = client._store.connection.redis, client._store.connection.keys
    standing: set[str] = set()
    for kind in ("DUE", "LEASED"):
        async for key in redis.scan_iter(match=keys(kind) + "*", count=1000):
            standing |= {member.decode().partition("#")[0] for member in await redis.zrange(key, 0, -1)}
    candidates = []
    cursor: str | None = None
    while True:
        page = await client.jobs(limit=200, cursor=cursor)
        candidates += [job for job in page.jobs if not job.closed and job.id not in standing]
        if not (cursor := page.cursor):
            break
    return [job.id for job in candidates if not await is_settled(client, job.id)]


async def is_settled(client: StoreClient, job_id: str) -> bool:
    job = await client.job(job_id)
    if job.state is JobState.UNCERTAIN:
        return "held" in [entry.event for entry in await client.timeline(job_id)]
    return bool(job.closed)


@pytest.fixture(autouse=True)
def _shown_seed() -> None:
    sys.stdout.write(f"OUTWAIT_FUZZ_SEED={SEED} OUTWAIT_FUZZ_COUNT={COUNT}\n")  # pytest shows it when a test fails


@pytest.fixture
def subject(redis_url: str, tmp_path: Path) -> Iterator[Subject]:
    with Stack(redis_url, tmp_path, options={"behaviour": {"duration": 0}}) as stack:
        yield Subject(stack)


async def test_messages(subject: Subject) -> None:
    fuzzer, stack = Fuzzer("messages"), subject.stack
    queue = stack.settings.intake.queue
    async with stack.client() as client:
        connection = client._store.connection
        await subject.does_anothers_job(client)
        for start in range(0, COUNT, BATCH):
            batch = [fuzzer.message(f"m-{start + number}", REQUEST) for number in range(min(BATCH, COUNT - start))]
            await connection.redis.lpush(queue, *batch)
            await subject.does_anothers_job(client)

        async def all_taken() -> bool:
            return not await connection.redis.llen(queue) and not await connection.redis.zcard(
                connection.keys("IN_LEASED")
            )

        await until(all_taken, what="every message is a job, or parked")
        await subject.judge(client)
        assert all(len(parked.message) <= PARKED_SHOWN for parked in await client.parked(REFUSED_KEPT))
        assert "request-broken" not in stack.logs(), "an error of reading a message that nobody has foreseen"


async def test_http_requests(subject: Subject) -> None:
    fuzzer, stack = Fuzzer("requests"), subject.stack
    async with stack.client() as client:
        await subject.does_anothers_job(client)
        theirs = (await client.jobs(limit=1)).jobs[0].id
        ours = [(await client.enqueue(query(f"{n}", tenant="attacker"))).job_id for n in range(5)]
        key = (await Access(client._store.connection).create("attacker", set(Scope), "attacker")).text
        document = json.loads((ROOT / "docs" / "openapi.json").read_text())
        request = {**REQUEST, "targets": []}  # files are refused over HTTP, whatever else is wrong
        api = Api(document, key, [*ours, theirs, "unknown"], request)
        for start in range(0, COUNT, BATCH):
            batch = [fuzzer.request(api.request(fuzzer)) for _ in range(min(BATCH, COUNT - start))]
            gate = asyncio.Semaphore(AT_ONCE)
            statuses = await asyncio.gather(*(asked(stack.web_url, raw, gate) for raw in batch))
            wrong = [raw[:3000] for raw, status in zip(batch, statuses, strict=True) if status >= 500]
            assert not wrong, (wrong[0], stack.logs("web")[-3000:])
            await subject.does_anothers_job(client)
        await subject.judge(client)
        assert (await client.job(theirs)).state is JobState.SUCCEEDED


async def asked(url: str, raw: bytes, gate: asyncio.Semaphore) -> int:
    """The status of the answer; 0 if there is none: the server waits for the rest of a request."""
    parts = urlsplit(url)
    async with gate:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            writer.write(raw)
            async with asyncio.timeout(WAIT):
                line = await reader.readline()
                while line.startswith(b"HTTP/1.1 1"):
                    await reader.readuntil(b"\r\n\r\n")
                    line = await reader.readline()
            return int(line.split()[1]) if line.startswith(b"HTTP/") else 0
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError):
            return 0
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


class Vendor:
    """Unless, whose answers are broken: every one to a submit, and three to polls of each question."""

    def __init__(self) -> None:
        self._fuzzer = Fuzzer("answers")
        self.answers = 0
        self.submits: defaultdict[str, list[int]] = defaultdict(list)
        self._polls: defaultdict[str, int] = defaultdict(int)
        self._serving: set[asyncio.Task[Any] | None] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=HEAD_MAX) as server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            await asyncio.gather(*filter(None, self._serving))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._serving.add(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
            body = await reader.readexactly(int(fields.get("content-length", "0")))
            method, path, _ = head.partition("\r\n")[0].split(" ")
            writer.write(self._answer(method, path, body).data)
            await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        self._serving.discard(task)

    def _answer(self, method: str, path: str, body: bytes) -> Answer:
        if method == "POST":
            text = json.loads(body)["query"]
            self.answers += 1
            answer = self._fuzzer.answer({"questionId": f"q-{text}", "more": CONTENT})
            self.submits[text].append(answer.status)
            return answer
        question = parse_qs(urlsplit(path).query).get("questionId", [""])[0]
        self._polls[question] += 1
        history = [{"sender": "bot", "message": "so"}, {"sender": "x"}, CONTENT]
        document = {"status": "DONE", "chatData": {"history": history, "more": CONTENT}}
        if self._polls[question] <= 3:
            self.answers += 1
            return self._fuzzer.answer(document)
        data = json.dumps(document).encode()
        return Answer(200, b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(data), data))

    def repeated(self) -> dict[str, list[int]]:
        """Submits that were sent again though an answer had not refused them."""
        return {text: given for text, given in self.submits.items() if set(given[:-1]) - NOT_TAKEN}


async def test_answers_of_providers(redis_url: str, tmp_path: Path) -> None:
    vendor = Vendor()
    async with vendor.listening() as url:
        variables = {
            "OUTWAIT_PROVIDERS__UNLESS__BASE_URL": url,
            "OUTWAIT_PROVIDERS__UNLESS__BREAKER_WAIT": "0.1",
            "OUTWAIT_PROVIDERS__UNLESS__BREAKER_LONGEST": "0.1",
        }
        with Stack(redis_url, tmp_path, options={"behaviour": {"duration": 0}}, variables=variables) as stack:
            subject = await asyncio.to_thread(Subject, stack)
            async with stack.client() as client:
                await subject.does_anothers_job(client)
                number = 0
                while vendor.answers < COUNT:
                    requests: list[tuple[JobRequest, None]] = []
                    for _ in range(BATCH // 2):
                        number += 1
                        requests.append((query(f"{number}", tenant="attacker"), None))
                    await client.enqueue_many(requests)
                    await subject.does_anothers_job(client)
                    await until(lambda wanted=number: taken(client, vendor, wanted), what="each job was submitted")
                await subject.judge(client)
                assert vendor.repeated() == {}


async def taken(client: StoreClient, vendor: Vendor, number: int) -> bool:
    """Whether so many jobs were submitted. What the provider asked for (a pause) is over at once."""
    await client.resume("unless")
    return len(vendor.submits) >= number


def test_the_same_seed_makes_the_same_inputs() -> None:
    def made(seed: int) -> list[Any]:
        fuzzer = Fuzzer("messages", seed)
        return [fuzzer.message("m", REQUEST) for _ in range(20)] + [fuzzer.answer(REQUEST) for _ in range(20)]

    assert made(1) == made(1) != made(2)
