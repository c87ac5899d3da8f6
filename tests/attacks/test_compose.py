"""Whoever gets into one container of Compose has that container's secrets, and the rights of its user in Redis.

Every container had the whole `.env` before, and one password with which everything could be done.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext

import httpx
import pytest
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError

from outwait.config.http_groups import WebhookSettings
from outwait.config.settings import Settings
from outwait.sandbox import environment
from outwait.worker.engine.acceptance import Acceptance
from outwait.worker.local.embedded import free_port
from outwait.worker.model.errors import InvalidRequest
from outwait.worker.model.jobs import JobRequest, JobState
from outwait.worker.providers.registry import build
from outwait.worker.store.access import Scope
from outwait.worker.store.store import Store
from tests.compose import CONTAINERS, OURS, REQUIRED, USERS, Server, environment_of, redis_of_compose
from tests.patience import PATIENCE, wait_until
from tests.stack import OUTWAIT, Stack, closed, query, until

IN_WORKER_ENV = {
    "OUTWAIT_PROVIDERS__UNLESS__API_KEY": "of-unless",
    "OUTWAIT_WEBHOOKS__SECRETS": "that-signs-webhooks-with-32-characters",
    "OUTWAIT_OUTBOUND__PROXY": "http://me:of-the-proxy@proxy:3128",
    "CRM_TOKEN": "of-a-handler",
}
NO_CREDENTIALS = dict.fromkeys(environment("http://sandbox:8099"), "")
FILES = {".env": REQUIRED, "worker.env": IN_WORKER_ENV, "settings.env": {"OUTWAIT_LOG__LEVEL": "DEBUG"}}


def test_each_container_has_only_the_secrets_that_it_needs() -> None:
    of_redis = {f"REDIS_{user.upper()}_PASSWORD" for user in USERS}
    needed = {
        "redis": of_redis,
        "worker": {"REDIS_WORKER_PASSWORD", *IN_WORKER_ENV},
        "web": {"REDIS_WEB_PASSWORD"},
        "flower": {"REDIS_FLOWER_PASSWORD", "FLOWER_LOGIN"},
        "sandbox": set(),
    }
    secrets = {**REQUIRED, **IN_WORKER_ENV}
    for name, service in CONTAINERS.items():
        assert ".env" not in [file["path"] for file in service.get("env_file", [])], name
        text = "\n".join(environment_of(name, FILES).values())
        assert {secret for secret, value in secrets.items() if value in text} == needed[name], name
    assert all(environment_of(name, FILES)["OUTWAIT_LOG__LEVEL"] == "DEBUG" for name in OURS)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with redis_of_compose(tmp_path_factory.mktemp("redis")) as server:
        wait_until(lambda: server.answers, what="Redis answers")
        yield server


def given(server: Server, name: str) -> dict[str, str]:
    """What Compose gives to a service, but for addresses and ports, which are those of the test."""
    shown = environment_of(name, {".env": REQUIRED}).items()
    ours = {key: value for key, value in shown if not key.endswith(("__ADDRESS", "__PORT", "__PUBLIC_URL"))}
    return ours | {"OUTWAIT_REDIS_URL": ours["OUTWAIT_REDIS_URL"].replace("redis:6379", f"127.0.0.1:{server.port}")}


@pytest.fixture(scope="module")
def stack(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The processes of Compose: each is its own user, and web has no credentials of providers."""
    variables = {"OUTWAIT_NAMESPACE": "outwait", "OUTWAIT_INTAKE__QUEUE": "outwait"}
    worker = given(server, "worker")
    folder, options = tmp_path_factory.mktemp("stack"), {"behaviour": {"duration": 0.3}}
    with Stack(worker["OUTWAIT_REDIS_URL"], folder, options=options, variables=variables) as stack:
        stack.web(**NO_CREDENTIALS, **given(server, "web"))
        stack.worker(**worker)
        yield stack


