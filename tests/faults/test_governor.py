"""A rate is never exceeded, by submits and polls together, over all workers; and no other provider waits for it.

The long run has RingCentral's default of 10 requests a window and 500 jobs, with the window shortened from a minute to
1.5 s: `OUTWAIT_LONG=1 pytest -s tests/faults/test_governor.py` (docs/reliability.md has its figures).
"""

import json
import os
import sys
import time
from pathlib import Path
from statistics import median

import pytest

from outwait.client.store import StoreClient
from outwait.worker.engine.rate_feedback import DEFAULT_PAUSE, LONGEST_PAUSE, pause_s
from outwait.worker.model.errors import RateLimited
from outwait.worker.model.jobs import JobRequest, JobState
from outwait.worker.store.governors import Breaker
from tests.stack import Stack, closed, ended, query, until

LONG = os.environ.get("OUTWAIT_LONG") == "1"
LIMIT, WINDOW, JOBS, ALONE = (10, 1.5, 500, 40) if LONG else (10, 2.0, 40, 4)
"""Requests in a window of seconds; jobs of the limited provider; jobs of the others that measure their pace alone."""

RATE = {
    "OUTWAIT_PROVIDERS__RINGCENTRAL__RATE_LIMIT": str(LIMIT),
    "OUTWAIT_PROVIDERS__RINGCENTRAL__RATE_WINDOW": str(WINDOW),
}

PENALTY, KNOWN = 12, 6
"""Seconds of a penalty, and those after which each worker knows of it, however busy the machine."""

OUTAGE, BREAKER_WAIT = 2.0, 0.2
"""Seconds of an outage, and those between two probes at first (tests/stack.py)."""


def recording(number: int) -> JobRequest:
    params = {"contentUri": f"https://a.example/{number}.wav", "encoding": "Wav", "languageCode": "en-US"}
    return JobRequest(provider="ringcentral", operation="speech-to-text", params=params)


def audio(number: int, marker: str = "") -> JobRequest:
    params = {"languageTag": "en-us", "vertical": "default", "downloadUri": f"https://a.example/{number}.mp3{marker}"}
    return JobRequest(provider="elevateai", operation="audio", params=params)


async def took(client: StoreClient, request: JobRequest) -> float:
    """Seconds from a job's enqueue to its end."""
    job = await ended(client, (await client.enqueue(request)).job_id)
    assert job.state is JobState.SUCCEEDED, job.error
    assert job.ended is not None
    return job.ended - job.created


async def paces(client: StoreClient, first: int, number: int) -> list[float]:
    """How long jobs of the two other providers take, one after the other."""
    requests = [request for n in range(first, first + number) for request in (query(f"q{n}"), audio(n))]
    return [await took(client, request) for request in requests]


async def test_no_429_is_ever_received_and_other_providers_are_not_slowed(redis_url: str, tmp_path: Path) -> None:
    """Protected by claim.lua `allowance`, and record/governor.lua `spent`: requests count from their ends."""
    options = {"heavy_limit": LIMIT, "window": WINDOW, "penalty": 30, "behaviour": {"duration": 0.2}}
    with Stack(redis_url, tmp_path, options=options, variables=RATE) as stack:
        stack.worker()
        stack.worker()
        async with stack.client() as client:
            await paces(client, 0, 1)
            unlimited = await paces(client, 1, ALONE)
            began, beside = time.monotonic(), []
            limited = [job.job_id for job in await client.enqueue_many([(recording(n), None) for n in range(JOBS)])]
            while await left(client) > JOBS // 10:
                beside += await paces(client, 1000 + len(beside), 1)
            jobs = [await ended(client, job_id) for job_id in limited]
        totals = stack.ledger()["totals"]["ringcentral"]
        requests = totals["requests"]["submit"] + totals["requests"]["poll"]
        sys.stdout.write(
            f"\n{JOBS} jobs and {requests} requests in {time.monotonic() - began:.0f} s at {LIMIT} in {WINDOW} s; "
            f"{totals['rate_limited']} 429s; the others' jobs took {median(unlimited):.2f} s alone "
            f"({len(unlimited)} jobs), {median(beside):.2f} s beside them ({len(beside)} jobs, "
            f"the slowest {max(beside):.2f} s)\n"
        )
        assert {job.state for job in jobs} == {JobState.SUCCEEDED}
        assert totals["rate_limited"] == 0
        assert totals["repeated_submits"] == 0
        assert len(beside) >= ALONE, "the limited provider was done first: this shows nothing"
        if LONG:  # a measurement, for a quiet machine
            assert median(beside) < 1.5 * median(unlimited) + 0.1


async def left(client: StoreClient) -> int:
    """Jobs of the limited provider that have not ended."""
    counts = (await client.counts())["ringcentral"]
    return counts["queued"] + counts["waiting"]


