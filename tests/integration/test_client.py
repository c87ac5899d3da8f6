"""`Client` and `AsyncClient` as a producer uses them: the same over Redis and over HTTP, sync and async."""

import asyncio
import inspect
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, cast
from uuid import uuid4

import pytest

import outwait
from outwait import AsyncClient, Choice, Client, DeliveryState, JobRequest, JobState
from outwait.worker.local.embedded import EmbeddedRedis, free_port
from outwait.worker.store.access import Access, Scope
from outwait.worker.store.connection import Connection
from tests.patience import PATIENCE, until
from tests.refusing import NAMES
from tests.stack import ROOT, WEB, Stack

REFUSING = iter(NAMES)
ALL = tuple(Scope)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """A server of its own: tests stop it."""
    with EmbeddedRedis(tmp_path_factory.mktemp("own")) as server:
        yield server


@pytest.fixture(scope="module")
def stack(redis: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("client")
    variables = {"OUTWAIT_HANDLERS__MODULES": "tests.refusing"}
    with Stack(redis.url, folder, options={"behaviour": {"duration": 0.3}}, variables=variables) as running:
        running.web()
        running.worker()
        yield running


async def api_key(stack: Stack, *scopes: Scope) -> str:
    connection = Connection(stack.settings)
    made = await Access(connection).create("test", scopes or ALL, None)
    await connection.close()
    return made.text


class Awaited:
    """A sync client behind the methods of an async one: each call runs in a thread."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)
        return lambda *args, **named: asyncio.to_thread(method, *args, **named)


@pytest.fixture(autouse=True)
def _settings(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The producer has the settings of the workers."""
    for name, value in stack.variables.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(params=["redis-async", "redis-sync", "settings-async", "http-async", "http-sync"])
async def client(request: pytest.FixtureRequest, stack: Stack) -> AsyncIterator[AsyncClient]:
    """One client after the other, in the shape of the async one."""
    transport, _, style = request.param.partition("-")
    address = {"redis": stack.variables["OUTWAIT_REDIS_URL"], "http": stack.web_url, "settings": None}[transport]
    key = await api_key(stack) if transport == "http" else None
    if style == "async":
        async with AsyncClient(address, key=key) as client:
            yield client
    else:
        with Client(address, key=key) as blocking:
            yield cast("AsyncClient", Awaited(blocking))


def asked(text: str = "why?") -> dict[str, str]:
    return {"query": text, "sessionId": "s-1", "visitorId": "v-1"}


NEVER = asked('x sandbox:{"outcome":"never"}')
FAILURE = asked('x sandbox:{"outcome":"failure"}')


async def enqueued(client: AsyncClient, params: dict[str, str], **options: Any) -> str:
    return (await client.enqueue("unless", "query", params, **options)).job_id


async def test_a_job_is_enqueued_waited_for_and_read(client: AsyncClient) -> None:
    job_id, created = await client.enqueue("unless", "query", asked(), metadata={"customer": 42})
    assert created
    answer = await client.wait(job_id, timeout_s=PATIENCE)
    assert answer["answer"]
    assert await client.result(job_id) == answer
    assert await client.wait(job_id) == answer, "who comes later waits for nothing"
    job = await client.job(job_id)
    assert (job.state, job.metadata, job.ledger.submits) == (JobState.SUCCEEDED, {"customer": 42}, 1)
    events = [entry.event for entry in await client.timeline(job_id)]
    assert events[0] == "enqueued"
    assert "succeeded" in events


async def test_the_same_key_gives_the_same_job_and_no_other_request(client: AsyncClient) -> None:
    key = uuid4().hex
    first = await client.enqueue("unless", "query", NEVER, idempotency_key=key)
    again = await client.enqueue("unless", "query", NEVER, idempotency_key=key)
    assert (first.created, again.created, again.job_id) == (True, False, first.job_id)
    with pytest.raises(outwait.Conflict, match=key):
        await client.enqueue("unless", "query", asked("another"), idempotency_key=key)


async def test_what_cannot_be_a_job_is_refused(client: AsyncClient) -> None:
    with pytest.raises(outwait.InvalidRequest, match="sessionId"):
        await client.enqueue("unless", "query", {"query": "why?"})
    with pytest.raises(outwait.InvalidRequest, match="provider"):
        await client.enqueue("unles", "query", asked())
    with pytest.raises(outwait.InvalidRequest, match="priority"):
        await client.enqueue("unless", "query", asked(), priority=10)


async def test_many_jobs_are_answered_for_one_by_one(client: AsyncClient) -> None:
    key = uuid4().hex
    good = JobRequest(provider="unless", operation="query", params=dict(NEVER), idempotency_key=key)
    other = good.model_copy(update={"params": asked("other")})
    bad = good.model_copy(update={"params": {}, "idempotency_key": None})
    first, same, conflict, invalid = await client.enqueue_many([good, good, other, bad])
    assert isinstance(first, outwait.Enqueued)
    assert same == outwait.Enqueued(first.job_id, created=False)
    assert isinstance(conflict, outwait.Conflict)
    assert isinstance(invalid, outwait.InvalidRequest)


async def test_a_failed_job_raises_what_its_provider_says(client: AsyncClient) -> None:
    job_id = await enqueued(client, FAILURE)
    with pytest.raises(outwait.JobFailed, match="provider_failed: ERROR"):
        await client.wait(job_id, timeout_s=PATIENCE)
    with pytest.raises(outwait.JobFailed, match="provider_failed: ERROR"):
        await client.result(job_id)


async def test_an_expired_job_raises(client: AsyncClient) -> None:
    job_id = await enqueued(client, NEVER, deadline=0.5)
    with pytest.raises(outwait.JobExpired):
        await client.wait(job_id, timeout_s=PATIENCE)


async def test_a_cancelled_job_raises_and_stays_cancelled(client: AsyncClient) -> None:
    job_id = await enqueued(client, NEVER)
    waiting = asyncio.create_task(client.wait(job_id, timeout_s=PATIENCE))

    async def cancelled() -> bool:
        return await client.cancel(job_id)

    await until(cancelled)
    with pytest.raises(outwait.JobCancelled):
        await waiting
    assert await client.cancel(job_id)


async def test_an_ended_job_is_polled_again_and_submitted_once(client: AsyncClient) -> None:
    job_id = await enqueued(client, asked('x sandbox:{"duration":5}'), deadline=600)

    async def given_up() -> bool:
        return (await client.job(job_id)).state is JobState.WAITING and await client.cancel(job_id)

    await until(given_up)
    await client.repoll(job_id)
    await client.wait(job_id, timeout_s=PATIENCE)
    assert (await client.job(job_id)).ledger.submits == 1
    with pytest.raises(outwait.WrongState, match="it has its result"):
        await client.repoll(job_id)


async def test_what_has_ended_cannot_be_cancelled(client: AsyncClient) -> None:
    job_id = await enqueued(client, asked())
    await client.wait(job_id, timeout_s=PATIENCE)
    with pytest.raises(outwait.WrongState, match="succeeded"):
        await client.cancel(job_id)


async def test_a_job_that_has_not_ended_has_no_result_and_a_wait_an_end(client: AsyncClient) -> None:
    job_id = await enqueued(client, NEVER)
    with pytest.raises(outwait.WrongState, match="has not ended"):
        await client.result(job_id)
    with pytest.raises(TimeoutError, match=r"after 0\.3 s"):
        await client.wait(job_id, timeout_s=0.3)


async def test_dead_deliveries_are_listed_and_replayed(client: AsyncClient) -> None:
    target = next(REFUSING)
    job_id = await enqueued(client, asked(), targets=[target])
    await client.wait(job_id, timeout_s=PATIENCE)

    async def dead() -> bool:
        deliveries = await client.dead(target=target)
        return [(delivery.job_id, delivery.target, delivery.provider) for delivery in deliveries] == [
            (job_id, target, "unless")
        ]

    await until(dead)
    (delivery,) = await client.deliveries(job_id)
    assert (delivery.state, delivery.target) == (DeliveryState.DEAD, target)
    assert await client.replay(job_id) == 1
    await until(dead)
    assert await client.replay_dead(target=target) == 1
    await until(dead)
    assert (await client.job(job_id)).ledger.submits == 1
    with pytest.raises(outwait.NotReplayable):
        await client.replay(job_id, "somebody-else")


async def test_a_person_decides_about_an_uncertain_job(client: AsyncClient) -> None:
    job_id = await enqueued(client, asked(f'{uuid4()} sandbox:{{"faults":[{{"fault":"drop_after","on":"submit"}}]}}'))

    async def uncertain() -> bool:
        return (await client.job(job_id)).state is JobState.UNCERTAIN

    await until(uncertain)
    with pytest.raises(outwait.InvalidRequest, match="external id"):
        await client.resolve(job_id, Choice.SUBMITTED_AS)
    await client.resolve(job_id, Choice.FAIL)
    with pytest.raises(outwait.JobFailed, match="uncertain"):
        await client.wait(job_id, timeout_s=PATIENCE)
    with pytest.raises(outwait.WrongState, match="not uncertain"):
        await client.resolve(job_id, Choice.FAIL)


async def test_a_paused_provider_gets_nothing_until_it_is_resumed(client: AsyncClient) -> None:
    await client.pause("unless", "maintenance")
    job_id = await enqueued(client, asked())
    with pytest.raises(TimeoutError, match="queued"):
        await client.wait(job_id, timeout_s=0.5)
    assert await client.resume("unless")
    assert not await client.resume("unless")
    assert await client.wait(job_id, timeout_s=PATIENCE)
    for provider in ("unles", "../x"):
        with pytest.raises(outwait.InvalidRequest):
            await client.pause(provider)


async def test_jobs_are_listed_page_by_page(client: AsyncClient) -> None:
    tenant = f"t-{uuid4().hex}"
    job_ids = [await enqueued(client, NEVER, tenant=tenant) for _ in range(3)]
    first = await client.jobs(limit=2, tenant=tenant)
    rest = await client.jobs(limit=2, tenant=tenant, cursor=first.cursor)
    assert (len(first.jobs), len(rest.jobs), rest.cursor) == (2, 1, None)
    listed = first.jobs + rest.jobs
    assert {job.id for job in listed} == set(job_ids)
    assert [job.created for job in listed] == sorted((job.created for job in listed), reverse=True)
    assert (await client.jobs(tenant=tenant, state=JobState.SUCCEEDED)).jobs == []
    with pytest.raises(outwait.InvalidRequest, match="cursor"):
        await client.jobs(cursor="x")


@pytest.mark.parametrize("job_id", ["unknown", "../dead", "a/b", "", "ü"])
async def test_an_unknown_id(client: AsyncClient, job_id: str) -> None:
    looks = (client.job, client.wait, client.result, client.timeline, client.deliveries)
    ways = (*looks, client.cancel, client.replay, client.repoll)
    for way in ways:
        with pytest.raises(outwait.JobNotFound):
            await way(job_id)


async def test_a_wait_survives_a_restart_of_redis(client: AsyncClient, redis: EmbeddedRedis) -> None:
    job_id = await enqueued(client, NEVER)
    waiting = asyncio.create_task(client.wait(job_id, timeout_s=PATIENCE))

    async def submitted() -> bool:
        return (await client.job(job_id)).state is JobState.WAITING

    await until(submitted)
    redis.stop()
    with pytest.raises(outwait.StoreUnavailable):
        await client.job(job_id)
    redis.start()

    async def cancelled() -> bool:
        try:
            return await client.cancel(job_id)
        except outwait.StoreUnavailable:
            return False

    await until(cancelled)
    with pytest.raises(outwait.JobCancelled):
        await waiting


async def test_a_wait_survives_a_restart_of_the_web_process(stack: Stack) -> None:
    port = str(free_port())
    process = stack.start(WEB, "web", OUTWAIT_WEB__PORT=port)
    client = AsyncClient(f"http://127.0.0.1:{port}", key=await api_key(stack))
    async with client, AsyncClient() as other:
        job_id = await enqueued(other, NEVER)

        async def answers() -> bool:
            try:
                return bool(await client.job(job_id))
            except outwait.StoreUnavailable:
                return False

        await until(answers)
        waiting = asyncio.create_task(client.wait(job_id, timeout_s=PATIENCE))
        store = Connection(stack.settings)

        async def listened_for() -> bool:
            ((_, listeners),) = await store.redis.pubsub_numsub(store.keys("NOTED", job_id))
            return bool(listeners)

        await until(listened_for)
        await store.close()
        stack.kill(process)
        stack.start(WEB, "web", OUTWAIT_WEB__PORT=port)
        await until(answers)
        await until(lambda: other.cancel(job_id))
        with pytest.raises(outwait.JobCancelled):
            await waiting


# What Celery's own result raises in a producer that has Outwait installed

GETS = """
import os, sys
import outwait
from celery import Celery

url = os.environ["OUTWAIT_REDIS_URL"]
app = Celery("shop", broker=url, backend=url)
params = {"query": sys.argv[1], "sessionId": "s-1", "visitorId": "v-1"}
request = {"provider": "unless", "operation": "query", "params": params, "deadline": float(sys.argv[2])}
job = app.send_task("tasks.submit", kwargs=request, queue=os.environ["OUTWAIT_INTAKE__QUEUE"])
try:
    job.get(timeout=float(sys.argv[3]))
except outwait.JobFailed as error:
    print("failed", isinstance(error, outwait.JobEnded), error)
except outwait.JobExpired as error:
    print("expired", isinstance(error, outwait.JobEnded), error)
"""


@pytest.mark.parametrize(
    ("text", "deadline", "printed"),
    [
        (FAILURE["query"], "3600", "failed True provider_failed: ERROR"),
        (NEVER["query"], "0.5", "expired True expired: "),
    ],
)
def test_celery_raises_the_errors_of_outwait(stack: Stack, text: str, deadline: str, printed: str) -> None:
    command = [sys.executable, "-c", GETS, text, deadline, str(PATIENCE)]
    done = subprocess.run(command, env=stack.environment, check=False, timeout=PATIENCE, capture_output=True, text=True)
    assert done.stdout.startswith(printed), done.stderr


# Who may not, and nobody there


async def test_nobody_listens_there() -> None:
    port = free_port()
    for client in (AsyncClient(f"redis://127.0.0.1:{port}"), AsyncClient(f"http://127.0.0.1:{port}", key="ow_x")):
        async with client:
            with pytest.raises(outwait.StoreUnavailable, match="does not answer"):
                await client.enqueue("unless", "query", asked())
            with pytest.raises(outwait.StoreUnavailable):
                await client.wait("j-1", timeout_s=PATIENCE)


async def test_a_wrong_key_and_one_for_less(stack: Stack) -> None:
    async with AsyncClient(stack.web_url, key="ow_wrong") as client:
        with pytest.raises(outwait.Unauthenticated):
            await client.enqueue("unless", "query", asked())
    async with AsyncClient(stack.web_url, key=await api_key(stack, Scope.READ)) as client:
        with pytest.raises(outwait.Forbidden, match="enqueue"):
            await client.enqueue("unless", "query", asked())


async def test_something_else_listens_there(stack: Stack) -> None:
    async with AsyncClient(stack.sandbox_url, key="ow_x") as client:
        with pytest.raises(outwait.OperatorError, match="outwait web"):
            await client.job("j-1")


def test_a_key_is_for_http_and_http_needs_one(stack: Stack) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError, match="API key is needed"):
            kind(stack.web_url)
        with pytest.raises(ValueError, match="API key is for"):
            kind("redis://127.0.0.1", key="ow_x")
        with pytest.raises(outwait.ConfigError, match="OUTWAIT_REDIS_URL"):
            kind("127.0.0.1:6379")