@pytest.fixture
async def web(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with Store.open(stack.settings) as store:
        key = await store.access.create("ada", set(Scope))
    headers = {"Authorization": f"Bearer {key.text}"}
    async with httpx.AsyncClient(base_url=stack.web_url, headers=headers, timeout=PATIENCE) as web:
        yield web


def refusals(server: Server) -> list[str]:
    """What users were refused since the last look, but for the question for `appendfsync`, which may go unanswered."""
    with server.client("admin") as admin:
        log = admin.acl_log()
        admin.acl_log_reset()
    return [f"{entry['username']}: {entry['object']}" for entry in log if entry["object"] != "config|get"]


async def test_a_job_goes_through_web_and_worker_each_with_its_own_user(
    stack: Stack, server: Server, web: httpx.AsyncClient
) -> None:
    made = await web.post("/v1/jobs", json=query("in compose?").model_dump())
    assert made.status_code == 201, made.text
    job = f"/v1/jobs/{made.json()['id']}"
    assert (await web.get(f"{job}?wait=30")).json()["state"] == "succeeded"
    assert "in compose?" in (await web.get(f"{job}/result")).text
    assert (await web.get("/readyz")).status_code == 200
    assert refusals(server) == []


async def test_a_webhook_ends_a_job_though_the_web_process_has_no_credentials(stack: Stack) -> None:
    params = {"contentUri": "https://media.example/compose.mp3", "encoding": "Mpeg", "languageCode": "en-US"}
    request = JobRequest(provider="ringcentral", operation="speech-to-text", params=params)
    async with stack.client() as client:
        enqueued = await client.enqueue(request)
        job = await closed(client, enqueued.job_id)
        told = [entry.detail for entry in await client.timeline(job.id) if entry.event == "webhook"]
    assert (job.state, job.ledger.webhooks, job.ledger.polls) == (JobState.SUCCEEDED, 1, 1)
    assert told
    assert told[0].startswith("Success")


@pytest.mark.parametrize("signed", [False, True])
def test_a_process_without_the_signing_secret_takes_receivers_if_workers_sign_for_them(*, signed: bool) -> None:
    settings = Settings(webhooks=WebhookSettings(signed=signed), _env_file=None)
    request = query(targets=["https://shop.example/hook"])
    with nullcontext() if signed else pytest.raises(InvalidRequest, match="OUTWAIT_WEBHOOKS__SIGNED"):
        Acceptance(build({}), settings).job("one", request)


async def test_flower_shows_rows_and_cancels_only_for_its_login(stack: Stack, server: Server) -> None:
    port = str(free_port())
    stack.start([*OUTWAIT, "flower"], "flower", **NO_CREDENTIALS, **given(server, "flower"), OUTWAIT_FLOWER__PORT=port)
    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as flower,
        stack.client() as client,
    ):
        await until(lambda: _answers(flower), what="Flower answers")
        assert (await flower.get("/api/tasks")).status_code == 401
        flower.auth = httpx.BasicAuth("me", "pass")
        job_id = (await client.enqueue(query('sandbox:{"outcome":"never"}'))).job_id

        async def row() -> bool:
            return job_id in (await flower.get("/api/tasks")).json()

        await until(row, what="the job's row")
        assert (await flower.post(f"/api/task/revoke/{job_id}")).status_code == 200
        await closed(client, job_id)
    assert refusals(server) == []


@pytest.mark.parametrize(
    ("user", "command"),
    [
        *[("web", command) for command in ("LPUSH outwait.submit x", "LPUSH outwait x", "GET celery-task-meta-1")],
        *[("flower", command) for command in ("HGETALL {outwait}:access", "GET {outwait}:s:1", "GET {outwait}:r:1")],
        *[("producer", command) for command in ("HGETALL {outwait}:access", "LPUSH outwait.submit x", "RPOP outwait")],
        *[(user, command) for user in USERS[1:] for command in ("CONFIG GET *", "ACL LIST", "FLUSHALL", "SET other x")],
    ],
)
def test_no_user_can_do_the_work_of_another(server: Server, user: str, command: str) -> None:
    with server.client(user) as client, pytest.raises(NoPermissionError):
        client.execute_command(*command.split())
    refusals(server)


@pytest.mark.parametrize("user", USERS)
def test_a_password_opens_one_user(server: Server, user: str) -> None:
    for other in USERS:
        if other != user:
            with pytest.raises(AuthenticationError):
                server.client(other, password_of=user).ping()
    with pytest.raises(AuthenticationError):  # as the one user that there was
        Redis("127.0.0.1", server.port, password=REQUIRED[f"REDIS_{user.upper()}_PASSWORD"]).ping()


async def _answers(flower: httpx.AsyncClient) -> bool:
    try:
        return (await flower.get("/healthcheck")).status_code == 200
    except httpx.HTTPError:
        return False
