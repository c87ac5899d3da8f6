"""The HTTP API as its callers see it: one web process, a worker and the sandbox, over real connections."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from outwait.web import stream
from outwait.web.services import opened
from outwait.worker.local.embedded import EmbeddedRedis
from outwait.worker.store.access import Access, Scope
from outwait.worker.store.connection import Connection
from tests.patience import PATIENCE
from tests.refusing import NAMES
from tests.stack import Stack, until

REFUSING, ALSO_REFUSING, *_ = NAMES

ALL = tuple(Scope)
BODY_MAX = 300_000


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """A server of its own: one test restarts it."""
    with EmbeddedRedis(tmp_path_factory.mktemp("own")) as server:
        yield server


@pytest.fixture(scope="module")
def stack(redis: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    variables = {
        "OUTWAIT_WEB__CORS_ORIGINS": "https://shop.example",
        "OUTWAIT_WEB__BODY_MAX": str(BODY_MAX),
        "OUTWAIT_HANDLERS__MODULES": "tests.refusing",
    }
    folder = tmp_path_factory.mktemp("api")
    with Stack(redis.url, folder, options={"behaviour": {"duration": 0.3}}, variables=variables) as running:
        running.web()
        running.worker()
        yield running


async def key(stack: Stack, *scopes: Scope, tenant: str | None = None) -> str:
    connection = Connection(stack.settings)
    made = await Access(connection).create("test", scopes or ALL, tenant)
    await connection.close()
    return made.text


async def caller(stack: Stack, *scopes: Scope, tenant: str | None = None) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {await key(stack, *scopes, tenant=tenant)}"}
    return httpx.AsyncClient(base_url=stack.web_url, headers=headers, timeout=PATIENCE)


@pytest.fixture
async def api(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with await caller(stack) as client:
        yield client


def question(text: str = "why?", **fields: Any) -> dict[str, Any]:
    params = {"query": text, "sessionId": "s-1", "visitorId": "v-1"}
    return {"provider": "unless", "operation": "query", "params": params, **fields}


NEVER = 'x sandbox:{"outcome":"never"}'


async def enqueued(api: httpx.AsyncClient, text: str = "why?", **fields: Any) -> str:
    answer = await api.post("/v1/jobs", json=question(text, **fields))
    assert answer.status_code == 201, answer.text
    job_id: str = answer.json()["id"]
    return job_id


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    document: dict[str, Any] = answer.json()
    assert (document["status"], document["code"]) == (status, code), document
    return document


async def test_a_job_is_enqueued_waited_for_and_its_result_is_read(api: httpx.AsyncClient) -> None:
    answer = await api.post("/v1/jobs", json=question(metadata={"n": 1}, targets=[REFUSING]))
    assert answer.status_code == 201
    where = answer.headers["location"]
    assert where == f"/v1/jobs/{answer.json()['id']}"
    problem(await api.get(where + "/result"), 409, "wrong_state")
    job = (await api.get(where, params={"wait": 30})).json()
    assert (job["state"], job["metadata"], job["ledger"]["submits"]) == ("succeeded", {"n": 1}, 1)
    assert (await api.get(where + "/result")).json()["answer"]
    events = [event["event"] for event in (await api.get(where + "/timeline")).json()["timeline"]]
    assert events[:2] == ["enqueued", "submitted"]

    async def dead() -> list[Any]:
        deliveries: list[Any] = (await api.get("/v1/dead", params={"target": REFUSING})).json()["deliveries"]
        return [delivery for delivery in deliveries if delivery["job_id"] == job["id"]]

    ((delivery),) = await until(dead)
    assert delivery["state"] == "dead"
    assert (await api.get(where + "/deliveries")).json()["deliveries"][0]["id"] == delivery["id"]
    assert (await api.post(where + "/replay", json={"target": REFUSING})).json() == {"replayed": 1}
    await until(dead)
    assert (await api.post("/v1/dead/replay", json={"target": REFUSING})).json()["replayed"] >= 1


async def test_dead_deliveries_are_read_page_by_page(api: httpx.AsyncClient) -> None:
    jobs = {await enqueued(api, targets=[ALSO_REFUSING]) for _ in range(3)}

    async def pages() -> list[list[str]]:
        found, url = [], f"/v1/dead?target={ALSO_REFUSING}&limit=2"
        while url:
            answer = await api.get(url)
            found.append([delivery["job_id"] for delivery in answer.json()["deliveries"]])
            url = answer.links.get("next", {}).get("url", "")
        return found if {job_id for page in found for job_id in page} == jobs else []

    assert [len(page) for page in await until(pages)] == [2, 1]


async def test_the_same_request_again_is_the_same_job(api: httpx.AsyncClient) -> None:
    header = {"Idempotency-Key": "order-1"}
    first = await api.post("/v1/jobs", json=question(), headers=header)
    second = await api.post("/v1/jobs", json=question(), headers=header)
    third = await api.post("/v1/jobs", json=question(idempotency_key="order-1"))
    assert [answer.status_code for answer in (first, second, third)] == [201, 200, 200]
    assert {answer.json()["id"] for answer in (first, second, third)} == {first.json()["id"]}
    assert second.json()["created"] is False
    problem(await api.post("/v1/jobs", json=question("other"), headers=header), 409, "conflict")
    differ = await api.post("/v1/jobs", json=question(idempotency_key="order-2"), headers=header)
    problem(differ, 422, "invalid_request")
    problem(await api.post("/v1/jobs", json={"jobs": [question()]}, headers=header), 422, "invalid_request")


async def test_a_batch_tells_of_each_of_its_jobs(api: httpx.AsyncClient) -> None:
    jobs = [
        question("a", idempotency_key="batch-a"),
        question("a", idempotency_key="batch-a"),
        question("b", idempotency_key="batch-a"),
        question() | {"provider": "nobody"},
        question(targets=["stream://not-allowed"]),
    ]
    answer = await api.post("/v1/jobs", json={"jobs": jobs})
    assert answer.status_code == 207
    outcome = answer.json()
    assert [item["status"] for item in outcome["jobs"]] == [201, 200, 409, 422, 403]
    assert outcome["jobs"][0]["id"] == outcome["jobs"][1]["id"]
    assert (outcome["created"], outcome["same"], outcome["refused"]) == (1, 1, 3)
    wrong = await api.post("/v1/jobs", json={"jobs": [question(), {"provider": "unless"}]})
    assert problem(wrong, 422, "invalid_request")["errors"][0]["field"] == "body.jobs[1].operation"
    too_many = await api.post("/v1/jobs", json={"jobs": [question()] * 1001})
    problem(too_many, 422, "invalid_request")


async def test_tenants_know_nothing_of_each_other(stack: Stack, api: httpx.AsyncClient) -> None:
    async with await caller(stack, tenant="acme") as acme, await caller(stack, tenant="blue") as blue:
        first = await enqueued(acme, NEVER, idempotency_key="same", targets=[REFUSING])
        two = await enqueued(blue, NEVER, idempotency_key="same")
        assert first != two
        assert (await acme.get(f"/v1/jobs/{first}")).json()["tenant"] == "acme"
        problem(await blue.post("/v1/jobs", json=question(tenant="acme")), 403, "forbidden")
        problem(await blue.post("/v1/jobs", json=question("x", idempotency_key="same")), 409, "conflict")
        missing = problem(await blue.get("/v1/jobs/" + "0" * len(first)), 404, "job_not_found")
        for method, path, body in (
            ("GET", "", None),
            ("GET", "?wait=1", None),
            ("GET", "/result", None),
            ("GET", "/timeline", None),
            ("GET", "/deliveries", None),
            ("GET", "/events", None),
            ("POST", "/cancel", None),
            ("POST", "/replay", {}),
            ("POST", "/repoll", None),
            ("POST", "/resolve", {"choice": "fail"}),
        ):
            answer = await blue.request(method, f"/v1/jobs/{first}{path}", json=body)
            details = problem(answer, 404, "job_not_found")
            assert details["detail"] == missing["detail"].replace("0" * len(first), first)
        assert [job["id"] for job in (await blue.get("/v1/jobs")).json()["jobs"]] == [two]
        problem(await blue.get("/v1/jobs", params={"tenant": "acme"}), 403, "forbidden")
        for path in ("/v1/providers/unless/pause", "/v1/providers/unless/resume"):
            problem(await blue.post(path), 403, "forbidden")
        problem(await blue.get("/v1/counts"), 403, "forbidden")
        assert {provider["status"] for provider in (await blue.get("/v1/providers")).json()["providers"]} == {None}
        assert (await acme.post(f"/v1/jobs/{first}/cancel")).json()["state"] == "cancelled"

        async def dead() -> Any:
            return (await acme.get("/v1/dead")).json()["deliveries"]

        await until(dead)
        assert (await blue.get("/v1/dead")).json()["deliveries"] == []
        assert (await blue.post("/v1/dead/replay")).json() == {"replayed": 0}
        ids = {job["id"] for job in (await api.get("/v1/jobs", params={"tenant": "acme"})).json()["jobs"]}
        assert ids == {first}
        await blue.post(f"/v1/jobs/{two}/cancel")


@pytest.mark.parametrize(
    ("scope", "good"),
    [(Scope.ENQUEUE, {"/v1/jobs"}), (Scope.READ, {"/v1/counts"}), (Scope.OPERATE, {"/v1/dead/replay"})],
)
async def test_a_key_is_good_for_its_scopes_only(stack: Stack, scope: Scope, good: set[str]) -> None:
    async with await caller(stack, scope) as api:
        answers = {
            "/v1/jobs": await api.post("/v1/jobs", json=question()),
            "/v1/counts": await api.get("/v1/counts"),
            "/v1/dead/replay": await api.post("/v1/dead/replay", json={"target": "no-one"}),
        }
    assert {path for path, answer in answers.items() if answer.is_success} == good
    for path in answers.keys() - good:
        problem(answers[path], 403, "forbidden")


async def test_who_shows_no_good_key_learns_nothing_and_has_no_body_read(stack: Stack) -> None:
    async with httpx.AsyncClient(base_url=stack.web_url) as nobody:
        for path in ("/v1/jobs", "/v1/jobs/x", "/v1/providers", "/v1/counts", "/v1/dead", "/v1/jobs/x/events"):
            answer = await nobody.get(path)
            problem(answer, 401, "unauthenticated")
            assert answer.headers["www-authenticate"] == "Bearer"
        problem(await nobody.post("/v1/jobs", content=b"{"), 401, "unauthenticated")
        headers = {"Authorization": "Bearer ow_00000000_" + "x" * 43}
        problem(await nobody.get("/v1/jobs", headers=headers), 401, "unauthenticated")


async def test_what_is_no_request_is_told_as_a_problem(api: httpx.AsyncClient) -> None:
    json_type = {"content-type": "application/json"}
    problem(await api.get("/v1/nowhere"), 404, "not_found")
    wrong = await api.put("/v1/jobs", json={})
    problem(wrong, 405, "method_not_allowed")
    assert wrong.headers["allow"] == "GET, HEAD, POST"
    problem(await api.post("/v1/jobs", content=b"a=1", headers={"content-type": "text/plain"}), 415, wrong_media())
    for body in (b"{", b'{"provider":"\\ud800"}', b'{"deadline":NaN}', b"[" * 100_000, b"\xff"):
        problem(await api.post("/v1/jobs", content=body, headers=json_type), 400, "malformed_json")
    problem(await api.post("/v1/jobs", json=[question()]), 422, "invalid_request")
    huge = question() | {"params": {"query": "x", "sessionId": "s", "visitorId": "v", "metadata": {"n": 10**30}}}
    assert (await api.post("/v1/jobs", json=huge)).status_code in {201, 422}
    fields = problem(await api.get("/v1/jobs", params={"limit": 0, "sort": "x"}), 422, "invalid_request")["errors"]
    assert {field["field"] for field in fields} == {"query.limit", "query.sort"}
    problem(await api.get("/v1/jobs", params={"cursor": "x"}), 422, "invalid_request")
    problem(await api.get("/v1/jobs/never-was"), 404, "job_not_found")
    problem(await api.get("/v1/jobs/%00"), 404, "not_found")
    problem(await api.post("/v1/providers/nobody/pause"), 404, "not_found")


def wrong_media() -> str:
    return "unsupported_media_type"


async def test_a_body_that_is_too_large_is_refused_by_its_length_and_as_it_comes(
    stack: Stack, api: httpx.AsyncClient
) -> None:
    large = json.dumps(question("x" * (BODY_MAX + 1))).encode()
    problem(await api.post("/v1/jobs", content=large, headers={"content-type": "application/json"}), 413, TOO_LARGE)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(large), 50_000):
            yield large[start : start + 50_000]

    streamed = await api.post("/v1/jobs", content=chunks(), headers={"content-type": "application/json"})
    problem(streamed, 413, TOO_LARGE)


LENGTH, CHUNKS = "Content-Length: 5000000", "Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("path", "framing", "status"),
    [
        ("/v1/jobs", LENGTH, 413),
        ("/v1/jobs", CHUNKS, 413),
        ("/v1/nowhere", CHUNKS, 404),
        ("/v1/counts", CHUNKS, 405),
    ],
)
async def test_a_caller_that_sends_all_before_it_reads_gets_the_answer(
    stack: Stack, path: str, framing: str, status: int
) -> None:
    """As urllib: the connection ends with the answer, and bytes that arrive after its end would reset it."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {await key(stack)}\r\n"
        f"Content-Type: application/json\r\n{framing}\r\n\r\n"
    )
    body = b"x" * 5_000_000
    reading, writing = await asyncio.open_connection(*urlsplit(stack.web_url).netloc.split(":"))
    writing.write(head.encode() + (body if framing == LENGTH else b"4c4b40\r\n" + body + b"\r\n0\r\n\r\n"))
    await writing.drain()
    answer = await asyncio.wait_for(reading.read(), PATIENCE)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    writing.close()


