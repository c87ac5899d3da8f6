"""What Prometheus and Kubernetes see: /metrics against the sandbox's own ledger, /livez and /readyz."""

import itertools
import os
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from outwait.client.store import StoreClient
from outwait.worker.local.embedded import EmbeddedRedis
from outwait.worker.model.jobs import Job, JobState
from outwait.worker.store.connection import Connection
from outwait.worker.store.statistics import Statistics
from tests.patience import PATIENCE
from tests.stack import ROOT, Stack, closed, ended, query, until

HANDLERS = """
from outwait import handler
from outwait.worker.model.errors import DeliveryRefused

@handler("refuses")
def refuses():
    raise DeliveryRefused("never will")
"""

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("own")) as server:
        yield server


@pytest.fixture(scope="module")
def stack(redis: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder: Path = tmp_path_factory.mktemp("metrics")
    (folder / "metrics_handlers.py").write_text(HANDLERS)
    variables = {"OUTWAIT_STORE__TIMEOUT": "8", "OUTWAIT_HANDLERS__MODULES": "metrics_handlers"}
    with Stack(redis.url, folder, options={"behaviour": {"duration": 0.4}}, variables=variables) as running:
        running.web()
        yield running


@pytest.fixture
def worker(stack: Stack) -> Iterator[subprocess.Popen[bytes]]:
    process = stack.worker()
    yield process
    process.terminate()
    process.wait(PATIENCE)


def get(stack: Stack, path: str, accept: str = "*/*") -> tuple[int, str]:
    request = urllib.request.Request(stack.web_url + path, headers={"accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def scrape(stack: Stack) -> Samples:
    status, text = get(stack, "/metrics")
    assert status == 200, text
    families = text_string_to_metric_families(text)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    """The sum of what has these labels."""
    wanted = labels.items()
    return sum(number for (family, has), number in samples.items() if family == name and wanted <= has)


async def test_every_counter_that_an_alert_watches_is_there_before_its_first_event(stack: Stack) -> None:
    """Else its first event is no increase: Prometheus compares with the value before."""
    alerts = re.findall(r"increase\((\w+)\{(\w+)=\"(\w+)\"\}", (ROOT / "docs" / "operations.md").read_text())
    assert len(alerts) == 3
    samples = scrape(stack)
    for name, label, wanted in alerts:
        found = [number for (family, has), number in samples.items() if family == name and (label, wanted) in has]
        assert found, f"{name} {label}={wanted}"
        assert set(found) == {0.0}, name


async def test_what_is_scraped_equals_the_ledgers(stack: Stack, worker: subprocess.Popen[bytes]) -> None:
    async with stack.client() as client:
        jobs = [await client.enqueue(query(f"count {n}", targets=["file:counted.jsonl"])) for n in range(12)]
        await client.enqueue(query("refused", targets=["refuses"]))
        for job in jobs:
            await closed(client, job.job_id)
        done = await _jobs(client, 13)
        polls = sum(job.ledger.polls for job in done)

        async def counted() -> Samples | None:
            samples = scrape(stack)
            return samples if value(samples, "outwait_requests_total", kind="polls", result="2xx") == polls else None

        samples: Samples = await until(counted, what="every poll counted")
    seen = stack.ledger()["totals"]["unless"]["requests"]
    assert polls == seen["poll"] >= 13
    assert value(samples, "outwait_requests_total", kind="submits") == seen["submit"] == 13
    assert value(samples, "outwait_request_seconds_count", provider="unless", kind="polls") == polls
    assert value(samples, "outwait_jobs", provider="unless", state="succeeded") == 13
    assert value(samples, "outwait_jobs_accepted_total", provider="unless") == 13
    assert value(samples, "outwait_jobs_entered_total", provider="unless", state="succeeded") == 13
    assert value(samples, "outwait_deliveries_total", kind="file", result="delivered") == 12
    assert value(samples, "outwait_deliveries_total", kind="function", result="dead") == 1
    assert value(samples, "outwait_dead_deliveries") == 1
    assert value(samples, "outwait_late_seconds_count", step="poll", provider="unless") == polls
    assert value(samples, "outwait_late_seconds_bucket", step="poll", le="+Inf") == polls
    assert value(samples, "outwait_due_jobs") == 0
    await _history(stack, polls)


async def _history(stack: Stack, polls: int) -> None:
    """The same by minutes, as the charts show it. An empty minute is there too."""
    connection = Connection(stack.settings)
    minutes = await Statistics(connection).history(5)
    await connection.close()
    assert [later.at - sooner.at for sooner, later in itertools.pairwise(minutes)] == [60] * 4
    assert sum(minute.accepted for minute in minutes) == sum(minute.submitted for minute in minutes) == 13
    assert sum(minute.ended[JobState.SUCCEEDED] for minute in minutes) == 13
    assert sum(minute.polls for minute in minutes) == polls
    assert minutes[0].late is None
    assert minutes[0].waiting is None
    assert 0 < max(minute.late or 0 for minute in minutes) < PATIENCE
    assert [minute.dead for minute in minutes if minute.dead is not None][-1] <= 1


async def _jobs(client: StoreClient, number: int) -> list[Job]:
    async def look() -> list[Job] | None:
        page = await client.jobs(limit=100)
        return page.jobs if sum(job.closed is not None for job in page.jobs) == number else None

    jobs: list[Job] = await until(look, what="all closed")
    return jobs


async def test_a_killed_worker_loses_no_end_and_little_else(stack: Stack) -> None:
    before = scrape(stack)
    process = stack.worker()
    async with stack.client() as client:
        jobs = [await client.enqueue(query(f"killed {n}")) for n in range(6)]
        for job in jobs:
            await ended(client, job.job_id)
    stack.kill(process)
    after = scrape(stack)
    ends = {"name": "outwait_jobs_entered_total", "provider": "unless", "state": "succeeded"}
    assert value(after, **ends) == value(before, **ends) + 6
    assert value(after, "outwait_requests_total") >= value(before, "outwait_requests_total")


async def test_a_worker_that_is_stopped_loses_nothing(stack: Stack) -> None:
    before = scrape(stack)
    process = stack.worker()
    async with stack.client() as client:
        await ended(client, (await client.enqueue(query("stopped"))).job_id)
    process.terminate()
    process.wait(PATIENCE)
    submits = {"name": "outwait_requests_total", "provider": "unless", "kind": "submits", "result": "2xx"}
    assert value(scrape(stack), **submits) == value(before, **submits) + 1


async def test_what_waits_is_shown_and_a_pause_asks_for_no_more_workers(stack: Stack) -> None:
    async with stack.client() as client:
        await client.enqueue(query("waits"))
        samples = scrape(stack)
        assert value(samples, "outwait_due_jobs", step="submit", provider="unless") == 1
        assert value(samples, "outwait_ready_jobs", step="submit", provider="unless") == 1
        assert value(samples, "outwait_oldest_due_seconds", step="submit", provider="unless") > 0
        await client.pause("unless")
        samples = scrape(stack)
        assert value(samples, "outwait_suspended", provider="unless") == 1
        assert value(samples, "outwait_due_jobs", step="submit", provider="unless") == 1
        # Of this provider: a worker that was stopped before may have left a callback or a delivery, which is ready.
        assert value(samples, "outwait_ready_jobs", step="submit", provider="unless") == 0
        await client.resume("unless")


async def test_openmetrics_is_spoken_too(stack: Stack) -> None:
    status, text = get(stack, "/metrics", accept="application/openmetrics-text;version=1.0.0")
    assert status == 200
    names = {family.name for family in openmetrics(text)}
    assert {"outwait_jobs", "outwait_requests", "outwait_late_seconds"} <= names


async def test_ready_only_while_the_store_answers(stack: Stack, redis: EmbeddedRedis) -> None:
    assert get(stack, "/readyz") == (200, '{"status":"ready"}')
    assert redis.pid is not None
    os.kill(redis.pid, signal.SIGSTOP)
    try:
        status, text = get(stack, "/readyz")
        assert status == 503
        assert "does not answer" in text or "did not answer" in text
        assert get(stack, "/livez")[0] == 200
        assert get(stack, "/metrics")[0] == 503
    finally:
        os.kill(redis.pid, signal.SIGCONT)

    async def recovered() -> bool:
        return get(stack, "/readyz")[0] == 200 and get(stack, "/metrics")[0] == 200

    await until(recovered)
