"""What may be ordered of the sandbox: faults, limits, webhooks; and that its ledger tells the truth."""

import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from outwait.sandbox import Behaviour, SandboxOptions, create_app
from outwait.sandbox.credentials import ACCOUNT_ID, API_KEY, CLIENT_ID, CLIENT_SECRET, JWT, USER_EMAIL, WEBSITE_ID
from outwait.sandbox.limits import Limiter
from outwait.sandbox.server import VENDORS
from tests.patience import PATIENCE, until

Client = aiohttp.ClientSession
Start = Callable[..., Awaitable[Client]]
BASIC = {"Authorization": "Basic " + base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()}
UNLESS = {"x-api-key": API_KEY, "x-user-email": USER_EMAIL, "x-account-id": ACCOUNT_ID, "x-website-id": WEBSITE_ID}
QUERY = "/unless/api/v1/ai/async/query"
ANSWER = "/unless/api/v1/ai/async/answer?questionId="
STT = "/ringcentral/ai/audio/v1/async/speech-to-text"


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts sandboxes the way `serve` does (aiohttp's TestServer would cancel a request whose client went away)."""
    async with contextlib.AsyncExitStack() as stack:

        async def begin(**options: Any) -> Client:
            app = create_app(SandboxOptions(**{"behaviour": Behaviour(duration=0), **options}))
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            session = aiohttp.ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}")
            return await stack.enter_async_context(session)

        yield begin


async def ask(client: Client, query: str = "why?", seconds: float = PATIENCE) -> tuple[int, str, bytes]:
    body = {"query": query, "sessionId": "s", "visitorId": "v"}
    limit = aiohttp.ClientTimeout(total=seconds)
    async with client.post(QUERY, json=body, headers=UNLESS, timeout=limit) as got:
        return got.status, got.content_type, await got.read()


async def order(client: Client, **changes: Any) -> None:
    async with client.post("/_control/behaviour", json=changes) as got:
        assert got.status == 200, await got.text()


async def ledger(client: Client) -> Any:
    async with client.get("/_ledger") as got:
        return await got.json()


def marked(*faults: dict[str, Any], **behaviour: Any) -> str:
    return "sandbox:" + json.dumps({**behaviour, "faults": faults})


class TestFaultsOfASubmit:
    @pytest.mark.parametrize(("fault", "jobs"), [("drop", 0), ("drop_after", 1)])
    async def test_dropped_connection(self, start: Start, fault: str, jobs: int) -> None:
        client = await start()
        query = marked({"fault": fault, "on": "submit"})
        with pytest.raises((aiohttp.ServerDisconnectedError, ConnectionResetError)):
            await ask(client, query)
        recorded = (await ledger(client))["jobs"]
        assert len(recorded) == jobs
        assert (await ask(client, query))[0] == 202  # the fault befell one submit only
        account = await ledger(client)
        assert len(account["jobs"]) == jobs + 1
        assert account["totals"]["unless"]["repeated_submits"] == jobs
        assert account["totals"]["unless"]["requests"]["submit"] == 2
        assert [job["answer_fault"] for job in account["jobs"]] == [fault, None][1 - jobs :]

    @pytest.mark.parametrize(("fault", "jobs"), [("error", 0), ("error_after", 1)])
    async def test_error_status(self, start: Start, fault: str, jobs: int) -> None:
        client = await start()
        status, _, body = await ask(client, marked({"fault": fault, "on": "submit", "status": 500}))
        assert (status, set(json.loads(body))) == (500, {"message"})
        assert len((await ledger(client))["jobs"]) == jobs

    @pytest.mark.parametrize(("fault", "jobs"), [("hang", 0), ("hang_after", 1)])
    async def test_no_answer(self, start: Start, fault: str, jobs: int) -> None:
        client = await start()
        with pytest.raises(TimeoutError):
            await ask(client, marked({"fault": fault, "on": "submit"}), seconds=0.3)
        assert len((await ledger(client))["jobs"]) == jobs

        async def let_go() -> bool:
            return bool((await ledger(client))["totals"]["unless"]["in_flight"] == 0)

        await until(let_go)

    @pytest.mark.parametrize(
        ("fault", "status", "kind"),
        [
            ("html", 200, "text/html"),
            ("broken_json", 202, "application/json"),
            ("empty", 202, "application/json"),
            ("content_type", 202, "text/plain"),
        ],
    )
    async def test_garbled_answer(self, start: Start, fault: str, status: int, kind: str) -> None:
        client = await start()
        given = await ask(client, marked({"fault": fault, "on": "submit"}))
        assert given[:2] == (status, kind)
        if fault == "content_type":
            assert "questionId" in json.loads(given[2])
        else:
            with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
                json.loads(given[2])
        assert len((await ledger(client))["jobs"]) == 1

    async def test_byte_order_mark(self, start: Start) -> None:
        client = await start()
        status, _, body = await ask(client, marked({"fault": "byte_order_mark", "on": "submit"}))
        assert (status, body[:3]) == (202, b"\xef\xbb\xbf")
        assert "questionId" in json.loads(body[3:])