TOO_LARGE = "content_too_large"


async def test_every_answer_has_an_id_and_safe_headers_and_its_line_in_the_log(
    stack: Stack, api: httpx.AsyncClient
) -> None:
    given = await api.get("/v1/counts", headers={"X-Request-Id": "call-4711"})
    assert given.headers["x-request-id"] == "call-4711"
    made = (await api.get("/v1/counts", headers={"X-Request-Id": "no spaces\tplease"})).headers["x-request-id"]
    assert len(made) == 16
    assert given.headers["x-content-type-options"] == "nosniff"
    assert given.headers["cache-control"] == "no-store"
    assert (await api.get("/v1/nowhere")).headers["x-request-id"]
    head = await api.head("/v1/counts")
    assert (head.status_code, head.content) == (200, b"")
    (line,) = [line for line in stack.logs("web").splitlines() if "call-4711" in line]
    assert all(
        part in line
        for part in ("method=GET", "route=/v1/counts", "status=200", 'caller="test (', "address=127.0.0.1", "ms=")
    )
    secret = api.headers["authorization"].split("_", 2)[2]  # it may have underscores itself
    assert secret not in stack.logs("web")


async def test_only_the_origins_of_the_settings_may_call_from_a_browser(api: httpx.AsyncClient) -> None:
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,idempotency-key"}
    shop = await api.options("/v1/jobs", headers=ask | {"Origin": "https://shop.example"})
    assert (shop.status_code, shop.headers["access-control-allow-origin"]) == (200, "https://shop.example")
    other = await api.options("/v1/jobs", headers=ask | {"Origin": "https://other.example"})
    assert "access-control-allow-origin" not in other.headers
    assert (other.status_code, other.json()["code"]) == (403, "cors_refused")
    assert "OUTWAIT_WEB__CORS_ORIGINS" in other.json()["detail"]
    ask |= {"Origin": "https://shop.example", "Access-Control-Request-Method": "PUT"}
    odd = await api.options("/v1/jobs", headers=ask)
    assert (odd.status_code, odd.json()["code"]) == (403, "cors_refused")
    assert "GET and POST" in odd.json()["detail"]
    seen = await api.get("/v1/counts", headers={"Origin": "https://other.example"})
    assert "access-control-allow-origin" not in seen.headers


