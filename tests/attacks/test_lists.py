"""A list of jobs takes little memory, however much their requests hold.

In release 0.2.0 a page of 300 jobs with 1 MB of metadata each took 951 MiB in the web process, or in a terminal.
"""

import json
import subprocess
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from outwait.client.store import StoreClient
from outwait.config.settings import Settings
from outwait.worker.model.jobs import JobError, JobRequest
from outwait.worker.model.outcomes import NO_FENCE, End
from outwait.worker.providers.registry import PROBLEM_SHOWN, PROBLEMS_SHOWN, describe
from outwait.worker.store.access import Access, Scope
from outwait.worker.store.connection import Connection
from outwait.worker.store.lanes import Lanes
from outwait.worker.store.reads import Reads
from outwait.worker.store.rows import LISTED_MAX
from tests.stack import Stack, query

MEBIBYTE = 1024 * 1024
JOBS = 300
METADATA: dict[str, Any] = {"rows": [[] for _ in range(300_000)]}
"""900 KB of JSON, of which Redis keeps 1 KB and Python makes 20 MB."""


@pytest.fixture(scope="module")
def stack(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(redis_url, tmp_path_factory.mktemp("lists")) as running:
        yield running


def peak(process: subprocess.Popen[bytes]) -> int:
    """Bytes that a process took at most."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


async def test_a_page_of_large_jobs_takes_little_memory(stack: Stack) -> None:
    """Protected by worker/store/reads.py `listed`."""
    web = stack.web()
    connection = Connection(stack.settings)
    key = await Access(connection).create("lists", list(Scope), None)
    await connection.close()
    async with stack.client() as client:
        large = [query(str(number), metadata=METADATA) for number in range(10)]
        for _ in range(JOBS // 10):
            await client.enqueue_many([(request, None) for request in large])
        await client.enqueue(query("small", metadata={"customer": 42}, targets=["crm"]))
    headers = {"Authorization": f"Bearer {key.text}"}
    async with httpx.AsyncClient(base_url=stack.web_url, headers=headers, timeout=300) as http:
        (small,) = (await http.get("/v1/jobs?limit=1")).json()["jobs"]
        before = peak(web)
        page = await http.get(f"/v1/jobs?limit={JOBS + 1}")
        first, *others = page.json()["jobs"]
        assert len(others) == JOBS
        assert peak(web) - before < 64 * MEBIBYTE
        whole = (await http.get(f"/v1/jobs/{others[0]['id']}")).json()
    assert (first["metadata"], first["targets"], first["abridged"]) == ({"customer": 42}, ["crm"], False)
    assert first == small
    assert all((job["metadata"], job["abridged"]) == ({}, True) for job in others)
    assert (whole["metadata"], whole["abridged"]) == (METADATA, False)
    assert len(page.content) < MEBIBYTE


async def test_a_step_decodes_no_metadata(settings: Settings, connection: Connection) -> None:
    """Protected by worker/store/reads.py `Spec`: four such jobs took 78 MB, and a batch may have 64."""
    async with StoreClient(settings) as client:
        for name in ("0", "1", "2", "3"):
            await client.enqueue(query(name, metadata=METADATA, targets=["crm"]), job_id=name)
    tracemalloc.start()
    try:
        specs = await Reads(connection).specs(["0", "1", "2", "3"])
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [spec and (spec.params["query"], spec.targets) for spec in specs] == [(str(n), ("crm",)) for n in range(4)]
    assert taken < 4 * MEBIBYTE


async def test_an_error_of_any_length_is_listed_by_its_beginning(settings: Settings, connection: Connection) -> None:
    async with StoreClient(settings) as client:
        for name, error in {
            "long-detail": JobError("provider_failed", 'it said "no"', {"body": "x" * MEBIBYTE}),
            "long-message": JobError("provider_failed", "x" * MEBIBYTE),
            "short": JobError("expired", "too late", 7),
        }.items():
            await client.enqueue(query(name), job_id=name)
            await Lanes(connection).record([End(work_id=name, fence=NO_FENCE, state="failed", error=error.text())])
        errors = {job.id: job.error for job in (await client.jobs()).jobs}
        assert errors["long-detail"] == JobError("provider_failed", 'it said "no"')
        assert errors["short"] == JobError("expired", "too late", 7)
        assert errors["long-message"] == JobError("unknown", "the error is too long for a list")
        whole = (await client.job("long-message")).error
        assert whole is not None
        assert len(whole.message) == MEBIBYTE


def test_a_request_with_any_number_of_mistakes_has_a_short_refusal() -> None:
    """Protected by worker/providers/registry.py `describe`: the refusal of 1 MB was 14 MB, and was stored."""
    wrong = {f"{'n' * 1000}{number}": 1 for number in range(1000)}
    with pytest.raises(ValidationError) as invalid:
        JobRequest.model_validate(wrong)
    refusal = describe(invalid.value, JobRequest)
    assert len(refusal) < PROBLEMS_SHOWN * (PROBLEM_SHOWN + 10)
    assert refusal.endswith(f"and {1000 + 2 - PROBLEMS_SHOWN} more")


async def test_a_request_just_small_enough_is_shown(settings: Settings) -> None:
    async with StoreClient(settings) as client:
        empty = len(json.dumps({"params": query().params, "metadata": {"x": ""}}, separators=(",", ":")))
        for name, length in {"fits": LISTED_MAX - empty, "too-long": LISTED_MAX - empty + 1}.items():
            await client.enqueue(query(metadata={"x": "x" * length}), job_id=name)
        abridged = {job.id: job.abridged for job in (await client.jobs()).jobs}
        assert abridged == {"fits": False, "too-long": True}
