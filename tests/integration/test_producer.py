"""The wire contract, from outside: the producer is a process of its own that cannot import anything of ours."""

import asyncio
import base64
import json
import subprocess
import sys
import sysconfig
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import jsonschema
import pytest
from redis.asyncio import Redis

from outwait.worker.model.jobs import JobState
from tests.stack import ROOT, Stack, until

PRODUCER = """
import importlib.util, json, sys
sys.path.append(sys.argv[1])  # by hand and without site: what is installed editable stays out of reach
assert not [name for name in ("outwait", "config", "worker", "tasks") if importlib.util.find_spec(name)]
from celery import Celery, Signature

def send(app, message, queue):
    options = {"task_id": message["id"], "queue": queue, **message.get("options", {})}
    if message.get("signature"):
        Signature("tasks.submit", kwargs=message["kwargs"], app=app).apply_async(**options)
    else:
        app.send_task(message.get("task", "tasks.submit"), message.get("args"), message.get("kwargs"), **options)

def wait(app, job_id):
    try:
        return {"result": app.AsyncResult(job_id).get(timeout=150)}
    except Exception as error:
        return {"raised": type(error).__name__, "message": str(error)}

for line in sys.stdin:
    work = json.loads(line)
    with Celery("shop", broker=sys.argv[2], backend=sys.argv[2], set_as_current=False) as app:
        app.conf.update(work["conf"])
        for message in work["send"]:
            send(app, message, work["queue"])
        print(json.dumps({job_id: wait(app, job_id) for job_id in work["get"]}), flush=True)
"""

Message = dict[str, Any]


