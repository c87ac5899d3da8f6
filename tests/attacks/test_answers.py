"""A provider answers oddly: that ends as a clear error of this answer, and nothing is paid twice.

A status that says that nothing was accepted counts, whatever follows it. An answer to a submit that says `accepted` and
cannot be read leaves it uncertain: whether the provider has the job is then unknown.
"""

import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import httpx
import pytest

from outwait.client.store import StoreClient
from outwait.worker.model.errors import InvalidRequest, NotSent, ResultTooLarge, Unreadable
from outwait.worker.model.jobs import Job, JobState
from outwait.worker.model.outcomes import Choice
from outwait.worker.providers.contract import Submission, SubmitAnswer, traceable
from outwait.worker.providers.exchange import Count, Exchange, external_id, json_object
from outwait.worker.providers.oauth import AccessToken
from outwait.worker.store.access import Scope
from outwait.worker.store.store import Store
from tests.patience import PATIENCE
from tests.stack import Stack, closed, query, until

DEEP, DEEPER = 600, 100_000
"""Levels that Python's JSON reads and then trips over, and levels that it does not read."""

DONE = b'{"status": "DONE", "chatData": {"history": %s}}'


GZIP, CUT, ROT13 = (
    ("Content-Encoding", "gzip"),
    ("Content-Length", "1000"),
    ("Content-Type", "text/json; charset=rot13"),
)

SILENCE = ("Retry-After", "3600")

SUBMITS: Mapping[str, tuple[Any, ...]] = {
    "refused-deep": (400, b"[" * DEEPER),
    "refused-large": (400, b'"' + b"x" * 3_000_000 + b'"'),
    "refused-damaged": (422, b"no gzip", GZIP),
    "refused-cut": (400, b'{"message": "no', CUT),
    "utf-16": (200, '{"questionId": "utf-16"}'.encode("utf-16")),
    "charset": (200, b'{"questionId": "charset"}', ROT13),
    "accepted-deep": (200, b'{"questionId": ' + b"[" * DEEPER),
    "accepted-damaged": (200, b"no gzip", GZIP),
    "long-id": (200, b'{"questionId": "%s"}' % (b"x" * 100_000)),
    "silence": (429, b"{}", SILENCE),
    "control-id": (200, b'{"questionId": "q\\u001b[2J\\u202e"}'),
}
"""What the answer to a submit is, by the job's question."""


