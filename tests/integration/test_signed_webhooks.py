"""Signed webhooks to receivers on this machine: what is sent, what each answer means, and what is never asked."""

import asyncio
import email.utils
import json
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks
import svix.webhooks
from aiohttp import ClientConnectorError, ClientSession, web
from aiohttp.test_utils import TestServer, unused_port

from outwait import DeliveryFailed, DeliveryRefused, Envelope
from outwait.config.errors import ConfigError
from outwait.config.groups import HandlerSettings, Route
from outwait.config.http_groups import WebhookSettings
from outwait.tasks.handlers.delivery import Handlers
from outwait.tasks.handlers.signed_webhooks import Webhooks
from outwait.worker.model.errors import InvalidRequest
from outwait.worker.model.jobs import DeliveryState, JobState
from outwait.worker.model.targets import WebhookTarget
from outwait.worker.net import signatures
from outwait.worker.net.http import Http
from outwait.worker.net.outbound import Guard
from outwait.worker.store.connection import Connection
from outwait.worker.store.receivers import Receivers
from tests import tls
from tests.destinations import ANYWHERE
from tests.patience import PATIENCE
from tests.stack import ROOT, Stack, closed, query, until

OLD, NEW = "old-master-secret-with-32-characters", "new-master-secret-with-32-characters"
LOOPBACK = Guard(["127.0.0.1"])
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Receiver:
    """A service that takes webhooks, as its owner would write it."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.at: list[float] = []
        self.answers: list[Answer] = []
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", self._take)
        self.server = TestServer(app)

    def url(self, path: str = "hook") -> str:
        return str(self.server.make_url(path))

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.got]

    def verified(self, master: str, number: int = 0) -> Any:
        """What one webhook says, once two verifiers that no one here wrote have accepted it."""
        headers, body = self.got[number]
        secret = signatures.secret(master, self.url())
        svix.webhooks.Webhook(secret).verify(body, headers)
        return standardwebhooks.Webhook(secret).verify(body, headers)

    async def _take(self, request: web.Request) -> web.StreamResponse:
        self.at.append(time.monotonic())
        self.got.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        return await (self.answers.pop(0) if self.answers else taken)(request)


async def taken(_request: web.Request) -> web.Response:
    return web.Response(text="thanks")


def says(status: int, text: str = "", **headers: str) -> Answer:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=status, text=text, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    await receiver.server.start_server(shutdown_timeout=0.1)
    yield receiver
    await receiver.server.close()


@pytest.fixture
async def send(connection: Connection) -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """Sends one delivery as a worker does."""
    opened: list[Http] = []

    async def deliver(url: str, *, result: Any = None, guard: Guard = LOOPBACK, **settings: Any) -> str:
        settings = {"secrets": [NEW], "time_limit": PATIENCE, **settings}
        http = Http(body_max=1000, guard=guard)
        opened.append(http)
        webhooks = Webhooks(WebhookSettings(**settings), guard, http, Receivers(connection))
        return await webhooks.deliver(WebhookTarget(url), envelope(result))

    yield deliver
    for http in opened:
        await http.close()


def envelope(result: Any = None) -> Envelope:
    return Envelope(
        delivery_id="job-1#1",
        job_id="job-1",
        provider="unless",
        operation="query",
        state=JobState.SUCCEEDED,
        created=1.0,
        result=result,
    )


Send = Callable[..., Awaitable[str]]


async def test_two_verifiers_accept_what_is_sent(receiver: Receiver, send: Send) -> None:
    sent = {"text": "€" * 100_000}
    assert (await send(receiver.url() + "?order=7", result=sent)).startswith("200 in ")
    received = receiver.verified(NEW)
    assert (received["delivery_id"], received["result"], received["version"]) == ("job-1#1", sent, 1)
    headers, body = receiver.got[0]
    assert (headers["content-type"], headers["webhook-id"], body) == (
        "application/json",
        "job-1#1",
        envelope(sent).json(),
    )


async def test_while_secrets_rotate_a_receiver_may_hold_either(receiver: Receiver, send: Send) -> None:
    await send(receiver.url(), secrets=[NEW, OLD])
    receiver.verified(NEW)
    receiver.verified(OLD)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        receiver.verified("another-master-secret-with-32-characters")


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_2xx_is_delivered(receiver: Receiver, send: Send, status: int) -> None:
    receiver.answers = [says(status)]
    assert (await send(receiver.url())).startswith(f"{status} in ")


@pytest.mark.parametrize("status", [400, 401, 404, 409, 429, 500, 503])
async def test_another_status_is_tried_again(receiver: Receiver, send: Send, status: int) -> None:
    receiver.answers = [says(status, "not now", retry_after="70")]
    with pytest.raises(DeliveryFailed, match=rf"^127\.0\.0\.1 answered {status} in \d+\.\d\d s: not now$") as failed:
        await send(receiver.url())
    assert failed.value.retry_after == 70


async def test_retry_after_may_be_a_date(receiver: Receiver, send: Send) -> None:
    receiver.answers = [says(503, retry_after=email.utils.formatdate(time.time() + 3600, usegmt=True))]
    with pytest.raises(DeliveryFailed) as failed:
        await send(receiver.url())
    assert failed.value.retry_after is not None
    assert 3600 - PATIENCE < failed.value.retry_after <= 3601


async def test_redirects_are_not_followed(receiver: Receiver, send: Send) -> None:
    receiver.answers = [says(307, location=receiver.url("elsewhere"))]
    with pytest.raises(DeliveryFailed, match=r"answered 307.*redirects are not followed"):
        await send(receiver.url())
    assert len(receiver.got) == 1


async def test_what_an_answer_says_is_kept_short_and_without_secrets(receiver: Receiver, send: Send) -> None:
    secret = "password=hunter2 https://a.example/path?token=canary-xyz\n\x1b[31m\u202e " + "x" * 500
    receiver.answers = [says(200, secret)]
    answer = await send(receiver.url())
    assert "hunter2" not in answer
    assert "canary-xyz" not in answer
    assert answer.isascii()
    assert answer.isprintable()
    assert len(answer) < 130


async def test_of_an_endless_answer_little_is_read(receiver: Receiver, send: Send) -> None:
    written = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse(headers={"content-encoding": "identity"})
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)
            written += 65536

    receiver.answers = [endless]
    assert (await send(receiver.url())).startswith("200 in ")
    assert written < 20_000_000  # what sockets hold


async def test_a_receiver_that_says_200_and_hangs_has_it(receiver: Receiver, send: Send) -> None:
    async def hangs(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"got it")
        await asyncio.sleep(10 * PATIENCE)
        return response

    receiver.answers = [hangs]
    assert (await send(receiver.url(), time_limit=10 * PATIENCE)).endswith("s: got it")  # long before its time limit


async def test_a_receiver_that_does_not_answer_in_time(receiver: Receiver, send: Send) -> None:
    async def hangs(_request: web.Request) -> web.Response:
        await asyncio.sleep(10 * PATIENCE)
        return web.Response()

    receiver.answers = [hangs]
    with pytest.raises(DeliveryFailed, match=r"^127\.0\.0\.1 did not answer within 0\.3 s$"):
        await send(receiver.url(), time_limit=0.3)


async def test_few_are_sent_at_once(
    receiver: Receiver, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outwait.tasks.handlers.signed_webhooks.PLACES", 3)
    highest = now = 0

    async def counts(_request: web.Request) -> web.Response:
        nonlocal highest, now
        now += 1
        highest = max(highest, now)
        await asyncio.sleep(0.01)
        now -= 1
        return web.Response()

    receiver.answers = [counts] * 12
    http = Http(body_max=1000, guard=LOOPBACK)
    webhooks = Webhooks(WebhookSettings(secrets=[NEW]), LOOPBACK, http, Receivers(connection))
    await asyncio.gather(*(webhooks.deliver(WebhookTarget(receiver.url()), envelope()) for _ in range(12)))
    await http.close()
    assert highest == 3


async def test_nobody_listens(send: Send) -> None:
    with pytest.raises(DeliveryFailed, match=r"^127\.0\.0\.1 gave no answer: Cannot connect") as failed:
        await send(f"http://127.0.0.1:{unused_port()}/path-secret?token=canary-xyz")
    assert "secret" not in str(failed.value)
    assert "canary-xyz" not in str(failed.value)


@pytest.mark.parametrize(
    "host", ["127.0.0.2", "localhost", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "10.0.0.1"]
)
async def test_an_address_that_is_not_public_is_refused(receiver: Receiver, send: Send, host: str) -> None:
    url = receiver.url().replace("127.0.0.1", host).replace("http:", "https:")
    with pytest.raises(DeliveryRefused, match=r"no public address; .* OUTWAIT_OUTBOUND__ALLOW"):
        await send(url, guard=Guard(["10.1.0.0/16"]))
    assert not receiver.got


async def test_plain_http_is_for_hosts_that_the_operator_allows(receiver: Receiver, send: Send) -> None:
    with pytest.raises(DeliveryRefused, match="must begin with https://, unless OUTWAIT_OUTBOUND__ALLOW"):
        await send(receiver.url(), guard=Guard())
    await send(receiver.url().replace("127.0.0.1", "localhost"), guard=Guard(["localhost"]))
    assert len(receiver.got) == 1


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return tls.certificate(tmp_path_factory.mktemp("tls"))


async def test_over_https_the_receiver_s_certificate_is_checked(
    connection: Connection, certificate: tuple[Path, Path]
) -> None:
    receiver, chain = Receiver(), certificate[0]
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(*certificate)
    await receiver.server.start_server(ssl=served, shutdown_timeout=0.1)
    trusting, doubting = (
        Http(body_max=1000, guard=LOOPBACK, verify=context)
        for context in (ssl.create_default_context(cafile=str(chain)), None)
    )
    target, settings = WebhookTarget(receiver.url()), WebhookSettings(secrets=[NEW])
    try:
        assert target.encrypted
        answer = await Webhooks(settings, Guard(), trusting, Receivers(connection)).deliver(target, envelope())
        assert answer.endswith("s: thanks")
        receiver.verified(NEW)
        with pytest.raises(DeliveryFailed, match="certificate verify failed"):
            await Webhooks(settings, Guard(), doubting, Receivers(connection)).deliver(target, envelope())
    finally:
        for http in (trusting, doubting):
            await http.close()
        await receiver.server.close()


@pytest.mark.parametrize(
    ("target", "secrets", "message"),
    [
        ("https://shop.example/hook", [], "OUTWAIT_WEBHOOKS__SECRETS"),
        ("http://shop.example/hook", [NEW], "OUTWAIT_OUTBOUND__ALLOW"),
    ],
)
def test_a_route_that_nothing_could_be_sent_along_ends_the_worker_at_start(
    target: str, secrets: list[str], message: str
) -> None:
    webhooks = Webhooks(WebhookSettings(secrets=secrets), Guard(), None, None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=f"OUTWAIT_HANDLERS__ROUTES: .*{message}"):
        Handlers(HandlerSettings(routes=[Route(targets=[target])]), None, None, webhooks, destinations=ANYWHERE)  # type: ignore[arg-type]


async def test_without_a_secret_nothing_is_sent(receiver: Receiver, send: Send) -> None:
    with pytest.raises(DeliveryRefused, match="OUTWAIT_WEBHOOKS__SECRETS"):
        await send(receiver.url(), secrets=[])
    assert not receiver.got


@pytest.fixture(scope="module")
def stack(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    variables = {
        "OUTWAIT_WEBHOOKS__SECRETS": f"{NEW},{OLD}",
        "OUTWAIT_WEBHOOKS__SCHEDULE": "0.1,0.1",
        "OUTWAIT_OUTBOUND__ALLOW": "127.0.0.1",
    }
    folder = tmp_path_factory.mktemp("webhooks-out")
    with Stack(redis_url, folder, options={"behaviour": {"duration": 0.1}}, variables=variables) as running:
        running.worker()
        yield running


async def story(stack: Stack, job_id: str) -> list[str]:
    async with stack.client() as client:
        return [f"{entry.event} {entry.detail}" for entry in await client.timeline(job_id)]


async def test_a_result_reaches_its_receiver_and_a_replay_has_the_same_id(stack: Stack, receiver: Receiver) -> None:
    receiver.answers = [says(503, "busy", retry_after="1"), taken]
    target = receiver.url() + "?token=canary-xyz"
    async with stack.client() as client:
        job_id = (await client.enqueue(query(targets=[target], metadata={"order": 7}))).job_id
        await closed(client, job_id)
        assert await client.replay(job_id, target) == 1

        async def again() -> bool:
            return len(receiver.got) == 3

        await until(again)
        await closed(client, job_id)
        assert await client.result(job_id) == receiver.verified(NEW, 2)["result"]
    assert receiver.ids == [f"{job_id}#1"] * 3
    assert [receiver.verified(OLD, number)["attempt"] for number in range(3)] == [1, 2, 1]
    assert receiver.at[1] - receiver.at[0] >= 1  # as it asked
    lines = await story(stack, job_id)
    host = receiver.url("/")
    assert any(line.startswith(f"delivery-retry {host}… ") and "answered 503" in line for line in lines)
    assert sum(line.startswith(f"delivered {host}… 200 in ") and line.endswith("s: thanks") for line in lines) == 2
    assert "canary-xyz" not in "".join(lines) + stack.logs()


async def test_after_its_schedule_a_delivery_is_dead(stack: Stack, receiver: Receiver) -> None:
    receiver.answers = [says(500)] * 9
    async with stack.client() as client:
        job_id = (await client.enqueue(query(targets=[receiver.url()]))).job_id
        await closed(client, job_id)
        (delivery,) = await client.deliveries(job_id)
    assert delivery.state is DeliveryState.DEAD
    assert len(receiver.got) == 3


async def test_gone_disables_a_receiver_until_a_person_enables_it(stack: Stack, receiver: Receiver) -> None:
    receiver.answers = [says(410, "moved away")]
    first, second = receiver.url() + "?a=1", receiver.url() + "?a=2"
    async with stack.client() as client:
        for target in (first, second):
            job_id = (await client.enqueue(query(targets=[target]))).job_id
            await closed(client, job_id)
            (delivery,) = await client.deliveries(job_id)
            assert delivery.error is not None
            assert "410" in delivery.error.message
            assert "outwait endpoints --enable" in delivery.error.message
        assert len(receiver.got) == 1
        (shown,) = json.loads(outwait(stack, "endpoints", "--json"))["disabled"]
        assert (shown["url"], "moved away" in shown["why"]) == (receiver.url(), True)
        assert json.loads(outwait(stack, "endpoints", "--enable", second, "--json"))["was_disabled"] is True
        assert json.loads(outwait(stack, "endpoints", "--json")) == {"disabled": []}
        assert await client.replay(job_id) == 1
        await closed(client, job_id)
        (delivery,) = await client.deliveries(job_id)
        assert delivery.state is DeliveryState.DELIVERED


async def test_a_target_that_nothing_could_be_sent_to_is_refused_when_it_is_named(stack: Stack) -> None:
    async with stack.client() as client:
        with pytest.raises(InvalidRequest, match="must begin with https://"):
            await client.enqueue(query(targets=["http://example.com/hook"]))
        job_id = (await client.enqueue(query(targets=["https://127.0.0.2/hook"]))).job_id
        await closed(client, job_id)
        (delivery,) = await client.deliveries(job_id)
    assert delivery.state is DeliveryState.DEAD
    assert delivery.error is not None
    assert "no public address" in delivery.error.message


async def test_the_example_receives(stack: Stack) -> None:
    url = f"http://127.0.0.1:{unused_port()}/hook"
    secret = outwait(stack, "webhook-secret", url)
    command = [sys.executable, str(ROOT / "examples" / "receiver.py"), url.split(":")[2].partition("/")[0]]
    stack.start(command, "receiver", WEBHOOK_SECRET=secret)

    async def refused() -> bool:
        try:
            async with ClientSession() as session, session.post(url, data=b"{}") as answer:
                return answer.status == 401
        except ClientConnectorError:
            return False

    await until(refused)
    async with stack.client() as client:
        job_id = (await client.enqueue(query(targets=[url]))).job_id
        await closed(client, job_id)
        (delivery,) = await client.deliveries(job_id)
    assert delivery.state is DeliveryState.DELIVERED
    assert f"{job_id} succeeded" in stack.logs("receiver")


def test_a_receiver_s_secrets_are_printed(stack: Stack) -> None:
    url = "https://Shop.example:443/hook?a=1"
    expected = [signatures.secret(master, "https://shop.example/hook") for master in (NEW, OLD)]
    assert outwait(stack, "webhook-secret", url).split() == expected
    assert json.loads(outwait(stack, "webhook-secret", url, "--json"))["secrets"] == expected


def outwait(stack: Stack, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "outwait", *words], env=stack.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
