"""Bad input from producers and providers: each ends in an error that names its cause, and none stops the worker.

What a well-formed message may ask for wrongly is in tests/integration/test_producer.py.
"""

import base64
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from outwait.client.store import StoreClient
from outwait.worker.model.errors import InvalidRequest
from outwait.worker.model.jobs import Job, JobRequest, JobState
from outwait.worker.store.connection import Connection
from tests.stack import Stack, closed, query, until

AUDIO = {"languageTag": "en-us", "vertical": "default", "downloadUri": "https://a.example/2.wav"}
ELEVATE = JobRequest(provider="elevateai", operation="audio", params=AUDIO)
RESULT_MAX, PARAMS_MAX = 20_000, 2_000

VARIABLES = {
    "OUTWAIT_STORE__RESULT_MAX": str(RESULT_MAX),
    "OUTWAIT_STORE__PARAMS_MAX": str(PARAMS_MAX),
    "OUTWAIT_SUBMIT__ATTEMPTS": "3",
    "OUTWAIT_SUBMIT__TIME_LIMIT": "8",
    "OUTWAIT_PROVIDERS__UNLESS__BREAKER_AFTER": "1000",  # each case for itself
    "OUTWAIT_PROVIDERS__ELEVATEAI__API_TOKEN": "00000000-5a4d-4b0e-8000-00000000dead",
}