class TestOrders:
    async def test_times_and_provider(self, start: Start) -> None:
        client = await start()
        await order(client, provider="unless", faults=[{"fault": "error", "on": "submit", "times": 2, "status": 502}])
        assert [(await ask(client, f"q{number}"))[0] for number in range(3)] == [502, 502, 202]
        await order(client, provider="elevateai", faults=[{"fault": "error", "on": "any", "times": None}])
        assert (await ask(client))[0] == 202

    async def test_probability_is_decided_by_the_seed(self, start: Start) -> None:
        async def statuses() -> list[int]:
            client = await start(seed=3)
            await order(client, faults=[{"fault": "error", "on": "submit", "times": None, "probability": 0.5}])
            return [(await ask(client, f"q{number}"))[0] for number in range(20)]

        first = await statuses()
        assert set(first) == {202, 503}
        assert first == await statuses()

    async def test_faults_of_polls_are_the_jobs_own(self, start: Start) -> None:
        client = await start()
        marker = marked({"fault": "error", "on": "poll", "status": 429, "seconds": 7}, result_bytes=100_000)
        question = json.loads((await ask(client, marker))[2])["questionId"]
        other = json.loads((await ask(client))[2])["questionId"]
        async with client.get(ANSWER + other, headers=UNLESS) as got:
            assert got.status == 200
        async with client.get(ANSWER + question, headers=UNLESS) as got:
            assert (got.status, got.headers["Retry-After"]) == (429, "7")
        async with client.get(ANSWER + question, headers=UNLESS) as got:
            assert len(await got.read()) > 100_000
        jobs = {job["id"]: job for job in (await ledger(client))["jobs"]}
        assert jobs[question]["polls"]["count"] == 2
        assert jobs[other]["polls"]["count"] == 1

    async def test_marker_in_a_header(self, start: Start) -> None:
        client = await start()
        body = {"query": "q", "sessionId": "s", "visitorId": "v"}
        for marker, status in (('{"faults": [{"fault": "error", "on": "submit"}]}', 503), ("no JSON", 400)):
            async with client.post(QUERY, json=body, headers={**UNLESS, "X-Sandbox": marker}) as got:
                assert got.status == status

    async def test_token_is_refused_once(self, start: Start) -> None:
        client = await start()
        await order(client, faults=[{"fault": "error", "on": "token", "status": 500}])
        with pytest.raises(KeyError):
            await bearer(client)
        assert await bearer(client)

    async def test_latency(self, start: Start) -> None:
        client = await start(behaviour=Behaviour(latency=0.2))
        begun = time.monotonic()
        await ask(client)
        assert time.monotonic() - begun >= 0.2

    async def test_wrong_order_tells_what_is_allowed(self, start: Start) -> None:
        client = await start()
        for wrong, message in (
            ({"outcome": "perhaps"}, "'success'"),
            ({"provider": "nobody"}, ", ".join(vendor.name for vendor in VENDORS)),
            ({"duraton": 1}, "duraton"),
        ):
            async with client.post("/_control/behaviour", json=wrong) as got:
                assert got.status == 400
                assert message in (await got.json())["error"]

    async def test_reset_forgets_all(self, start: Start) -> None:
        client = await start()
        await order(client, outcome="failure")
        await ask(client)
        async with client.post("/_control/reset") as got:
            assert got.status == 200
        assert await ledger(client) == {"totals": {}, "jobs": []}
        async with client.get("/_control/behaviour") as got:
            assert (await got.json())["unless"]["outcome"] == "success"


class TestLimits:
    def test_penalty_starts_anew_with_each_request(self) -> None:
        limiter = Limiter(2, window=60, penalty=60, restarts=True)
        assert [limiter.wait(now) for now in (0, 1, 2, 50, 109, 169)] == [None, None, 60, 60, 60, None]

    def test_window_slides(self) -> None:
        limiter = Limiter(2, window=10, penalty=5)
        assert [limiter.wait(now) for now in (0, 6, 10.5, 11, 15.5, 16.5)] == [None, None, None, 5, 0.5, None]

    async def test_ringcentral_answers_429_with_its_headers(self, start: Start) -> None:
        before = time.time()
        client = await start(heavy_limit=2, window=3600, penalty=3600)
        headers = await bearer(client)
        answers = []
        for _ in range(4):
            async with client.get("/ringcentral/ai/status/v1/jobs/none", headers=headers) as got:
                answers.append((got.status, got.headers["X-Rate-Limit-Remaining"], got.headers.get("Retry-After")))
        assert answers == [(404, "1", None), (404, "0", None), (429, "0", "3600"), (429, "0", "3600")]
        totals = (await ledger(client))["totals"]["ringcentral"]
        assert (totals["rate_limited"], totals["in_penalty"]) == (2, 1)
        ((arrived, after),) = totals["trespasses"]
        assert before <= arrived <= time.time()
        assert 0 < after <= time.time() - before
        await bearer(client)  # tokens are another group

    async def test_ordered_429_begins_a_penalty(self, start: Start) -> None:
        client = await start()
        await order(client, faults=[{"fault": "rate_limit", "on": "submit", "seconds": 0.3}])
        assert [(await ask(client))[0] for _ in range(2)] == [429, 429]

        async def over() -> bool:
            return (await ask(client))[0] == 202

        await until(over)
        assert len((await ledger(client))["jobs"]) == 1

    async def test_fast_polls_are_counted(self, start: Start) -> None:
        before = time.time()
        client = await start(poll_minimum=3600)
        question = json.loads((await ask(client))[2])["questionId"]
        for _ in range(3):
            async with client.get(ANSWER + question, headers=UNLESS) as got:
                await got.read()
        account = await ledger(client)
        polls = account["jobs"][0]["polls"]
        assert (polls["count"], polls["too_fast"], account["totals"]["unless"]["polls_too_fast"]) == (3, 2, 2)
        assert 0 < polls["shortest_interval"] <= time.time() - before