async def test_pages_of_jobs_go_on_where_the_last_one_ended(api: httpx.AsyncClient) -> None:
    made = (await api.post("/v1/jobs", json={"jobs": [question(f"p{n}", tenant="pages") for n in range(7)]})).json()
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await api.get("/v1/jobs", params={"tenant": "pages", "limit": 3} | cursor)).json()
        seen += [job["id"] for job in page["jobs"]]
        if page["cursor"] is None:
            break
        cursor = {"cursor": page["cursor"]}
    assert sorted(seen) == sorted(item["id"] for item in made["jobs"])
    assert (await api.get("/v1/jobs", params={"until": 1})).json() == {"jobs": [], "cursor": None}


async def test_a_person_pauses_and_resumes_a_provider(api: httpx.AsyncClient) -> None:
    status = (await api.post("/v1/providers/elevateai/pause", json={"reason": "upgrade"})).json()
    assert (status["suspended_why"], status["group"]) == ("upgrade", "elevateai")
    providers = {provider["name"]: provider for provider in (await api.get("/v1/providers")).json()["providers"]}
    assert providers["elevateai"]["status"]["suspended_since"]
    (query,) = [operation for operation in providers["unless"]["operations"] if operation["name"] == "query"]
    assert set(query["params"]["required"]) == {"query", "sessionId", "visitorId"}
    assert (await api.post("/v1/providers/elevateai/resume")).json() == {"resumed": True}
    assert (await api.post("/v1/providers/elevateai/resume")).json() == {"resumed": False}