class Odd(BaseHTTPRequestHandler):
    """Answers a submit, and each poll, as the job's question says."""

    protocol_version = "HTTP/1.1"
    submits: ClassVar[Counter[str]] = Counter()
    polls: ClassVar[Counter[str]] = Counter()

    def do_POST(self) -> None:
        """A submit."""
        name = json.loads(self.rfile.read(int(self.headers["content-length"])))["query"]
        self.submits[name] += 1
        self._answer(*SUBMITS.get(name, (200, json.dumps({"questionId": name}).encode())))

    def do_GET(self) -> None:
        """A poll."""
        name = self.path.partition("questionId=")[2]
        self.polls[name] += 1
        match name:
            case "silence-later":
                self._answer(429, b"{}", SILENCE)
            case "result-deep":
                self._answer(200, DONE % (b"[" * DEEP + b"]" * DEEP))
            case "result-deeper":
                self._answer(200, DONE % (b"[" * DEEPER + b"]" * DEEPER))
            case "result-surrogate":
                self._answer(200, DONE % b'["\\ud800", NaN]')
            case _:
                self._answer(200, DONE % b"[]")

    def _answer(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        given = {"Content-Type": "application/json", "Content-Length": str(len(body)), **dict(headers)}
        self.send_response(status)
        for name, value in given.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def stack(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Odd)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    variables = {
        "OUTWAIT_PROVIDERS__UNLESS__BASE_URL": f"http://127.0.0.1:{server.server_port}",
        "OUTWAIT_PROVIDERS__UNLESS__BREAKER_AFTER": "1000",
        "OUTWAIT_STORE__RESULT_MAX": "1000000",
    }
    with Stack(redis_url, tmp_path_factory.mktemp("odd"), variables=variables) as stack:
        stack.worker()
        stack.web()
        yield stack
    server.shutdown()
    server.server_close()


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[StoreClient]:
    async with stack.client() as client:
        yield client


async def settled(client: StoreClient, name: str) -> Job:
    """The job when it is closed, or held for a person."""
    job_id = (await client.enqueue(query(name))).job_id

    async def look() -> bool:
        job = await client.job(job_id)
        events = [entry.event for entry in await client.timeline(job_id)]
        return job.closed is not None or "held" in events

    await until(look, what=f"{name} is settled")
    return await client.job(job_id)


@pytest.mark.parametrize("name", ["refused-deep", "refused-large", "refused-damaged", "refused-cut"])
async def test_a_refusal_counts_whatever_its_body_is(client: StoreClient, name: str) -> None:
    """Protected by worker/net/http.py `send`: the status came before."""
    job = await settled(client, name)
    assert (job.state, job.error and job.error.code) == (JobState.FAILED, "rejected")
    assert Odd.submits[name] == 1


@pytest.mark.parametrize("name", ["utf-16", "charset", "result-surrogate"])
async def test_what_can_be_read_is_read(client: StoreClient, name: str) -> None:
    """Protected by worker/model/json_text.py: the form of JSON says its encoding, and no header is believed."""
    job = await settled(client, name)
    assert (job.state, job.error) == (JobState.SUCCEEDED, None)
    assert Odd.submits[name] == 1


@pytest.mark.parametrize("name", ["accepted-deep", "accepted-damaged", "long-id", "control-id"])
async def test_an_accepted_submit_that_cannot_be_followed_is_held_and_never_sent_again(
    client: StoreClient, name: str
) -> None:
    """Protected by tasks/submit.py `decide_error` and worker/model/external_ids.py."""
    job = await settled(client, name)
    assert (job.state, job.external_id) == (JobState.UNCERTAIN, None)
    assert Odd.submits[name] == 1
    lines = [entry.detail for entry in await client.timeline(job.id)]
    assert all(line.isprintable() and len(line) < 500 for line in lines)


@pytest.mark.parametrize("name", ["result-deep", "result-deeper"])
async def test_a_result_that_is_nested_too_deeply_fails_its_job_at_once(
    stack: Stack, client: StoreClient, name: str
) -> None:
    """Protected by worker/model/json_text.py: it will not become better, and what reads it later would break."""
    job = await settled(client, name)
    assert (job.state, job.error and job.error.code) == (JobState.FAILED, "result_too_large")
    assert "nested" in (job.error.message if job.error else "")
    assert Odd.polls[name] == 1
    assert "poll-broken" not in stack.logs()
    async with Store.open(stack.settings) as store:
        key = (await store.access.create("reader", [Scope.READ])).text
    async with httpx.AsyncClient(base_url=stack.web_url, timeout=PATIENCE) as web:
        assert (await web.post("/login", data={"key": key})).status_code == 303
        assert (await web.get(f"/jobs/{job.id}")).status_code == 200


@pytest.mark.parametrize(
    "value", ["", "x" * 501, "a\nb", "a\x00", "a\x7f", "a\x9b", "a\u202eb", "\ud800", "\ufeffa", "NaN"]
)
def test_an_external_id_has_a_form(value: str) -> None:
    """Protected by worker/model/external_ids.py, for every provider's way to read it."""
    assert external_id(value) is None
    if value:
        with pytest.raises(Unreadable):
            traceable(SubmitAnswer(value), Submission("job", "query", None, "https://ours.example/hook"))


async def test_nobody_gives_a_job_another_external_id(client: StoreClient) -> None:
    """Protected by outwait/client/store.py `resolve`."""
    job = await settled(client, "accepted-deep")
    for value in ("x" * 501, "a\nb", "a\u202eb", "a\x1b]0;x\x07"):
        with pytest.raises(InvalidRequest, match="external id"):
            await client.resolve(job.id, Choice.SUBMITTED_AS, value)
    assert (await client.job(job.id)).state is JobState.UNCERTAIN


class Tokens:
    """No token is stored."""

    async def token(self, _name: str) -> None:
        """None."""

    async def put_token(self, _name: str, token: str, *, ttl_s: float) -> None:
        """Nobody asks for it."""

    async def drop_token(self, _name: str, _token: str) -> None:
        """There is none."""

    async def lock_token(self, _name: str, *, ttl_s: float) -> bool:
        """It is ours."""
        return bool(ttl_s)

    async def unlock_token(self, _name: str) -> None:
        """Nothing."""


@pytest.mark.parametrize("token", ["a\r\nX-Evil: 1", "a b", "é", "\ud800", "x" * 20_000])
async def test_an_access_token_that_no_header_takes_is_none(token: str) -> None:
    """Protected by worker/providers/oauth.py: a request with it would break after it was counted as sent."""

    class Sender:
        async def send(self, request: httpx.Request, **_: object) -> httpx.Response:
            body = json.dumps({"access_token": token, "expires_in": 3600}).encode()
            return httpx.Response(200, content=body, request=request)

    exchange = Exchange(Sender(), Tokens(), 5.0)  # type: ignore[arg-type] # what is not asked for is left out
    access = AccessToken("name", lambda: httpx.Request("POST", "https://api.example/token"))
    with pytest.raises(NotSent, match="access_token"):
        await access.get(exchange)
    assert not exchange.ledger[Count.SUBMITS]


def test_depth_is_told_at_its_limit() -> None:
    def nested(levels: int) -> httpx.Response:
        body = b'{"x":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"
        return httpx.Response(200, content=body, request=httpx.Request("GET", "https://api.example/x"))

    assert json_object(nested(200))
    with pytest.raises(ResultTooLarge, match="200 levels"):
        json_object(nested(201))


@pytest.mark.parametrize("name", ["silence", "silence-later"])
async def test_no_retry_after_delays_a_deadline_or_a_cancel(client: StoreClient, name: str) -> None:
    """Protected by worker/store/lua/lapsed.lua: the provider wants an hour of silence, at the submit or at a poll."""
    try:
        first = (await client.enqueue(query(name, deadline=5))).job_id

        async def silenced() -> bool:
            (status,) = [status for status in await client.providers() if status.provider == "unless"]
            return status.paused_until is not None

        await until(silenced)
        second = (await client.enqueue(query("after", deadline=5))).job_id
        third = (await client.enqueue(query("cancelled"))).job_id
        assert await client.cancel(third)
        states = {job_id: (await closed(client, job_id)).state for job_id in (first, second, third)}
        assert states == {first: JobState.EXPIRED, second: JobState.EXPIRED, third: JobState.CANCELLED}
        assert await silenced()
        assert Odd.submits["after"] == 0
        late = [job.ended - job.deadline for job in await client.named([first, second]) if job.ended and job.deadline]
        assert max(late) < PATIENCE
    finally:
        await client.resume("unless")