async def bearer(client: Client) -> dict[str, str]:
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": JWT}
    async with client.post("/ringcentral/restapi/oauth/token", data=form, headers=BASIC) as got:
        return {"Authorization": f"Bearer {(await got.json())['access_token']}"}


class Receiver:
    """Receives webhooks; answers with these statuses in turn, then with 200."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.got: list[dict[str, Any]] = []
        app = web.Application()
        app.router.add_post("/hook/{token}", self.receive)
        self.server = TestServer(app)

    async def receive(self, request: web.Request) -> web.Response:
        self.got.append({"token": request.match_info["token"], "at": time.monotonic(), **await request.json()})
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200)

    async def count(self, number: int) -> None:
        async def look() -> bool:
            return len(self.got) >= number

        await until(look)


class TestWebhooks:
    @pytest.fixture
    async def receiver(self) -> AsyncIterator[Receiver]:
        receiver = Receiver()
        await receiver.server.start_server()
        yield receiver
        await receiver.server.close()

    async def submit(self, client: Client, receiver: Receiver, **behaviour: Any) -> str:
        await order(client, jitter=0, **{"duration": 0.1, **behaviour})
        query = {"webhook": str(receiver.server.make_url("/hook/secret-1"))}
        body = {"contentUri": "https://x/a.mp3", "encoding": "Mpeg"}
        async with client.post(STT, params=query, json=body, headers=await bearer(client)) as got:
            assert got.status == 202
            return str((await got.json())["jobId"])

    async def test_envelope_comes_on_time(self, start: Start, receiver: Receiver) -> None:
        client = await start()
        job = await self.submit(client, receiver)
        await receiver.count(1)
        [got] = receiver.got
        assert (got["jobId"], got["status"], got["token"]) == (job, "Success", "secret-1")
        assert set(got) >= {"api", "creationTime", "completionTime", "expirationTime", "response"}

    async def test_bare_failure(self, start: Start, receiver: Receiver) -> None:
        client = await start()
        await self.submit(client, receiver, webhook_shape="bare", outcome="failure")
        await receiver.count(1)
        assert set(receiver.got[0]) == {"token", "at", "status", "response"}
        assert receiver.got[0]["response"]["errors"][0]["errorCode"] == "CAI-101"

    async def test_early_comes_before_the_answer(self, start: Start, receiver: Receiver) -> None:
        client = await start()
        await self.submit(client, receiver, webhook="early", duration=60)
        assert [got["status"] for got in receiver.got] == ["Success"]

    async def test_late_comes_after_the_end(self, start: Start, receiver: Receiver) -> None:
        client = await start()
        begun = time.monotonic()
        await self.submit(client, receiver, webhook="late", webhook_delay=0.3)
        await receiver.count(1)
        assert receiver.got[0]["at"] - begun >= 0.4

    async def test_twice_and_never(self, start: Start, receiver: Receiver) -> None:
        client = await start()
        await self.submit(client, receiver, webhook="never", duration=0)
        await self.submit(client, receiver, webhook="twice")
        await receiver.count(2)
        assert len({got["jobId"] for got in receiver.got}) == 1

    async def test_any_answer_but_200_is_redelivered(self, start: Start, receiver: Receiver) -> None:
        client = await start(webhook_backoff=0.02)
        receiver.statuses = [204, 500]
        await self.submit(client, receiver)
        await receiver.count(3)

        async def noted() -> Any:
            account = await ledger(client)
            answers = [sent["answer"] for sent in account["jobs"][0]["webhooks"]]
            return account["totals"]["ringcentral"] if answers == [204, 500, 200] else None

        totals = await until(noted)
        assert (totals["webhooks_sent"], totals["webhooks_acknowledged"]) == (3, 1)

    async def test_redeliveries_end(self, start: Start, receiver: Receiver) -> None:
        client = await start(webhook_backoff=0.005)
        receiver.statuses = [503] * 10
        await self.submit(client, receiver, duration=0)

        async def given_up() -> bool:
            return [sent["answer"] for sent in (await ledger(client))["jobs"][0]["webhooks"]] == [503] * 6

        await until(given_up)
