"""One tenant's jobs stand in another tenant's way: by priority, by countdown, by answers that open the breaker.

What the other tenant waits for is counted in submits, so the figures do not depend on the machine.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from outwait.client.store import StoreClient
from outwait.worker.model.jobs import Job, JobRequest, JobState
from outwait.worker.store.access import Scope
from outwait.worker.store.store import Store
from tests.stack import Stack, closed, query, until

FLOOD = 60
"""Jobs of the attacker."""

ONE_AT_A_TIME = {"OUTWAIT_PROVIDERS__UNLESS__IN_FLIGHT": "1"}
BREAKS = {"fault": "error", "on": "submit", "status": 500, "times": None}
FAILS = f"bad sandbox:{json.dumps({'faults': [BREAKS]})}"
"""A request that the provider answers with 500, each time."""


class Arena(NamedTuple):
    """A stack whose worker starts when everything is due."""

    stack: Stack
    client: StoreClient

    async def flood(self, number: int, text: str = "flood", **fields: Any) -> list[str]:
        """The ids of the attacker's jobs. A list of priorities is gone through again and again."""
        priorities: Sequence[int] = fields.pop("priorities", (5,))
        requests: list[tuple[JobRequest, str | None]] = [
            (query(text, tenant="attacker", priority=priorities[n % len(priorities)], **fields), f"flood-{n}")
            for n in range(number)
        ]
        return [enqueued.job_id for enqueued in await self.client.enqueue_many(requests)]

    async def victim(self, **fields: Any) -> str:
        return (await self.client.enqueue(query("mine", **({"tenant": "victim"} | fields)))).job_id

    async def submits_before(self, job_id: str) -> int:
        """Of the attacker, before this job was."""
        job = await closed(self.client, job_id)
        assert (job.state, bool(job.submitted)) == (JobState.SUCCEEDED, True)
        jobs: list[Job] = (await self.client.jobs(limit=500)).jobs
        times = [other.submitted for other in jobs if other.tenant == "attacker" and other.submitted]
        return sum(at <= (job.submitted or 0) for at in times)


@asynccontextmanager
async def arena(redis_url: str, folder: Path, **variables: str) -> AsyncIterator[Arena]:
    with Stack(redis_url, folder, options={"behaviour": {"duration": 0}}, variables=variables) as stack:
        async with stack.client() as client:
            yield Arena(stack, client)


@pytest.mark.parametrize(
    "flood",
    [
        {"priorities": (5,)},
        {"priorities": (9,)},
        {"priorities": tuple(range(10))},
        {"priorities": (9,), "countdown": 1},
    ],
    ids=["equal", "urgent", "ten priorities", "countdown"],
)
@pytest.mark.parametrize(
    "victim",
    [{"priority": 5}, {"priority": 0, "tenant": None}, {"countdown": 1}],
    ids=["normal", "no tenant", "countdown"],
)
async def test_no_priority_and_no_countdown_goes_before_another_tenant_s_turn(
    redis_url: str, tmp_path: Path, flood: dict[str, Any], victim: dict[str, Any]
) -> None:
    """Protected by worker/store/lua/submits: tenants take turns first, a priority orders a tenant's own jobs."""
    async with arena(redis_url, tmp_path, **ONE_AT_A_TIME) as place:
        await place.flood(FLOOD, **flood)
        job_id = await place.victim(**victim)
        await asyncio.sleep(1.1 if "countdown" in {*flood, *victim} else 0)
        place.stack.worker()
        before = await place.submits_before(job_id)
    assert before <= 2


async def test_uncertain_jobs_are_decided_though_the_breaker_is_open(redis_url: str, tmp_path: Path) -> None:
    """Protected by worker/store/lua/claim.lua: they send nothing, so no gate holds them."""
    hour = {f"OUTWAIT_PROVIDERS__UNLESS__BREAKER_{name}": "3600" for name in ("WAIT", "LONGEST")}
    async with arena(redis_url, tmp_path, **hour) as place:
        ids = await place.flood(40, FAILS)
        place.stack.worker()

        async def all_held() -> bool:
            jobs = [await place.client.job(job_id) for job_id in ids]
            uncertain = [job for job in jobs if job.state is JobState.UNCERTAIN]
            stories = [await place.client.timeline(job.id) for job in uncertain]
            held = [story for story in stories if "held" in [entry.event for entry in story]]
            return len(uncertain) >= 10 and len(held) == len(uncertain)

        await until(all_held, what="the breaker is open, and what was uncertain waits for a person")


async def test_a_caller_over_http_has_only_the_priorities_that_the_operator_allows(
    redis_url: str, tmp_path: Path
) -> None:
    """Protected by outwait/web/enqueue.py `_permitted`: callers without a tenant share one line."""
    async with arena(redis_url, tmp_path, OUTWAIT_WEB__PRIORITY_MAX="6") as place:
        place.stack.web()
        async with Store.open(place.stack.settings) as store:
            key = (await store.access.create("caller", [Scope.ENQUEUE])).text
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=place.stack.web_url, headers=headers) as web:
            asked = [query(priority=priority).model_dump(exclude_unset=True) for priority in (6, 7)]
            answers = [await web.post("/v1/jobs", json=request) for request in asked]
            batch = await web.post("/v1/jobs", json={"jobs": asked})
    assert [answer.status_code for answer in answers] == [201, 403]
    assert "OUTWAIT_WEB__PRIORITY_MAX" in answers[1].json()["detail"]
    assert [item["status"] for item in batch.json()["jobs"]] == [201, 403]


@pytest.mark.parametrize("policy", ["hold", "resubmit"])
async def test_answers_of_500_hold_another_tenant_s_job_for_a_probe_or_two(
    redis_url: str, tmp_path: Path, policy: str
) -> None:
    """Protected by the same, and by lua/submits: of jobs that wait for the probe, tenants have it in turn."""
    variables = {"OUTWAIT_PROVIDERS__UNLESS__UNCERTAIN": policy, "OUTWAIT_PROVIDERS__UNLESS__BREAKER_AFTER": "5"}
    async with arena(redis_url, tmp_path, **variables) as place:
        ids = await place.flood(40, FAILS)
        place.stack.worker()
        await until(lambda: some_failed(place.client, ids))
        job = await closed(place.client, await place.victim())
        stories = [await place.client.timeline(job_id) for job_id in ids]
    assert job.state is JobState.SUCCEEDED
    assert job.submitted
    failed = [entry.at for story in stories for entry in story if entry.event == "uncertain"]
    assert sum(job.created < at <= job.submitted for at in failed) <= 16 + 2, "what was under way, and two probes"


async def some_failed(client: StoreClient, ids: Sequence[str]) -> bool:
    jobs = [await client.job(job_id) for job_id in ids]
    return sum(job.ledger.submits > 0 for job in jobs) >= 5