async def test_a_held_job_is_resolved(stack: Stack, api: httpx.AsyncClient) -> None:
    job_id = await enqueued(api, 'held-1 sandbox:{"faults":[{"fault":"drop_after","on":"submit"}]}')

    async def uncertain() -> bool:
        return bool((await api.get(f"/v1/jobs/{job_id}")).json()["state"] == "uncertain")

    await until(uncertain)
    (submitted,) = stack.seen("held-1")
    missing = await api.post(f"/v1/jobs/{job_id}/resolve", json={"choice": "submitted-as"})
    problem(missing, 422, "invalid_request")
    choice = {"choice": "submitted-as", "external_id": submitted["id"]}
    assert (await api.post(f"/v1/jobs/{job_id}/resolve", json=choice)).status_code == 200
    assert (await api.get(f"/v1/jobs/{job_id}?wait=60")).json()["state"] == "succeeded"
    problem(await api.post(f"/v1/jobs/{job_id}/resolve", json=choice), 409, "wrong_state")


async def test_a_failed_jobs_result_is_not_there_and_says_why(api: httpx.AsyncClient) -> None:
    job_id = await enqueued(api, 'x sandbox:{"outcome":"failure"}')
    assert (await api.get(f"/v1/jobs/{job_id}?wait=60")).json()["state"] == "failed"
    details = problem(await api.get(f"/v1/jobs/{job_id}/result"), 404, "no_result")
    assert details["detail"].startswith("provider_failed")


