"""What people see in Flower: one row a job, from a real Flower over its own HTTP API, with real workers behind it."""

import asyncio
import base64
import json
import platform
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Error, expect

from outwait.worker.local.embedded import free_port
from outwait.worker.model.jobs import Job, JobRequest, JobState
from tests.browser import chromium
from tests.patience import PATIENCE
from tests.stack import Stack, ended, query, until

LOGIN = "ada:lovelace"

SECRETS = {
    "contentUri": "https://ada:pa55word@a.example/s3cret/1.wav?access_token=s3cret",
    "encoding": "Wav",
    "languageCode": "en-US",
}


class Flower:
    """A Flower process of this stack."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._process = self._start()

    def restart(self) -> None:
        """End it and start another one, which knows nothing."""
        self._process.terminate()
        self._process.wait(PATIENCE)
        self._process = self._start()

    async def get(self, path: str) -> Any:
        """What its API answers."""
        return await asyncio.to_thread(self._get, path)

    async def row(self, job_id: str) -> dict[str, Any] | None:
        """The row of one job, if there is one."""
        tasks: dict[str, dict[str, Any]] = await self.get("/api/tasks")
        return tasks.get(job_id)

    async def answers(self) -> bool:
        """Whether it is up and listens for events."""
        try:
            await self.get("/api/tasks")
        except OSError:
            return False
        return "outwait-" in json.dumps(await self.get("/api/workers?refresh=1"))

    def _start(self) -> subprocess.Popen[bytes]:
        variables = {"OUTWAIT_FLOWER__PORT": str(self._port), "OUTWAIT_FLOWER__BASIC_AUTH": LOGIN}
        return self._stack.start([sys.executable, "-m", "outwait", "flower"], "flower", **variables)

    def _get(self, path: str) -> Any:
        request = urllib.request.Request(self.url + path)
        request.add_header("Authorization", "Basic " + base64.b64encode(LOGIN.encode()).decode())
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def stack(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    # Flower sees every event of its broker: a database of its own keeps other tests' jobs out.
    url = redis_url.rpartition("/")[0] + "/7"
    with Stack(url, tmp_path_factory.mktemp("flower"), options={"behaviour": {"duration": 1.5}}) as running:
        running.worker()
        yield running


@pytest.fixture(scope="module")
def flower(stack: Stack) -> Flower:
    flower = Flower(stack)
    asyncio.run(until(flower.answers, what="Flower answers and knows the worker"))
    return flower


async def enqueued(stack: Stack, request: JobRequest) -> str:
    async with stack.client() as client:
        return (await client.enqueue(request)).job_id


async def over(stack: Stack, job_id: str) -> Job:
    async with stack.client() as client:
        return await ended(client, job_id)


async def row_in(flower: Flower, job_id: str, state: str) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        row = await flower.row(job_id)
        return row if row and row["state"] == state else None

    row: dict[str, Any] = await until(look, what=f"row {job_id} is {state}")
    return row


async def test_a_job_that_succeeds_is_one_row_with_its_real_duration(stack: Stack, flower: Flower) -> None:
    job_id = await enqueued(stack, query('how long? sandbox:{"duration":6}'))
    waiting = await row_in(flower, job_id, "POLLING")
    assert (waiting["uuid"], waiting["name"]) == (job_id, "outwait.unless.query")
    assert "'how long? sandbox" in waiting["kwargs"]
    job = await over(stack, job_id)
    row = await row_in(flower, job_id, "SUCCESS")
    assert job.submitted is not None
    assert job.ended is not None
    assert row["runtime"] == pytest.approx(job.ended - job.submitted, abs=0.01)
    assert row["runtime"] >= 5
    assert row["received"] == pytest.approx(job.created, abs=0.01)
    assert job.submitted - 0.01 <= row["started"] < job.ended
    assert row["succeeded"] == pytest.approx(job.ended, abs=0.01)
    assert "This is the result of how long?" in row["result"]
    assert row["name"] == "outwait.unless.query"


async def test_a_job_that_fails_shows_why(stack: Stack, flower: Flower) -> None:
    job_id = await enqueued(stack, query('x sandbox:{"outcome":"failure","duration":0.3}'))
    row = await row_in(flower, job_id, "FAILURE")
    assert row["exception"].startswith("JobFailed('provider_failed: ERROR: ")
    assert row["runtime"] >= 0.3


async def test_parameters_are_shown_without_secrets(stack: Stack, flower: Flower) -> None:
    speech = JobRequest(provider="ringcentral", operation="speech-to-text", params=SECRETS)
    asked = query("x", targets=["file:rows.jsonl"])
    hidden = {**asked.params, "metadata": {"apiKey": "s3cret", "nested": [{"client_secret": "s3cret"}], "n": 1}}
    for request in (speech, asked.model_copy(update={"params": hidden})):
        job_id = await enqueued(stack, request)
        text = json.dumps(await row_in(flower, job_id, "SUCCESS"))
        assert "s3cret" not in text
        assert "pa55word" not in text
        assert request.provider in text
        assert request.operation in text
        assert "a.example" in text or "'n': 1" in text


async def test_rows_are_found_by_what_was_asked_however_long_that_is(stack: Stack, flower: Flower) -> None:
    job_id = await enqueued(stack, query('sandbox:{"duration":0} ' + "long " * 500))
    row = await row_in(flower, job_id, "SUCCESS")
    assert len(row["kwargs"]) < 500
    assert job_id in await flower.get("/api/tasks?search=kwargs:operation%3Dquery")


async def test_a_refused_message_is_a_row_that_failed(stack: Stack, flower: Flower) -> None:
    send = "import sys; from celery import Celery; Celery(broker=sys.argv[1]).send_task('tasks.submit', kwargs={'provider': 'unless'}, queue=sys.argv[2], task_id='refused-1')"  # noqa: E501 - one line of Python
    url, queue = stack.variables["OUTWAIT_REDIS_URL"], stack.variables["OUTWAIT_INTAKE__QUEUE"]
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", send, url, queue], check=True)
    row = await row_in(flower, "refused-1", "FAILURE")
    assert "operation: is missing" in row["exception"]


async def test_a_row_comes_back_after_a_restart_of_flower_while_the_job_waits(stack: Stack, flower: Flower) -> None:
    job_id = await enqueued(stack, query('patience sandbox:{"outcome":"never"}', deadline=2 * PATIENCE))
    before = await row_in(flower, job_id, "POLLING")
    restarted = time.time()
    flower.restart()
    await until(flower.answers)
    after = await row_in(flower, job_id, "POLLING")
    for name in ("name", "kwargs", "received", "worker"):
        assert after[name] == before[name], name
    assert after["received"] <= after["started"] < restarted


async def test_batches_make_no_rows_and_there_are_no_ghosts(stack: Stack, flower: Flower) -> None:
    job_id = await enqueued(stack, query('x sandbox:{"duration":0}', targets=["file:all.jsonl"]))
    await row_in(flower, job_id, "SUCCESS")
    rows = (await flower.get("/api/tasks")).values()
    assert {row["name"].partition(".")[0] for row in rows} == {"outwait"}
    workers = await flower.get("/api/workers?refresh=1")
    assert len(workers) == 1
    assert {row["worker"] for row in rows if row["state"] != "PENDING"} == set(workers)


async def test_in_a_browser_a_person_logs_in_finds_a_job_and_revokes_it(
    stack: Stack, flower: Flower, tmp_path: Path
) -> None:
    job_id = await enqueued(stack, query('which one? sandbox:{"outcome":"never"}', deadline=2 * PATIENCE))
    await row_in(flower, job_id, "POLLING")
    user, _, password = LOGIN.partition(":")
    async with chromium() as browser:
        stranger = await browser.new_page(base_url=flower.url)
        stranger.set_default_timeout(1000 * PATIENCE)
        with pytest.raises(Error, match="ERR_INVALID_AUTH_CREDENTIALS"):
            await stranger.goto("/tasks")
        page = await browser.new_page(base_url=flower.url, http_credentials={"username": user, "password": password})
        page.set_default_timeout(1000 * PATIENCE)
        await page.goto("/tasks?state=POLLING")
        row = page.locator("#tasks-table tbody tr", has_text=job_id)
        await expect(row).to_contain_text("outwait.unless.query")
        await expect(row).to_contain_text("POLLING")
        await page.screenshot(path=tmp_path / "flower-tasks.png")
        await row.get_by_role("link", name=job_id).click()
        await expect(page.locator("#task-page")).to_contain_text("which one?")
        await page.screenshot(path=tmp_path / "flower-job.png")
        await page.get_by_role("button", name="Revoke").click()
        job = await over(stack, job_id)
        assert job.state is JobState.CANCELLED
        await row_in(flower, job_id, "CANCELLED")
        await page.reload()
        await expect(page.locator("#task-page")).to_contain_text("CANCELLED")
        await expect(page.get_by_role("button", name="Revoke")).to_have_count(0)
        await page.screenshot(path=tmp_path / "flower-cancelled.png")


async def test_a_worker_that_ended_is_not_shown_online_by_its_last_events(stack: Stack, flower: Flower) -> None:
    worker = stack._processes[1]
    job_id = await enqueued(stack, query('slow sandbox:{"latency":2,"duration":9}'))

    async def submitting() -> bool:
        totals = stack.sandbox("GET", "/_ledger/totals").get("unless")
        return bool(totals and totals["in_flight"])

    await until(submitting)
    worker.terminate()  # it says farewell, and then finishes its submit
    assert await asyncio.to_thread(worker.wait, PATIENCE) == 0
    await row_in(flower, job_id, "POLLING")
    status = await flower.get("/api/workers?status=1")
    stack.worker()  # for other tests
    assert not status.get(f"outwait-{worker.pid}@{platform.node()}")
