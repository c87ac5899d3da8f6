"""A tenant names another tenant's receiver or handler as a target, and the other's results stay genuine and go on.

In release 0.2.0 such a result was signed with the other's secret and said nowhere whose it was, and one answer of 410
to it ended all deliveries to that receiver.
"""

import base64
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import standardwebhooks
from aiohttp import web
from aiohttp.test_utils import TestServer
from redis.asyncio import Redis

from outwait.client.store import StoreClient
from outwait.worker.model.errors import InvalidRequest, JobNotFound
from outwait.worker.model.jobs import Delivery, DeliveryState, JobState
from outwait.worker.model.targets import Target
from outwait.worker.net import signatures
from outwait.worker.store.access import Scope
from outwait.worker.store.connection import Connection
from outwait.worker.store.receivers import LIMIT, DisabledReceiver, Receivers
from outwait.worker.store.store import Store
from tests import forked
from tests.stack import ROOT, Stack, closed, query, until

ACME, MALLORY = "acme", "mallory"
ATTEMPTS = 3
MASTER = "a-master-secret-with-32-characters"
HANDLERS = """
import json
from outwait import Envelope, handler

def kept(envelope: Envelope, name: str) -> None:
    with open({folder!r} + "/" + name, "a") as file:
        file.write(json.dumps([envelope.job_id, envelope.tenant]) + "\\n")

@handler("crm")
def crm(envelope: Envelope) -> None: kept(envelope, "crm")

@handler("archive")
def archive(envelope: Envelope) -> None: kept(envelope, "archive")
"""
TENANTS = {
    "crm": [ACME],
    "file:acme/*": [ACME],
    "https://acme.example/*": [ACME],
    "stream://outwait-stream:acme": [ACME],
}


class Service:
    """A tenant's receiver as its owner would write it: it keeps what its secrets verify, and refuses the rest."""

    def __init__(self, *secrets: str) -> None:
        self.secrets = secrets
        self.kept: list[tuple[dict[str, str], Any]] = []
        self.refused = 0
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/{path:.*}", self._take)
        self.server = TestServer(app)

    @property
    def url(self) -> str:
        return str(self.server.make_url("/hook"))

    @property
    def tenants(self) -> list[str | None]:
        return [envelope["tenant"] for _, envelope in self.kept]

    async def _take(self, request: web.Request) -> web.Response:
        if "order" in request.query:  # no such order: it is gone
            return web.Response(status=410)
        body, headers = await request.read(), {name.lower(): value for name, value in request.headers.items()}
        for secret in self.secrets:
            try:
                self.kept.append((headers, standardwebhooks.Webhook(secret).verify(body, headers)))
            except standardwebhooks.WebhookVerificationError:
                continue
            return web.Response(status=204)
        self.refused += 1
        return web.Response(status=401)


