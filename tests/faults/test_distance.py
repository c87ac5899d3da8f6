"""What a crash, a stop or a pause must not undo: polls keep their distance, and nothing is sent into a silence."""

import asyncio
import json
import signal
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path

import httpx
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from outwait.config.settings import Settings
from outwait.worker.engine.batches import Batches
from outwait.worker.engine.begun_submits import BegunSubmits
from outwait.worker.engine.lane_policies import Policies
from outwait.worker.engine.recorder import Recorder
from outwait.worker.model.errors import Withheld
from outwait.worker.model.jobs import Claim, JobState
from outwait.worker.model.lanes import Lane
from outwait.worker.model.outcomes import Cancel, Outcome, Pause, Release, Submitted
from outwait.worker.net.http import Http
from outwait.worker.providers.registry import build
from outwait.worker.store import codec
from outwait.worker.store.codes import Recorded
from outwait.worker.store.connection import Connection
from outwait.worker.store.lanes import Held, LanePolicy, Lanes, NewJob
from outwait.worker.store.reads import Reads
from outwait.worker.telemetry.tally import Tally
from tests.patience import PATIENCE
from tests.stack import Stack, closed, query, until

SUBMIT, POLL = Lane.parse("submit:unless"), Lane.parse("poll:unless")
POLICY = LanePolicy(batch=10, lease_ms=60_000, cap=100, provider="unless")
SPEC = codec.blob(b'{"params":{},"targets":[],"metadata":{}}', 100)


@pytest.fixture
async def lanes(connection: Connection) -> Lanes:
    """One job that waits for its first poll, due now."""
    lanes = Lanes(connection)
    await lanes.enqueue([NewJob(id="j1", provider="unless", operation="query", digest="d", spec=SPEC)])
    (claim,) = await lanes.claim(SUBMIT, POLICY)
    await lanes.record([Submitted(work_id="j1", fence=claim.fence, external_id="x-1", countdown_ms=0, submits=1)])
    return lanes


async def test_after_a_lease_the_next_poll_keeps_its_distance(lanes: Lanes) -> None:
    """Protected by worker/store/lua/claim.lua `put_back`: who was lost may have polled until its lease ended."""
    short = msgspec.structs.replace(POLICY, lease_ms=1, min_interval_ms=400)
    (claim,) = await lanes.claim(POLL, short)
    await lanes.begin(POLL, short, [Held("j1", claim.fence)])
    began = time.monotonic()

    async def again() -> list[Claim]:
        return await lanes.claim(POLL, short)

    await until(again)
    assert time.monotonic() - began >= 0.39


async def test_what_was_claimed_before_a_pause_is_not_sent_in_it(lanes: Lanes) -> None:
    """Protected by worker/store/lua/begin.lua `is_silenced`."""
    (claim,) = await lanes.claim(POLL, POLICY)
    await lanes.record([Pause(provider="unless", pause_ms=2000, reason="429")])
    assert (await lanes.begin(POLL, POLICY, [("j1", claim.fence)]))[1] == [0]
    assert (await lanes.begin(POLL, POLICY, [("j1", claim.fence)]))[1] == [0], "the claim is used up"
    assert await lanes.claim(POLL, POLICY) == []

    async def again() -> list[Claim]:
        return await lanes.claim(POLL, POLICY)

    (claim,) = await until(again)
    (fence,) = (await lanes.begin(POLL, POLICY, [("j1", claim.fence)]))[1]
    assert fence > 0


class Standing(Lanes):
    """A store whose answer to `begin` finds its process standing still."""

    async def begin(self, lane: Lane, policy: LanePolicy, claims: Sequence[Held]) -> tuple[int, list[int]]:
        answer = await super().begin(lane, policy, claims)
        time.sleep(1.2)  # noqa: ASYNC251 - that is the point
        return answer


class StandingLater(Lanes):
    """A store whose answer to the intent finds its process standing still for longer than the lease."""

    async def renew(
        self, lane: Lane, policy: LanePolicy, claims: Sequence[Held], *, intent: bool = False
    ) -> list[bool]:
        answer = await super().renew(lane, policy, claims, intent=intent)
        time.sleep(policy.lease_ms / 1000)  # noqa: ASYNC251
        return answer


class Sends:
    """A step that sends one real request."""

    intent = True

    def __init__(self, http: Http, url: str) -> None:
        self._http = http
        self._url = url

    async def prepare(self, claims: list[Claim], record: Recorder) -> list[Claim]:  # noqa: ARG002 - the contract
        return claims

    async def run(self, claim: Claim, now: int) -> Sequence[Outcome]:  # noqa: ARG002 - the contract
        with suppress(Withheld, asyncio.CancelledError):
            await self._http.send(httpx.Request("POST", self._url, content=b"paid"), timeout=PATIENCE, fresh=True)
        return [Release(work_id=claim.work_id, fence=claim.fence)]