async def listened_to(stack: Stack, job_id: str) -> bool:
    """Whether somebody waits for the job."""
    connection = Connection(stack.settings)
    ((_, listeners),) = await connection.redis.pubsub_numsub(connection.keys("NOTED", job_id))
    await connection.close()
    return bool(listeners)


async def test_a_long_poll_ends_with_the_job_or_with_its_time(stack: Stack, api: httpx.AsyncClient) -> None:
    job_id = await enqueued(api, NEVER)
    began = time.monotonic()
    assert (await api.get(f"/v1/jobs/{job_id}?wait=0.5")).json()["state"] in {"queued", "waiting"}
    assert time.monotonic() - began > 0.4
    waiting = asyncio.create_task(api.get(f"/v1/jobs/{job_id}?wait=60"))
    await until(lambda: listened_to(stack, job_id))
    assert (await api.post(f"/v1/jobs/{job_id}/cancel")).status_code == 200
    assert (await asyncio.wait_for(waiting, PATIENCE)).json()["state"] == "cancelled"
    assert (await api.post(f"/v1/jobs/{job_id}/cancel")).json()["state"] == "cancelled"
    problem(await api.get(f"/v1/jobs/{job_id}?wait=61"), 422, "invalid_request")


class Stream:
    """Server-sent events as they come."""

    def __init__(self, api: httpx.AsyncClient, job_id: str) -> None:
        self._api = api
        self._path = f"/v1/jobs/{job_id}/events"
        self.events: list[dict[str, Any]] = []
        self.end: dict[str, Any] | None = None

    @property
    def names(self) -> Sequence[str]:
        return [event["event"] for event in self.events]

    async def read(self, last: str = "", until: str = "") -> int:
        """Read until the stream ends, or an event of this name came."""
        headers = {"Last-Event-ID": last} if last else {}
        async with self._api.stream("GET", self._path, headers=headers) as answer:
            if answer.status_code == 200:
                assert answer.headers["content-type"].startswith("text/event-stream")
                await self._lines(answer, until)
            return answer.status_code

    async def _lines(self, answer: httpx.Response, until: str) -> None:
        name = ""
        async for line in answer.aiter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data" and name == "end":
                self.end = json.loads(value)
            elif field == "data":
                self.events.append(json.loads(value))
                if until and until == self.names[-1]:
                    return


