"""What another tenant's job takes amid each attack of tests/attacks, beside its quiet time: at most twice that.

Run it as `python -m benchmarks.attacks`. A job is measured from its enqueue over HTTP until its client sees it closed:
done, and delivered to a handler and to the tenant's own server. Quiet and attacked jobs alternate, so what else the
machine does hits both alike. Left out are attacks on confidentiality and authenticity: their tests say yes or no.
"""

import argparse
import asyncio
import re
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from http.server import ThreadingHTTPServer
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any, NamedTuple

import httpx

from benchmarks import attackers as by
from benchmarks.attackers import ACME, MALLORY, Place
from benchmarks.report import Bar, figure, finish, machine
from outwait.client.http import HttpClient
from outwait.worker.local.embedded import EmbeddedRedis
from outwait.worker.model.errors import StoreUnavailable
from outwait.worker.model.jobs import Job, JobState
from outwait.worker.store.access import Scope
from outwait.worker.store.store import Store
from tests.attacks import test_answers, test_lanes, test_receivers, test_web_process
from tests.attacks.test_fuzz import Vendor
from tests.patience import PATIENCE, until
from tests.stack import Stack

LIMIT = 2
GIVEN_UP = 30
"""Seconds after which a job is waited for no longer, and counts as so long."""

FEWEST, PATIENT = 3, 4.0
"""Jobs that are measured even on a busy machine, and seconds after which no more are."""

BEGUN = 0.02
"""Seconds after which an attack is under way."""

COMMON = {
    "OUTWAIT_HANDLERS__MODULES": "bench_handlers",
    "OUTWAIT_WEBHOOKS__SECRETS": test_receivers.MASTER,
    "OUTWAIT_WEBHOOKS__SCHEDULE": "0.1,0.1",
    "OUTWAIT_OUTBOUND__ALLOW": "127.0.0.0/8",
    "OUTWAIT_WEB__TARGETS": "http://127.*,[a-z]*",
}


async def nothing(_place: Place) -> None:
    """No work."""


class Attack(NamedTuple):
    """An attack, and the other tenant's job: quiet, and amid it.

    `begin` is done when the job is enqueued, `meanwhile` goes on until it has ended, `end` lets go what was held.
    """

    name: str
    begin: Callable[[Place], Awaitable[Any]] = nothing
    meanwhile: Callable[[Place], Awaitable[Any]] = nothing
    end: Callable[[Place], Awaitable[Any]] = nothing
    quiet: Callable[[Place], Awaitable[str]] = by.own_job
    attacked: Callable[[Place], Awaitable[str]] = by.own_job


class Ground(NamedTuple):
    """A stack with settings of its own, and the attacks on it. `vendor` gives the address of a hostile provider."""

    attacks: Sequence[Attack]
    variables: Mapping[str, str] = MappingProxyType({})
    vendor: Callable[[], Any] | None = None


@contextmanager
def odd_vendor() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), test_answers.Odd) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@asynccontextmanager
async def vendor_url(ground: Ground) -> AsyncIterator[dict[str, str]]:
    name = "OUTWAIT_PROVIDERS__UNLESS__BASE_URL"
    if ground.vendor is odd_vendor:
        with odd_vendor() as url:
            yield {name: url}
    elif ground.vendor is Vendor:
        async with Vendor().listening() as url:
            yield {name: url}
    else:
        yield {}


MAIN = [
    Attack("targets that name kombu's keys", by.kombus_keys),
    Attack("15 compression bombs of 32 MiB", by.bombs),
    Attack("texts that are masked: 10 jobs", by.masked_texts),
    Attack("texts that are masked: HTTP requests of 62 KB", meanwhile=by.masked_requests),
    Attack("a provoked 410 of the same receiver", by.gone),
    Attack("requests with 2,000 unknown handlers", meanwhile=by.unknown_handlers),
    Attack("2,000 deliveries to a host that hangs", by.hanging_host, end=by.host_answers),
    Attack("a refused message with 30,000 targets", by.refused_message),
    Attack("210 conflicting messages, again and again", meanwhile=by.conflicts),
    Attack("1,000 messages with made-up providers", by.made_up_providers),
    Attack(
        "12 wrong keys from the same address, then a login", by.wrong_keys, quiet=by.logged_in, attacked=by.logged_in
    ),
    Attack("1,100 half-open heads, and more", by.half_open, by.more_half_open, by.close_all),
    Attack("lists of 100 jobs with 900 KB of metadata", by.large_jobs, by.listed),
    Attack("fuzzer: 200 messages", by.fuzzed_messages),
    Attack(
        "fuzzer: 200 HTTP requests", meanwhile=by.fuzzed_requests, quiet=by.other_provider, attacked=by.other_provider
    ),
]
TURNS = [
    Attack("60 jobs at priority 9, one in flight", by.urgent, quiet=by.behind_own),
    Attack("60 jobs at priority 9 whose countdowns end now", by.counted_down, quiet=by.behind_own),
]
ODD = [
    Attack("40 deep or damaged answers of the provider", by.odd_answers),
    Attack("a Retry-After of an hour", by.silence, quiet=by.other_provider, attacked=by.other_provider),
]
FUZZED = [Attack("fuzzer: 100 jobs' answers", by.fuzzed_answers, quiet=by.other_provider, attacked=by.other_provider)]
UNLESS = "OUTWAIT_PROVIDERS__UNLESS__"
GROUNDS = [
    Ground([Attack("40 submits answered with 500", by.failing, end=by.probed)], {f"{UNLESS}BREAKER_AFTER": "5"}),
    Ground(ODD, {f"{UNLESS}BREAKER_AFTER": "1000", "OUTWAIT_STORE__RESULT_MAX": "1000000"}, odd_vendor),
    Ground(FUZZED, {f"{UNLESS}BREAKER_WAIT": "0.1", f"{UNLESS}BREAKER_LONGEST": "0.1"}, Vendor),
    Ground(TURNS, {f"{UNLESS}IN_FLIGHT": "1"}),
    Ground(MAIN),
    Ground([Attack("filling a Redis of 48 MiB", by.filled, by.filling)]),
]