async def test_telling_a_provider_of_cancels_takes_places_in_its_rate(redis_url: str, tmp_path: Path) -> None:
    """Protected by tasks/callback.py `_cancel`: `take_slot`; where there is none, the provider is not notified."""
    options = {"elevateai_limit": 4, "window": 600, "penalty": 300}
    variables = {
        "OUTWAIT_PROVIDERS__ELEVATEAI__RATE_LIMIT": "4",
        "OUTWAIT_PROVIDERS__ELEVATEAI__RATE_WINDOW": "600",
        "OUTWAIT_PROVIDERS__ELEVATEAI__POLL_EVERY": "500",
    }
    with Stack(redis_url, tmp_path, options=options, variables=variables) as stack:
        stack.worker()
        async with stack.client() as client:
            requests: list[tuple[JobRequest, str | None]] = [(audio(number), f"c-{number}") for number in range(3)]
            await client.enqueue_many(requests)

            async def submitted() -> bool:
                return (await client.counts())["elevateai"]["waiting"] == 3

            await until(submitted)
            assert all([await client.cancel(f"c-{number}") for number in range(3)])
            answers = []
            for number in range(3):
                await closed(client, f"c-{number}")
                story = await client.timeline(f"c-{number}")
                answers += [entry.detail for entry in story if entry.event == "provider-told"]
            (limits,) = [status for status in await client.providers() if status.provider == "elevateai"]
        none_left = "not notified: the rate of elevateai has no place left"
        assert sorted(answers) == [none_left, none_left, "the interaction was deleted"]
        assert limits.rate == 4
        assert stack.ledger()["totals"]["elevateai"]["rate_limited"] == 0


@pytest.mark.parametrize(("asked", "pause"), [(5.0, 5.0), (None, DEFAULT_PAUSE), (1e9, LONGEST_PAUSE)])
def test_a_429_is_obeyed_within_reason(asked: float | None, pause: float) -> None:
    """Protected by worker/engine/rate_feedback.py `pause_s`. How Retry-After is read: tests/unit/test_exchange.py."""
    assert pause_s(RateLimited("slow down", retry_after=asked), None) == pause
    assert pause_s(RateLimited("slow down", retry_after=1), pause) == pause, "a shorter wish ends no longer pause"


async def test_in_a_penalty_nothing_at_all_is_sent_by_any_worker(redis_url: str, tmp_path: Path) -> None:
    """Protected by worker/engine/rate_feedback.py `provider_feedback`; claim.lua `gate`, begin.lua `is_silenced` obey.

    Without it each job would be told for itself, when its own next poll comes.
    """
    every = {"OUTWAIT_PROVIDERS__UNLESS__POLL_EVERY": "1.5"}
    with Stack(redis_url, tmp_path, options={"behaviour": {"outcome": "never"}}, variables=every) as stack:
        stack.worker()
        stack.worker()
        async with stack.client() as client:
            await client.enqueue_many([(query(f"waits {n}"), None) for n in range(30)])

            async def all_polled() -> bool:
                jobs = stack.seen("waits")
                return len(jobs) == 30 and all(job["polls"]["count"] for job in jobs)

            await until(all_polled)
            fault = {"fault": "rate_limit", "on": "submit", "seconds": PENALTY}
            limited = query(f"told sandbox:{json.dumps({'outcome': 'success', 'faults': [fault]})}")
            job = await closed(client, (await client.enqueue(limited)).job_id)
        assert (job.state, job.ledger.submits) == (JobState.SUCCEEDED, 2)
        totals = stack.ledger()["totals"]["unless"]
        assert totals["rate_limited"] >= 1
        assert [after for _, after in totals["trespasses"] if after > KNOWN] == []


async def test_an_outage_is_probed_by_one_request_after_the_other(redis_url: str, tmp_path: Path) -> None:
    """Protected by engine/rate_feedback.py `provider_feedback`, record/governor.lua `outage`, claim.lua `gate`."""
    with Stack(redis_url, tmp_path, variables=RATE | {"OUTWAIT_PROVIDERS__RINGCENTRAL__RATE_LIMIT": "1000"}) as stack:
        stack.order(provider="ringcentral", faults=[{"fault": "error", "on": "submit", "status": 503, "times": None}])
        stack.worker()
        async with stack.client() as client:
            names = [f"r-{number}" for number in range(20)]
            await client.enqueue_many([(recording(number), name) for number, name in enumerate(names)])

            async def opened() -> bool:
                return any(status.breaker is not Breaker.CLOSED for status in await client.providers())

            await until(opened)
            began = time.monotonic()

            async def over() -> bool:
                return time.monotonic() > began + OUTAGE

            await until(over)
            asked = stack.ledger()["totals"]["ringcentral"]["requests"]["submit"]
            lasted = time.monotonic() - began
            assert asked < len(names) + lasted / BREAKER_WAIT + 2, "each once perhaps, then one at a time"
            stack.order(provider="ringcentral", duration=0)
            jobs = [await closed(client, name) for name in names]
        assert {job.state for job in jobs} == {JobState.SUCCEEDED}
        assert stack.ledger()["totals"]["ringcentral"]["repeated_submits"] == 0