@pytest.fixture(scope="module")
def stack(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("producer")
    with Stack(redis_url, folder, options={"behaviour": {"duration": 0.2}}) as running:
        running.worker()
        yield running


class Producer:
    """Another service, on this broker."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        url = stack.variables["OUTWAIT_REDIS_URL"]
        self.queue = stack.variables["OUTWAIT_INTAKE__QUEUE"]
        script = folder / "shop.py"
        script.write_text(PRODUCER)
        command = [sys.executable, "-I", "-S", str(script), sysconfig.get_path("purelib"), url]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder)

    async def run(
        self, send: list[Message], get: list[str] | None = None, *, queue: str | None = None, **conf: Any
    ) -> dict[str, Any]:
        """Send messages and wait for results; by default for each one's own."""
        wanted = [message["id"] for message in send] if get is None else get
        work = {"send": send, "get": wanted, "queue": self.queue if queue is None else queue, "conf": conf}
        answers: dict[str, Any] = json.loads(await asyncio.to_thread(self._asked, json.dumps(work)))
        return answers

    async def outcome(self, message: Message, **conf: Any) -> dict[str, Any]:
        """What one job came to."""
        answer: dict[str, Any] = (await self.run([message], **conf))[message["id"]]
        return answer

    def close(self) -> None:
        """No more work: it ends."""
        self._process.communicate()
        assert self._process.returncode == 0

    def _asked(self, work: str) -> bytes:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(work.encode() + b"\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()


@pytest.fixture(scope="module")
def producer(stack: Stack) -> Iterator[Producer]:
    producer = Producer(stack, stack.folder)
    yield producer
    producer.close()


def asking(text: str = "why?", **fields: Any) -> dict[str, Any]:
    params = {"query": text, "sessionId": "s-1", "visitorId": "v-1"}
    return {"provider": "unless", "operation": "query", "params": params, **fields}


def message(kwargs: Any = None, **more: Any) -> Message:
    return {"id": str(uuid4()), "kwargs": asking() if kwargs is None else kwargs, **more}


WAYS: dict[str, tuple[Message, dict[str, Any]]] = {
    "plain": ({}, {}),
    "a signature": ({"signature": True}, {}),
    "one positional dict": ({"args": [asking("a dict?")], "kwargs": None}, {}),
    "gzip": ({"options": {"compression": "gzip"}}, {}),
    "protocol 1": ({}, {"task_protocol": 1}),
    "protocol 1, zlib": ({"options": {"compression": "zlib"}}, {"task_protocol": 1}),
    "least urgent": ({"options": {"priority": 9}}, {}),
    "ten priorities": ({"options": {"priority": 5}}, {"broker_transport_options": {"priority_steps": list(range(10))}}),
}


@pytest.mark.parametrize("way", WAYS)
async def test_a_job_gives_its_result_to_the_producer(producer: Producer, way: str) -> None:
    how, conf = WAYS[way]
    answer = await producer.outcome({**message(asking(f"{way}?")), **how}, **conf)
    assert way.partition(" positional")[0] in answer["result"]["answer"] or "a dict?" in answer["result"]["answer"]


async def test_a_countdown_is_kept_and_the_deadline_counts_from_then(stack: Stack, producer: Producer) -> None:
    sent = message(asking(deadline=300), options={"countdown": 6})
    assert "result" in await producer.outcome(sent)
    async with stack.client() as client:
        job = await client.job(sent["id"])
    assert job.submitted is not None
    assert job.deadline is not None
    assert 300 < job.deadline - job.created <= 306
    assert job.submitted >= job.deadline - 300


async def test_what_the_provider_refuses_is_raised_with_code_and_message(producer: Producer) -> None:
    answer = await producer.outcome(message(asking('x sandbox:{"outcome":"failure"}')))
    assert answer["raised"] == "JobFailed"
    assert answer["message"].startswith("provider_failed: ERROR: ")


async def test_an_expired_job_is_raised_as_such(producer: Producer) -> None:
    answer = await producer.outcome(message(asking('x sandbox:{"outcome":"never"}', deadline=1)))
    assert answer["raised"] == "JobExpired"
    assert "the deadline passed" in answer["message"]


REFUSED: dict[str, tuple[Message, str]] = {
    "nothing": ({"kwargs": {}}, "provider: is missing"),
    "an unknown field": (message(asking(colour="red")), "colour: there is no such parameter"),
    "an unknown provider": (message({**asking(), "provider": "nobody"}), "provider: given 'nobody'; the providers are"),
    "an unknown operation": (message({**asking(), "operation": "sing"}), "operation: given 'sing'"),
    "a missing parameter": (message({**asking(), "params": {"query": "x"}}), "params.sessionId: is missing"),
    "a wrong target": (message(asking(targets=["no such://target"])), "no such"),
    "a version to come": (message(asking(version=2)), "version: given 2"),
    "positional arguments": ({"args": ["unless", "query"]}, "args: there is no such parameter"),
    "half a character": (message(asking(metadata={"n": "\ud800"})), "cannot be written as JSON"),
    "half a character in a target": (message(asking(targets=["\ud800"])), "targets"),
    "another task": ({"task": "tasks.sumbit"}, "task: given 'tasks.sumbit'"),
    "a pickle": ({"options": {"serializer": "pickle"}}, "must be JSON"),
    "a wrong eta": ({"options": {"eta": "tomorrow"}}, "eta: given 'tomorrow'"),
    "too late": ({"options": {"expires": "2020-01-01T00:00:00+00:00"}}, "expires: the message expired at"),
    "due too late": ({"options": {"countdown": 600, "expires": 300}}, "but its job is only due in 600 s"),
    "asked for too late": (
        {**message(asking(countdown=600)), "options": {"expires": 300}},
        "but its job is only due in 600 s",
    ),
    "a task to run after it": ({"options": {"chain": [{"task": "shop.done"}]}}, "chain: not supported for jobs"),
}


async def test_a_message_may_expire_after_its_job_is_due(producer: Producer) -> None:
    assert "result" in await producer.outcome({**message(), "options": {"countdown": 1, "expires": 60}})


@pytest.mark.parametrize("what", REFUSED)
async def test_what_can_be_no_job_is_refused_under_its_id(stack: Stack, producer: Producer, what: str) -> None:
    wrong, reason = REFUSED[what]
    sent = {**message(), **wrong, "id": str(uuid4())}
    if "args" in wrong:
        del sent["kwargs"]
    answer = await producer.outcome(sent)
    assert (answer["raised"], answer["message"].partition(":")[0]) == ("JobFailed", "invalid_request")
    assert reason in answer["message"]
    async with stack.client() as client:
        job = await client.job(sent["id"])
        assert job.state is JobState.FAILED
        assert job.error is not None
        assert reason in job.error.message
        assert next(entry.event for entry in await client.timeline(job.id)) == "refused"


async def test_a_message_without_a_usable_id_is_put_aside_and_holds_back_no_other(
    stack: Stack, producer: Producer
) -> None:
    nameless, fine = {**message(), "id": "no id at all!"}, message()
    answers = await producer.run([nameless, fine], [fine["id"]])
    assert "result" in answers[fine["id"]]
    async with stack.client() as client:
        parked = await client.parked()
    assert any("'no id at all!' is not a valid job id" in message.reason for message in parked)


async def test_the_same_id_twice_is_one_job(stack: Stack, producer: Producer) -> None:
    sent = message(asking(f"once {uuid4()}"))
    assert "result" in await producer.outcome(sent)
    assert "result" in await producer.outcome(sent)
    assert len(stack.sandbox("GET", f"/_ledger?text={sent['kwargs']['params']['query'][5:]}")["jobs"]) == 1


async def test_the_same_id_for_another_request_changes_nothing(stack: Stack, producer: Producer) -> None:
    first = message(asking("the first?"))
    answer = await producer.outcome(first)
    assert await producer.outcome({**message(asking("the second?")), "id": first["id"]}) == answer
    async with stack.client() as client:

        async def conflict_noted() -> bool:
            return "conflict" in [entry.event for entry in await client.timeline(first["id"])]

        await until(conflict_noted)
        assert (await client.params(first["id"]))["query"] == "the first?"


async def test_two_ids_with_one_idempotency_key_are_one_job_with_one_result(stack: Stack, producer: Producer) -> None:
    key = str(uuid4())
    first, second, late = (message(asking(f"key {key}", idempotency_key=key)) for _ in range(3))
    answers = await producer.run([first, second])
    answers |= await producer.run([late])  # when the job has ended long ago
    assert answers[first["id"]] == answers[second["id"]] == answers[late["id"]]
    assert "result" in answers[first["id"]]
    assert len(stack.sandbox("GET", f"/_ledger?text={key}")["jobs"]) == 1
    async with stack.client() as client:
        assert (await client.job(late["id"])).id == first["id"]


async def test_another_priority_is_the_same_request(stack: Stack, producer: Producer) -> None:
    key = str(uuid4())
    first, second = (message(asking(f"urgent {key}", idempotency_key=key, priority=number)) for number in (3, 9))
    answers = await producer.run([first, second])
    assert answers[first["id"]] == answers[second["id"]]
    assert "result" in answers[first["id"]]
    assert len(stack.sandbox("GET", f"/_ledger?text={key}")["jobs"]) == 1


async def test_an_idempotency_key_for_another_request_is_a_conflict_under_the_new_id(
    stack: Stack, producer: Producer
) -> None:
    key = str(uuid4())
    first, alias, other = message(asking(idempotency_key=key)), message(asking(idempotency_key=key)), message()
    other["kwargs"] = asking("something else", idempotency_key=key)
    answers = await producer.run([first, alias, other])
    assert "result" in answers[first["id"]]
    assert answers[other["id"]]["raised"] == "JobFailed"
    assert answers[other["id"]]["message"].startswith(
        f"conflict: the idempotency key {key!r} belongs to job {first['id']}"
    )
    # An id that means another job is taken too; the message must not come again and again.
    assert (await producer.outcome({**message(asking("a third thing")), "id": alias["id"]})) == answers[first["id"]]
    async with stack.client() as client, Redis.from_url(stack.variables["OUTWAIT_REDIS_URL"]) as redis:

        async def taken() -> bool:
            told = "conflict" in [entry.event for entry in await client.timeline(first["id"])]
            return told and not await redis.zcard(f"{{{stack.settings.namespace}}}:in:leased")

        await until(taken, what="the conflict is told, and no message is leased")


async def test_a_large_result_arrives_whole(producer: Producer) -> None:
    answer = await producer.outcome(message(asking('big sandbox:{"result_bytes":2000000}')))
    assert len(answer["result"]["answer"]) >= 2_000_000


async def test_a_thousand_messages_all_become_jobs(stack: Stack, producer: Producer) -> None:
    sent = [message(asking(f"bulk {number}")) for number in range(1000)]
    assert not await producer.run(sent, [])
    async with stack.client() as client:

        async def all_ended() -> bool:
            jobs = await client._store.reads.jobs([message["id"] for message in sent])
            return sum(job.state is JobState.SUCCEEDED for job in jobs) == 1000

        await until(all_ended)
    answers = await producer.run([], [message["id"] for message in sent])
    assert all(f"bulk {number}." in answers[message["id"]]["result"]["answer"] for number, message in enumerate(sent))


async def test_what_a_producer_sends_follows_the_published_schema(stack: Stack, producer: Producer) -> None:
    schema = json.loads((ROOT / "docs" / "contract" / "submit.v1.schema.json").read_text())
    queue = f"{stack.settings.namespace}-unread"
    whole = asking(targets=["crm"], idempotency_key="k", deadline=60, metadata={"a": [1]}, version=1)
    sent = [message(), message(whole, options={"compression": "gzip"}), message({**asking(), "operations": 1})]
    await producer.run(sent, [], queue=queue)
    async with Redis.from_url(stack.variables["OUTWAIT_REDIS_URL"]) as redis:
        bodies = [json.loads(body) for body in reversed(await redis.lrange(queue, 0, -1))]
    for body, asked in zip(bodies, sent, strict=True):
        content = base64.b64decode(body["body"])
        if body["headers"].get("compression"):
            content = zlib.decompress(content)  # kombu calls zlib gzip
        kwargs = json.loads(content)[1]
        assert body["headers"]["id"] == asked["id"]
        assert kwargs == asked["kwargs"]
        validator = jsonschema.Draft202012Validator(schema)
        assert validator.is_valid(kwargs) == ("operations" not in kwargs)


async def test_a_producer_that_names_no_queue_is_found_out(stack: Stack, producer: Producer) -> None:
    async with stack.client() as client:
        before = await client.misdirected()
        await producer.run([message(), message(), message(task="shop.pack")], [], queue="celery")
        assert await client.misdirected() == before + 2


async def test_the_example_prints_the_result(stack: Stack, tmp_path: Path) -> None:
    names = ("OUTWAIT_REDIS_URL", "OUTWAIT_INTAKE__QUEUE")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(ROOT / "examples" / "producer.py"), "What do you charge?"),
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env={name: stack.variables[name] for name in names},
    )
    out, _ = await process.communicate()
    assert "result: This is the result of What do you charge?" in out.decode()