class Subject:
    """A stack whose one worker must live through everything."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.worker: subprocess.Popen[bytes] = stack.worker()

    async def is_well(self, client: StoreClient) -> None:
        job_id = (await client.enqueue(query("is it well?"))).job_id
        assert (await closed(client, job_id)).state is JobState.SUCCEEDED
        assert self.worker.poll() is None


@pytest.fixture(scope="module")
def subject(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    folder = tmp_path_factory.mktemp("bad")
    with Stack(redis_url, folder, options={"behaviour": {"duration": 0}}, variables=VARIABLES) as stack:
        yield Subject(stack)


def faulty(fault: str, on: str, **fields: Any) -> JobRequest:
    marker = {"duration": 0, "faults": [{"fault": fault, "on": on, "times": None, **fields}]}
    return query(f"{fault} {on} {fields} sandbox:{json.dumps(marker)}", deadline=3 if on == "poll" else None)


PROVIDERS = {
    "wrong credentials": (ELEVATE, "unauthorized", "answered 40"),
    "a web page": (faulty("html", "poll"), "unreadable_answer", "text/html"),
    "half a document": (faulty("broken_json", "poll"), "unreadable_answer", "where a JSON object was expected"),
    "nothing at all": (faulty("empty", "poll"), "unreadable_answer", "where a JSON object was expected"),
    "a broken line": (faulty("drop", "poll"), "answer_lost", "got no complete answer"),
    "an outage": (faulty("error", "poll", status=502), "unavailable", "answered 502"),
    "too much": (query('x sandbox:{"duration":0,"result_bytes":50000}'), "result_too_large", f"{RESULT_MAX}"),
    "a refusal": (query('x sandbox:{"duration":"long"}'), "rejected", "duration"),
}  # fmt: skip


@pytest.mark.parametrize("what", PROVIDERS)
async def test_what_a_provider_does_wrong_is_told_on_the_job(subject: Subject, what: str) -> None:
    """Protected by tasks/submit.py and tasks/poll.py `decide_error`: every ProviderError has its outcome."""
    request, code, cause = PROVIDERS[what]
    polled_on = request.deadline is not None  # a paid job is given up at its deadline only
    async with subject.stack.client() as client:
        job = await closed(client, (await client.enqueue(request)).job_id)
        assert job.error is not None
        if polled_on:
            assert job.state is JobState.EXPIRED
            assert job.error.message.startswith(f"the deadline passed; the last poll failed: {code}: ")
        else:
            assert (job.state, job.error.code) == (JobState.FAILED, code)
        assert cause in job.error.message
        await subject.is_well(client)


@pytest.mark.parametrize("fault", ["html", "broken_json", "empty", "drop_after", "error_after", "hang_after"])
async def test_an_answer_to_a_submit_that_cannot_be_read_is_held_with_its_reason(subject: Subject, fault: str) -> None:
    """Protected by tasks/submit.py `decide_error`: what was perhaps taken is never sent again by itself."""
    async with subject.stack.client() as client:
        job_id = (await client.enqueue(faulty(fault, "submit"))).job_id

        async def held() -> bool:
            return "held" in [entry.event for entry in await client.timeline(job_id)]

        await until(held)
        (reason,) = [entry.detail for entry in await client.timeline(job_id) if entry.event == "uncertain"]
        assert reason.startswith(("unreadable_answer: ", "answer_lost: ", "unavailable: "))
        assert (await client.job(job_id)).state is JobState.UNCERTAIN
        await subject.is_well(client)
    assert len(subject.stack.seen(f"{fault} submit")) == 1


async def test_a_request_that_is_too_large_is_refused_at_the_door(subject: Subject) -> None:
    """Protected by worker/engine/acceptance.py `job`."""
    async with subject.stack.client() as client:
        with pytest.raises(InvalidRequest, match=rf"OUTWAIT_STORE__PARAMS_MAX allows {PARAMS_MAX}"):
            await client.enqueue(query("x" * PARAMS_MAX))
        await send(subject.stack, envelope("too-large", query("x" * PARAMS_MAX).model_dump(exclude_unset=True)))
        job = await taken_in(client, "too-large")
        assert job.error is not None
        assert "OUTWAIT_STORE__PARAMS_MAX" in job.error.message
        await subject.is_well(client)


def envelope(job_id: Any, kwargs: Any, *, task: str = "tasks.submit", **changes: Any) -> bytes:
    """A message as kombu puts it into Redis, with changes."""
    body = base64.b64encode(json.dumps([[], kwargs, {}]).encode()).decode()
    properties = {"body_encoding": "base64", "delivery_tag": "t", "delivery_info": {}}
    message = {
        "body": body,
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"task": task, "id": job_id},
        "properties": properties,
    }
    return json.dumps(message | changes).encode()


async def send(stack: Stack, *messages: bytes) -> None:
    connection = Connection(stack.settings)
    await connection.redis.lpush(stack.variables["OUTWAIT_INTAKE__QUEUE"], *messages)
    await connection.close()


async def taken_in(client: StoreClient, job_id: str) -> Job:
    async def there() -> bool:
        return job_id in [job.id for job in (await client.jobs(limit=500)).jobs]

    await until(there)
    return await closed(client, job_id)


DEEP: list[Any] = []
for _ in range(400):
    DEEP = [DEEP]

ASKED = query("from a message").model_dump(exclude_unset=True)
PARKED = {
    "no JSON": b"\xff\xfe not json",
    "half a message": envelope("half", ASKED)[:-20],
    "nothing": b"",
    "an empty object": b"{}",
    "a list": b"[]",
    "a number": b"17",
    "nothing but depth": b"[" * 100_000,
    "no body": json.dumps({"headers": {"task": "tasks.submit", "id": "x"}}).encode(),
    "a body that is no base64": envelope("no-base64", ASKED, body="&&&"),
    "headers that are none": envelope("no-headers", ASKED, headers=[1]),
    "no id": envelope(None, ASKED),
    "an id that is a number": envelope(17, ASKED),
    "an id with a line end": envelope("line\n", ASKED),
    "an id that is too long": envelope("x" * 129, ASKED),
    "an id that is a path": envelope("../../etc", ASKED),
}
REFUSED = {
    "kwargs-list": (envelope("kwargs-list", [1, 2]), "given [1, 2]"),
    "kwargs-text": (envelope("kwargs-text", "unless"), "given 'unless'"),
    "deep": (envelope("deep", {**ASKED, "metadata": {"deep": DEEP}}), ""),
    "huge-number": (envelope("huge-number", {**ASKED, "deadline": 10**400}), "deadline"),
    "another-task": (envelope("another-task", ASKED, task="tasks.poll"), "tasks.poll"),
    "lua": (envelope("lua", {**ASKED, "provider": "unless' redis.call('FLUSHALL')"}), "provider: given"),
}


async def test_messages_that_are_none_are_put_aside_or_refused(subject: Subject) -> None:
    """Protected by worker/engine/messages.py `decode`, intake.py `_ready`: an unreadable message stops no other."""
    good = envelope("among-them", ASKED)
    bad = [*PARKED.values(), *(message for message, _ in REFUSED.values())]
    await send(subject.stack, *bad, good, *bad)
    async with subject.stack.client() as client:
        assert (await taken_in(client, "among-them")).state is JobState.SUCCEEDED
        for name, (_, cause) in REFUSED.items():
            job = await taken_in(client, name)
            assert (job.state, job.ledger.submits) == (JobState.FAILED, 0), name
            assert job.error is not None
            assert cause in job.error.message, name

        async def parked() -> bool:
            return len(await client.parked(100)) == 2 * len(PARKED)

        await until(parked, what=f"{2 * len(PARKED)} messages put aside")
        assert all(message.reason for message in await client.parked(100))
        await subject.is_well(client)


async def test_a_provider_that_is_not_there_is_named(redis_url: str, tmp_path: Any) -> None:
    """Protected by tasks/submit.py `decide_error`: nothing is sent, and the error names the address."""
    variables = {
        "OUTWAIT_SUBMIT__ATTEMPTS": "3",
        "OUTWAIT_PROVIDERS__ELEVATEAI__BASE_URL": "http://127.0.0.1:1/v1",
    }
    with Stack(redis_url, tmp_path, variables=variables) as stack:
        worker = stack.worker()
        async with stack.client() as client:
            unreachable = await closed(client, (await client.enqueue(ELEVATE)).job_id)
        assert unreachable.error is not None
        assert unreachable.error.code == "not_sent"
        assert "127.0.0.1:1" in unreachable.error.message
        assert worker.poll() is None