@pytest.fixture
async def received() -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server's URL, and the bodies that came there."""
    bodies: list[bytes] = []

    async def take(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        return web.Response()

    app = web.Application()
    app.router.add_post("/", take)
    async with TestServer(app) as server:
        yield str(server.make_url("/")), bodies


@pytest.mark.parametrize(("store", "sent"), [(Standing, 0), (StandingLater, 0), (Lanes, 1)])
async def test_a_process_that_stood_still_sends_nothing_stale(
    connection: Connection, settings: Settings, received: tuple[str, list[bytes]], store: type[Lanes], sent: int
) -> None:
    """Protected by `_run_step` in worker/engine/batches.py and `check` in worker/engine/leases.py."""
    short = settings.model_copy(update={"submit": settings.submit.model_copy(update={"lease": 2.0})})
    url, bodies = received
    lanes, http = store(connection), Http(body_max=1000)
    recorder = Recorder(lanes, lambda _lanes: None)
    await lanes.enqueue([NewJob(id="j1", provider="unless", operation="query", digest="d", spec=SPEC)])
    claims = await lanes.claim(SUBMIT, POLICY)
    batches = Batches(lanes, Policies(short, build({})), recorder, BegunSubmits(60), Tally())
    await batches.run(SUBMIT, claims, Sends(http, url))
    await http.close()
    assert bodies == [b"paid"] * sent
    assert (await Reads(connection).job("j1")).state is JobState.QUEUED
    assert len(await lanes.claim(SUBMIT, POLICY)) == 1


async def test_a_poll_that_a_stop_cut_off_keeps_its_distance(redis_url: str, tmp_path: Path) -> None:
    """Protected by tasks/poll.py `_stopped`: the request left, so the next one waits for the provider's interval."""
    variables = {
        "OUTWAIT_SUBMIT__TIME_LIMIT": "5",
        "OUTWAIT_WORKER__GRACE": "5",
        "OUTWAIT_PROVIDERS__UNLESS__POLL_EVERY": "4",
    }
    with Stack(redis_url, tmp_path, options={"poll_minimum": 4}, variables=variables) as stack:
        async with stack.client() as client:
            worker = stack.worker()
            order = {"duration": 0, "faults": [{"fault": "hang", "on": "poll"}]}
            await client.enqueue(query(f"cut sandbox:{json.dumps(order)}"), job_id="cut")

            async def polled() -> bool:
                return any(job["polls"]["count"] for job in stack.seen("cut"))

            await until(polled)
            worker.send_signal(signal.SIGTERM)
            stack.worker()
            job = await closed(client, "cut")
        await asyncio.to_thread(worker.wait, PATIENCE)
        (seen,) = stack.seen("cut")
        assert (job.state, job.ledger.polls, seen["polls"]["too_fast"]) == (JobState.SUCCEEDED, 2, 0)


class NeverConnected:
    """A port that takes a few connections and answers none further: whoever sends there waits to be connected."""

    def __enter__(self) -> str:
        self._server = socket.create_server(("127.0.0.1", 0), backlog=0)
        self._waiting = []
        for _ in range(8):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(self._server.getsockname())
            self._waiting.append(client)
        return f"http://127.0.0.1:{self._server.getsockname()[1]}/"

    def __exit__(self, *error: object) -> None:
        for opened in (*self._waiting, self._server):
            opened.close()


async def test_a_crash_leaves_no_submit_in_doubt_whose_request_did_not_leave(
    connection: Connection, settings: Settings
) -> None:
    """Protected by worker/engine/leases.py `permit`: the intent is written when the connection stands, not before."""
    lanes, http = Lanes(connection), Http(body_max=1000)
    await lanes.enqueue(
        [NewJob(id=f"j{number}", provider="unless", operation="query", digest="d", spec=SPEC) for number in range(10)]
    )
    claims = await lanes.claim(SUBMIT, POLICY)
    recorder = Recorder(lanes, lambda _lanes: None)
    batches = Batches(lanes, Policies(settings, build({})), recorder, BegunSubmits(60), Tally())
    with NeverConnected() as url:
        running = asyncio.create_task(batches.run(SUBMIT, claims, Sends(http, url)))

        async def begun() -> bool:
            return all(await lanes.renew(SUBMIT, POLICY, [Held(claim.work_id, claim.fence + 1) for claim in claims]))

        await until(begun)
        ((code,), _) = await lanes.record([Cancel(work_id="j0", error="{}")])
        assert code is Recorded.WRITTEN, "no request is on its way"
        await lanes.renew(
            SUBMIT,
            msgspec.structs.replace(POLICY, lease_ms=0),
            [Held(claim.work_id, claim.fence + 1) for claim in claims],
        )  # as if the worker were lost
        again = await lanes.claim(SUBMIT, POLICY)
        await batches.drain(0)
        await running
    assert {claim.state for claim in again} == {JobState.QUEUED}
    assert len(again) == len(claims) - 1
    await http.close()