@pytest.fixture(scope="module")
def stack(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("receivers")
    (folder / "users_handlers.py").write_text(HANDLERS.format(folder=str(folder)))
    variables = {
        "OUTWAIT_WEBHOOKS__SECRETS": MASTER,
        "OUTWAIT_WEBHOOKS__SCHEDULE": "0.1,0.1",
        "OUTWAIT_WEBHOOKS__SHARED": "http://127.0.0.1:*/shared",
        "OUTWAIT_OUTBOUND__ALLOW": "127.0.0.1",
        "OUTWAIT_WEB__TARGETS": "[a-z]*,http://127.0.0.1:*,https://*,file:*",
        "OUTWAIT_HANDLERS__MODULES": "users_handlers",
        "OUTWAIT_HANDLERS__TENANTS": json.dumps(TENANTS),
        "OUTWAIT_HANDLERS__ROUTES": json.dumps([{"operation": "query", "targets": ["crm", "archive"]}]),
    }
    with Stack(redis_url, folder, options={"behaviour": {"duration": 0}}, variables=variables) as stack:
        stack.worker()
        stack.web()
        yield stack


@pytest.fixture
async def service(stack: Stack) -> AsyncIterator[Service]:
    """The receiver of acme: it has only the secret that the operator gave to acme."""
    service = Service()
    await service.server.start_server(shutdown_timeout=0.1)
    service.secrets = (secret_of(stack, service.url, ACME),)
    yield service
    await service.server.close()


def secret_of(stack: Stack, url: str, tenant: str) -> str:
    """What the operator gives to the owner of a receiver."""
    shown = stack.run("webhook-secret", url, "--tenant", tenant)
    assert shown.returncode == 0, shown.stderr
    return shown.stdout.strip()


async def api(stack: Stack, tenant: str) -> httpx.AsyncClient:
    """The HTTP API with a tenant's own key."""
    async with Store.open(stack.settings) as store:
        key = (await store.access.create(tenant, [Scope.ENQUEUE, Scope.READ], tenant)).text
    return httpx.AsyncClient(base_url=stack.web_url, headers={"Authorization": f"Bearer {key}"})


async def posted(stack: Stack, client: StoreClient, tenant: str, target: str) -> Delivery:
    """What became of the delivery of a job that a tenant posted."""
    async with await api(stack, tenant) as web:
        answer = await web.post("/v1/jobs", json=query(targets=[target]).model_dump(exclude_unset=True))
        assert answer.status_code == 201, answer.text
    assert (await closed(client, answer.json()["id"])).tenant == tenant
    (delivery,) = await client.deliveries(answer.json()["id"])
    return delivery


async def test_another_tenant_s_result_does_not_verify_under_mine(stack: Stack, service: Service) -> None:
    """Protected by worker/net/signatures.py `_key`, and by `tenant` in the envelope and in the headers."""
    async with stack.client() as client:
        assert (await posted(stack, client, ACME, service.url)).state is DeliveryState.DELIVERED
        stolen = await posted(stack, client, MALLORY, service.url)
        assert (await posted(stack, client, ACME, service.url + "?a=1")).state is DeliveryState.DELIVERED
    assert service.tenants == [ACME, ACME]
    assert [headers["outwait-tenant"] for headers, _ in service.kept] == [ACME, ACME]
    assert (stolen.state, service.refused) == (DeliveryState.DEAD, ATTEMPTS)
    service.secrets = (secret_of(stack, service.url, MALLORY),)
    async with stack.client() as client:
        await posted(stack, client, MALLORY, service.url)
    assert service.tenants[2:] == [MALLORY]  # whoever believes it learns whose it is


async def test_an_answer_of_410_to_one_tenant_ends_nothing_of_another_s(stack: Stack, service: Service) -> None:
    """Protected by worker/store/receivers.py `_field`."""
    async with stack.client() as client:
        gone = await posted(stack, client, MALLORY, service.url + "?order=none")
        states = [(await posted(stack, client, ACME, service.url)).state for _ in range(3)]
        job_id = (await client.enqueue(query(targets=[service.url]))).job_id
        await closed(client, job_id)
        again = await posted(stack, client, MALLORY, service.url)
    assert states == [DeliveryState.DELIVERED] * 3
    assert gone.error
    assert "410" in gone.error.message
    assert f"outwait endpoints --enable URL --tenant {MALLORY}" in gone.error.message
    assert again.error
    assert "disabled" in again.error.message
    assert service.refused == ATTEMPTS  # the job without a tenant was sent too, and is not acme's
    (shown,) = json.loads(stack.run("endpoints", "--json").stdout)["disabled"]
    assert (shown["url"], shown["tenant"]) == (service.url, MALLORY)
    assert MALLORY in stack.run("endpoints").stdout
    enabled = stack.run("endpoints", "--enable", service.url, "--json").stdout
    assert json.loads(enabled)["was_disabled"] is False
    enabled = stack.run("endpoints", "--enable", service.url, "--tenant", MALLORY, "--json").stdout
    assert json.loads(enabled)["was_disabled"] is True
    assert json.loads(stack.run("endpoints", "--json").stdout) == {"disabled": []}


async def test_without_tenants_nothing_has_changed(stack: Stack, service: Service) -> None:
    """Nobody has to rotate a secret, and a receiver that an earlier release disabled stays so."""
    service.secrets = (signatures.secret(MASTER, service.url),)
    assert stack.run("webhook-secret", service.url).stdout.strip() == service.secrets[0]
    async with stack.client() as client, Store.open(stack.settings) as store:

        async def sent() -> DeliveryState:
            job_id = (await client.enqueue(query(targets=[service.url]))).job_id
            await closed(client, job_id)
            (delivery,) = await client.deliveries(job_id)
            return delivery.state

        assert await sent() is DeliveryState.DELIVERED
        assert service.tenants == [None]
        assert "outwait-tenant" not in service.kept[0][0]
        key = store.connection.keys("ENDPOINTS")
        row = json.dumps({"url": service.url, "since": 1.0, "why": "410"})
        await store.connection.redis.hset(key, service.url, row)
        assert await sent() is DeliveryState.DEAD
        assert await client.disabled_receivers() == [DisabledReceiver(service.url, 1.0, "410")]
        assert len(service.kept) == 1
        assert json.loads(stack.run("endpoints", "--enable", service.url, "--json").stdout)["was_disabled"] is True
        assert await sent() is DeliveryState.DELIVERED


async def test_a_receiver_of_all_tenants_has_one_secret_by_the_operator_s_word(stack: Stack, service: Service) -> None:
    """Each webhook carries the tenant's signature too, so that its receiver can change to it."""
    shared = service.url.replace("/hook", "/shared")
    async with stack.client() as client:
        for secret in (signatures.secret(MASTER, shared), secret_of(stack, shared, MALLORY)):
            service.secrets = (secret,)
            assert (await posted(stack, client, MALLORY, shared)).state is DeliveryState.DELIVERED
        service.secrets = (secret_of(stack, shared, ACME),)
        assert (await posted(stack, client, MALLORY, shared)).state is DeliveryState.DEAD
    assert service.tenants == [MALLORY, MALLORY]


async def test_each_kind_of_handler_learns_the_tenant(stack: Stack, redis_url: str) -> None:
    """Protected by tasks/deliver.py `_envelope`."""
    name = uuid4().hex
    stream, queue = f"outwait-stream:{name}", f"outwait-queue:{name}"
    targets = [f"file:{name}.jsonl", f"stream://{stream}", f"celery://crm.store?queue={queue}", "archive"]
    async with stack.client() as client, Redis.from_url(redis_url) as redis:
        job_id = (await client.enqueue(query(targets=targets, tenant=ACME))).job_id
        await closed(client, job_id)
        ((_, entry),) = await redis.xrange(stream)
        (message,) = await redis.lrange(queue, 0, -1)
        await redis.delete(stream, queue)
    ((envelope,), _, _) = json.loads(base64.b64decode(json.loads(message)["body"]))
    assert (envelope["tenant"], json.loads(message)["headers"]["outwait-tenant"]) == (ACME, ACME)
    assert (json.loads(entry[b"envelope"])["tenant"], entry[b"tenant"]) == (ACME, ACME.encode())
    assert json.loads((Path(stack.settings.handlers.folder) / f"{name}.jsonl").read_text())["tenant"] == ACME
    assert [job_id, ACME] in handled(stack, "archive")


def handled(stack: Stack, name: str) -> list[list[str]]:
    """The job and the tenant of each delivery that a handler function got."""
    file = stack.folder / name
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


ACMES = ("crm", "file:acme/calls.jsonl", "https://acme.example/hook?x=1")
"""Targets that the operator gave to acme alone."""


@pytest.mark.parametrize("tenant", [MALLORY, None])
async def test_another_tenant_s_handlers_are_refused_in_every_way_in(
    stack: Stack, redis_url: str, tenant: str | None
) -> None:
    """Protected by worker/engine/acceptance.py, which each way to enqueue asks, and tasks/callback.py for routes."""
    async with stack.client() as client, Redis.from_url(redis_url) as redis:
        for target in (*ACMES, "stream://outwait-stream:acme?maxlen=1"):
            with pytest.raises(InvalidRequest, match=r"is not for jobs .* OUTWAIT_HANDLERS__TENANTS"):
                await client.enqueue(query(targets=[target], tenant=tenant))
        request = query(targets=["crm", "archive"], tenant=tenant).model_dump(exclude_unset=True)
        job_id = await sent(stack, redis, request)
        await until(lambda: known(client, job_id), what="the message is taken in")
        job = await closed(client, job_id)
        assert job.error
        assert (job.state, job.error.code, job.tenant) == (JobState.FAILED, "invalid_request", tenant)
        assert [each.target for each in await client.deliveries(job_id)] == ["archive"]
        assert [job_id, tenant] in handled(stack, "archive")
        routed = (await client.enqueue(query(tenant=tenant))).job_id
        await closed(client, routed)
        assert [each.target for each in await client.deliveries(routed)] == ["archive"]
    for target in ACMES:
        words = ("submit", "unless", "query", "-p", "query=x", "-p", "sessionId=s", "-p", "visitorId=v")
        typed = stack.run(*words, "--target", target, *(("--tenant", tenant) if tenant else ()))
        assert (typed.returncode, "OUTWAIT_HANDLERS__TENANTS" in typed.stderr) == (3, True)
        file = stack.folder / "jobs.jsonl"
        file.write_text(json.dumps(query(targets=[target], tenant=tenant).model_dump(exclude_unset=True)) + "\n")
        listed = stack.run("submit", str(file))
        assert (listed.returncode, "OUTWAIT_HANDLERS__TENANTS" in listed.stdout + listed.stderr) == (3, True)
    assert not [job for job, whose in handled(stack, "crm") if whose != ACME]


async def test_over_http_too_and_a_tenant_s_own_handlers_get_its_results(stack: Stack) -> None:
    async with await api(stack, MALLORY) as web:
        for target in ACMES:
            request = query(targets=[target]).model_dump(exclude_unset=True)
            one = await web.post("/v1/jobs", json=request)
            batch = await web.post("/v1/jobs", json={"jobs": [request]})
            assert (one.status_code, one.json()["code"]) == (422, "invalid_request")
            assert "OUTWAIT_HANDLERS__TENANTS" in one.json()["detail"]
            assert [item["status"] for item in batch.json()["jobs"]] == [422]
    async with stack.client() as client:
        for target in ACMES[:2]:
            assert (await posted(stack, client, ACME, target)).state is DeliveryState.DELIVERED
        routed = (await client.enqueue(query(tenant=ACME))).job_id
        await closed(client, routed)
        assert [each.target for each in await client.deliveries(routed)] == ["crm", "archive"]


async def test_a_refusal_is_its_tenant_s_too(stack: Stack, service: Service, redis_url: str) -> None:
    """Protected by worker/engine/acceptance.py `refused` and worker/engine/intake.py `_conflict`."""
    service.secrets = (*service.secrets, signatures.secret(MASTER, service.url))
    asked = query(targets=[service.url], idempotency_key=uuid4().hex, tenant=MALLORY).model_dump(exclude_unset=True)
    other = asked | {"metadata": {"order": 7}}
    wrong = [asked | {"provider": "none"}, asked | {"tenant": "no tenant"}, asked | {"tenant": ["acme"]}]
    async with stack.client() as client, Redis.from_url(redis_url) as redis:
        ids = [await sent(stack, redis, request) for request in (asked, other, *wrong)]
        jobs = []
        for job_id in ids:
            await until(lambda job_id=job_id: known(client, job_id), what="the message is taken in")
            jobs.append(await closed(client, job_id))
        targets = [[each.target for each in await client.deliveries(job_id)] for job_id in ids]
    assert [job.tenant for job in jobs] == [MALLORY, MALLORY, MALLORY, None, None]
    assert [job.error.code if job.error else "" for job in jobs] == ["", "conflict", *["invalid_request"] * 3]
    assert [service.url in names for names in targets] == [True, False, True, False, False]
    assert service.kept == []


async def test_a_tenant_cannot_fill_the_list_of_receivers(connection: Connection) -> None:
    """Protected by worker/store/receivers.py `LIMIT`: whoever answers 410 under a thousand names."""
    receivers = Receivers(connection)
    for number in range(LIMIT + 5):
        await receivers.disable(f"https://mallory.example/{number}", "410", MALLORY)
    assert len(await receivers.all()) == LIMIT
    assert await receivers.enable("https://mallory.example/7", MALLORY)
    await receivers.disable("https://acme.example/hook", "410", ACME)
    assert (await receivers.all())[0].tenant == ACME


def test_doctor_tells_that_every_receiver_believes_every_tenant(stack: Stack) -> None:
    def findings(**variables: str) -> list[str]:
        done = forked.run(["outwait", "doctor", "--no-providers", "--json"], ROOT, {**stack.environment, **variables})
        return [
            finding["message"] for finding in json.loads(done.stdout) if finding["subject"] == "secrets of webhooks"
        ]

    assert findings() == []
    (message,) = findings(OUTWAIT_WEBHOOKS__SHARED="https://*,https://crm.example,http://*:*/*")
    assert "has https://*, http://*:*/*:" in message


class Lax:
    """What a release without these rules allows."""

    def refusal(self, _target: Target, _tenant: str | None) -> str:
        return ""


async def test_a_stored_delivery_to_another_tenant_s_handler_is_dead(stack: Stack) -> None:
    """Protected by tasks/handlers/delivery.py: a release without this rule, or other settings, stored it."""
    async with stack.client() as client:
        client._acceptance._owners = Lax()  # type: ignore[assignment]
        job_id = (await client.enqueue(query(targets=["crm", "archive"], tenant=MALLORY))).job_id
        assert (await closed(client, job_id)).state is JobState.SUCCEEDED
        deliveries = {each.target: each for each in await client.deliveries(job_id)}
    assert deliveries["archive"].state is DeliveryState.DELIVERED
    assert deliveries["crm"].state is DeliveryState.DEAD
    assert deliveries["crm"].error
    assert "OUTWAIT_HANDLERS__TENANTS" in deliveries["crm"].error.message


async def sent(stack: Stack, redis: Redis, request: dict[str, Any]) -> str:
    """The id of a job that came in the way that is open to a producer with least rights: `LPUSH` to its queue."""
    job_id = uuid4().hex
    message = {
        "body": base64.b64encode(json.dumps([[], request, {}]).encode()).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"task": "tasks.submit", "id": job_id},
        "properties": {"body_encoding": "base64"},
    }
    await redis.lpush(stack.settings.intake.queue, json.dumps(message))
    return job_id


async def known(client: StoreClient, job_id: str) -> bool:
    try:
        return bool(await client.job(job_id))
    except JobNotFound:
        return False
