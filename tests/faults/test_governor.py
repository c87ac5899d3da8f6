"""A rate is never exceeded, by submits and polls together, over all workers; and no other provider waits for it."""

import asyncio
import time
from pathlib import Path

from tests.stack import Stack, ended, query
from worker.jobs import JobRequest, JobState

LIMIT, WINDOW, JOBS = 10, 0.5, 40
RATE = {
    "OUTWAIT_PROVIDERS__RINGCENTRAL__RATE_LIMIT": str(LIMIT),
    "OUTWAIT_PROVIDERS__RINGCENTRAL__RATE_WINDOW": str(WINDOW),
}


def recording(number: int) -> JobRequest:
    params = {"contentUri": f"https://a.example/{number}.wav", "encoding": "Wav", "languageCode": "en-US"}
    return JobRequest(provider="ringcentral", operation="speech-to-text", params=params)


async def test_no_429_is_ever_received_and_other_providers_are_not_slowed(redis_url: str, tmp_path: Path) -> None:
    """Protected by claim.lua: allowance, and by record.lua: spent (a request counts from its end)."""
    options = {"heavy_limit": LIMIT, "window": WINDOW, "penalty": 30, "behaviour": {"duration": 0.2}}
    with Stack(redis_url, tmp_path, options=options, variables=RATE) as stack:
        stack.worker()
        stack.worker()
        async with stack.client() as client:
            limited = [job.job_id for job in await client.enqueue_many([(recording(n), None) for n in range(JOBS)])]
            began = time.monotonic()
            free = [(await client.enqueue(query(f"q{n}"))).job_id for n in range(5)]
            assert all([(await ended(client, job_id)).state is JobState.SUCCEEDED for job_id in free])
            took = time.monotonic() - began
            still = (await client.counts())["ringcentral"]
            jobs = await asyncio.gather(*(ended(client, job_id, within=60) for job_id in limited))
        assert {job.state for job in jobs} == {JobState.SUCCEEDED}
        totals = stack.ledger()["totals"]["ringcentral"]
        assert totals["rate_limited"] == 0
        assert totals["repeated_submits"] == 0
        assert still["queued"] + still["waiting"] > JOBS / 2, "the limited provider was done first: this shows nothing"
        assert took < 8