async def took(place: Place, enqueue: Callable[[Place], Awaitable[str]]) -> float:
    """Seconds from a job's enqueue until its client sees it closed."""
    began = time.monotonic()
    job_id = place.state["latest"] = await enqueue(place)

    async def closed() -> Job | None:
        with suppress(StoreUnavailable):  # a kept connection that the server closed just then
            job = await place.victim.job(job_id)
            return job if job.closed else None
        return None

    with suppress(TimeoutError):
        async with asyncio.timeout(GIVEN_UP):
            job: Job = await until(closed)
            assert job.state is JobState.SUCCEEDED, job
    return time.monotonic() - began


async def amid(place: Place, attack: Attack) -> float:
    """The same while an attack goes on."""
    await attack.begin(place)
    work = asyncio.ensure_future(attack.meanwhile(place))
    await asyncio.sleep(BEGUN)
    try:
        return await took(place, attack.attacked)
    finally:
        if work.done():
            work.result()  # an attack that fails is no attack
        while not work.done():  # a library may swallow a cancel
            work.cancel()
            await asyncio.wait([work], timeout=1)
        await attack.end(place)
        await place.settle()


async def measured(place: Place, attack: Attack, jobs: int) -> dict[str, Any]:
    """A row of the table."""
    quiet, attacked = [], []
    end = time.monotonic() + PATIENT
    while len(quiet) < jobs and (len(quiet) < FEWEST or time.monotonic() < end):
        quiet.append(await took(place, attack.quiet))
        attacked.append(await amid(place, attack))
    ratio = median(attacked) / median(quiet)
    print(f"{attack.name}: {median(quiet):.2f} s, {median(attacked):.2f} s, {ratio:.2f}", flush=True)
    return {
        "jobs": len(quiet),
        "quiet, s": figure(quiet),
        "attacked, s": figure(attacked),
        "ratio": round(ratio, 2),
        "longest attacked, s": round(max(attacked), 3),
        f"at most {LIMIT}": "passed" if ratio <= LIMIT else "failed",
    }


@asynccontextmanager
async def place_of(stack: Stack) -> AsyncIterator[Place]:
    """The processes and clients of a stack; it has done a job."""
    stack.worker()
    web, service = test_web_process.Web(stack), test_receivers.Service()
    await service.server.start_server(shutdown_timeout=0.1)
    service.secrets = (test_receivers.secret_of(stack, service.url, ACME),)
    async with Store.open(stack.settings) as store:
        theirs, ours = [(await store.access.create(name, set(Scope), name)).text for name in (MALLORY, ACME)]
    victim, headers = HttpClient(web.url, ours), {"Authorization": f"Bearer {theirs}"}
    async with (
        stack.client() as client,
        httpx.AsyncClient(base_url=web.url, headers=headers, timeout=PATIENCE) as attacker,
    ):
        place = Place(stack, web, client, victim, ours, service, attacker, theirs, {})
        await took(place, by.other_provider)
        yield place
    await victim.close()
    await service.server.close()


async def fill(rows: dict[str, Any], ground: Ground, only: str, jobs: int) -> Any:
    """Add the rows of one stack's attacks; gives what its Redis says of itself."""
    with tempfile.TemporaryDirectory(prefix="outwait-bench-") as name:
        folder = Path(name)
        (folder / "bench_handlers.py").write_text(test_lanes.HANDLERS)
        with EmbeddedRedis(folder / "redis") as server:
            async with vendor_url(ground) as vendor:
                variables = {**COMMON, **ground.variables, **vendor}
                with Stack(server.url, folder, options={"behaviour": {"duration": 0}}, variables=variables) as stack:
                    async with place_of(stack) as place:
                        for attack in ground.attacks:
                            if re.search(only, attack.name):
                                rows[attack.name] = await measured(place, attack, jobs)
                        return await place.redis.info()


async def run(only: str, jobs: int) -> None:
    """Also an interrupted run writes down what it has measured."""
    rows: dict[str, Any] = {}
    facts = {}
    try:
        for ground in GROUNDS:
            if any(re.search(only, attack.name) for attack in ground.attacks):
                facts = machine(await fill(rows, ground, only, jobs))
    finally:
        bars = [Bar("highest ratio", LIMIT, max(row["ratio"] for row in rows.values()))]
        finish("attacks", "Another tenant's job amid attacks", rows, bars, machine=facts)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=7, help="quiet ones at most, and as many attacked ones")
    parser.add_argument("--only", default="", help="attacks whose names match this pattern")
    options = parser.parse_args()
    asyncio.run(run(options.only, options.jobs))


if __name__ == "__main__":
    main()