async def test_events_come_as_they_happen_once_each_and_end_with_the_job(api: httpx.AsyncClient) -> None:
    job_id = await enqueued(api)
    seen = Stream(api, job_id)
    await seen.read(until="submitted")
    assert seen.end is None
    await seen.read(last=seen.events[-1]["id"])
    assert seen.end
    assert seen.end["state"] == "succeeded"
    assert seen.events == (await api.get(f"/v1/jobs/{job_id}/timeline")).json()["timeline"]
    assert await seen.read(last=seen.events[-1]["id"]) == 204
    ids = [event["id"] for event in seen.events]
    assert len(set(ids)) == len(ids)


async def test_a_stream_beats_while_nothing_happens_and_ends_when_its_key_is_revoked(
    stack: Stack, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await enqueued(api, NEVER)
    monkeypatch.setattr(stream, "HEARTBEAT", 0.3)
    good = True

    async def key_valid() -> bool:
        return good

    async with opened(stack.settings) as services:
        beats = 0
        async for part in stream._stream(services, job_id, "", key_valid):
            beats += part.startswith(b":")
            good = beats < 2
    assert beats == 2
    await api.post(f"/v1/jobs/{job_id}/cancel")


async def test_whoever_waits_survives_a_restart_of_redis(
    stack: Stack, api: httpx.AsyncClient, redis: EmbeddedRedis
) -> None:
    job_id = await enqueued(api, NEVER)
    seen = Stream(api, job_id)
    waiting = asyncio.create_task(api.get(f"/v1/jobs/{job_id}?wait=60"))
    await until(lambda: listened_to(stack, job_id))
    following = asyncio.create_task(seen.read())

    async def submitted() -> bool:
        return "submitted" in seen.names

    await until(submitted)
    redis.stop()
    redis.start()

    async def cancelled() -> bool:
        return (await api.post(f"/v1/jobs/{job_id}/cancel")).status_code == 200

    await until(cancelled)
    job = (await asyncio.wait_for(waiting, PATIENCE)).json()
    assert job["state"] == "cancelled"
    await asyncio.wait_for(following, PATIENCE)
    assert seen.end
    assert seen.events == (await api.get(f"/v1/jobs/{job_id}/timeline")).json()["timeline"]


async def test_many_wait_over_one_connection_and_leave_nothing_behind(stack: Stack, api: httpx.AsyncClient) -> None:
    job_id = await enqueued(api, NEVER)
    connection = Connection(stack.settings)

    async def channels() -> int:
        return len(await connection.redis.pubsub_channels(connection.keys("NOTED", job_id)))

    async def listeners() -> int:
        clients = await connection.redis.client_list()
        return sum(
            int(client["sub"]) > 0 and client["lib-name"] == "redis-py" and int(client["sub"]) < 5 for client in clients
        )

    before = await listeners()
    async with httpx.AsyncClient(headers=api.headers, base_url=stack.web_url, timeout=PATIENCE) as callers:
        waiting = [asyncio.create_task(callers.get(f"/v1/jobs/{job_id}?wait=60")) for _ in range(50)]

        async def subscribed() -> bool:
            return await channels() == 1

        await until(subscribed)
        assert await listeners() == before
        await api.post(f"/v1/jobs/{job_id}/cancel")
        answers = await asyncio.gather(*waiting)
    assert {answer.json()["state"] for answer in answers} == {"cancelled"}

    async def gone() -> bool:
        return await channels() == 0

    await until(gone)
    job_id = await enqueued(api, NEVER)
    await asyncio.gather(*(Stream(api, job_id).read(until="submitted") for _ in range(20)))  # and they hang up
    await until(gone)
    await connection.close()


async def test_a_small_answer_does_not_wait_for_the_network(stack: Stack) -> None:
    where = urlsplit(stack.web_url)
    with socket.create_connection((where.hostname, where.port)) as connection:
        took = []
        for _ in range(30):
            began = time.monotonic()
            connection.sendall(b"GET /v1/jobs HTTP/1.1\r\nhost: x\r\n\r\n")
            answer = b""
            while b'"code":"unauthenticated"' not in answer:
                answer += connection.recv(4096)
            took.append(time.monotonic() - began)
    assert min(took[1:]) < 0.03