# Sync and async


def test_the_sync_client_has_the_methods_of_the_async_one() -> None:
    def methods(kind: type) -> dict[str, Any]:
        return {name: method for name, method in vars(kind).items() if not name.startswith("_")}

    blocking, awaiting = methods(Client), methods(AsyncClient)
    assert blocking.keys() == awaiting.keys()
    for name, method in blocking.items():
        assert inspect.signature(method) == inspect.signature(awaiting[name]), name
    constructors = inspect.signature(Client), inspect.signature(AsyncClient)
    assert constructors[0] == constructors[1]


FORKS = """
import gc
import os
from outwait import Client

client = Client()
client.jobs()
for uses_it in (True, False):
    child = os.fork()
    if child == 0:
        if uses_it:
            client.jobs()
            gc.collect()
            client.close()
        break
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    client.jobs()
"""


def test_a_forked_process_gets_connections_of_its_own(stack: Stack) -> None:
    """Protected by outwait/client/blocking.py `_leave_to_parent`: what it collects is not its parent's."""
    done = subprocess.run(
        [sys.executable, "-c", FORKS],
        env=stack.environment,
        check=False,
        timeout=PATIENCE,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


# The page


def test_the_examples_of_the_page_run(stack: Stack, capfd: pytest.CaptureFixture[str]) -> None:
    key = asyncio.run(api_key(stack))
    page = (ROOT / "docs" / "client.md").read_text()
    examples = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(examples) == 4
    for example in examples:
        code = example.replace("http://127.0.0.1:8080", stack.web_url).replace("ow_…", key)
        subprocess.run([sys.executable, "-c", code], env=stack.environment, check=True, timeout=PATIENCE)
    printed = capfd.readouterr().out
    assert "Is there a trial?" in printed
    assert " succeeded " in printed


def test_the_example_program_runs_over_redis_and_over_http(stack: Stack) -> None:
    key = asyncio.run(api_key(stack))
    for variables in ({}, {"API_URL": stack.web_url, "API_KEY": key}):
        command = [sys.executable, str(ROOT / "examples" / "client.py"), "Is there a trial?"]
        environment = stack.environment | variables
        done = subprocess.run(command, env=environment, check=False, timeout=PATIENCE, capture_output=True, text=True)
        assert "Is there a trial?" in done.stdout, done.stderr
