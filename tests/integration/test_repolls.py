"""A person takes up an ended job that its provider has, whatever became of its deliveries; nothing is submitted."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest

from outwait.client.store import StoreClient
from outwait.config.settings import Settings
from outwait.worker.engine.lane_policies import Policies
from outwait.worker.model.errors import JobNotFound, NotReplayable, WrongState
from outwait.worker.model.jobs import Claim, DeliveryState, Job, JobError, JobState, Step
from outwait.worker.model.lanes import Lane
from outwait.worker.model.outcomes import NO_FENCE, Dead, Delivered, End, Fanout, Outcome, Submitted, Uncertain
from outwait.worker.providers.registry import build
from outwait.worker.store import codec
from outwait.worker.store.codes import Recorded
from outwait.worker.store.connection import Connection
from outwait.worker.store.lanes import LanePolicy, Lanes, NewJob
from tests.integration.test_web_pages import logged_in, visitor
from tests.stack import until

SPEC = codec.blob(codec.encode({"params": {}, "targets": ["crm", "erp"], "metadata": {}}), 1000)
ERROR = JobError("gave_up", "no").text()
HOUR = 3_600_000
TARGETS = ("crm", "erp")
STAGES = ("ended", "delivering", "one left", "closed")
"""How far the first end came before somebody had the job polled again."""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    keys = dict.fromkeys(("api_key", "user_email", "account_id", "website_id"), "k")
    store = settings.store.model_copy(update={"retention": 0.001})
    return settings.model_copy(update={"providers": {"unless": keys | {"poll_every": 0.01}}, "store": store})


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[StoreClient]:
    async with StoreClient(settings) as client:
        yield client


class Hands:
    """Does what workers do with one job, `j`."""

    def __init__(self, settings: Settings, connection: Connection) -> None:
        self.connection, self.lanes = connection, Lanes(connection)
        self.policies = Policies(settings, build(settings.providers))

    async def claim(self, step: Step, name: str = "unless") -> Claim:
        claims: list[Claim] = []

        async def due() -> bool:
            claims.extend(await self.lanes.claim(Lane.of(step, name), LanePolicy(batch=9, lease_ms=60_000, cap=9)))
            return bool(claims)

        await until(due)
        (claim,) = claims
        return claim

    async def record(self, outcome: Outcome) -> Recorded:
        (code,), _ = await self.lanes.record([outcome])
        return code

    async def waiting(self, **fields: object) -> None:
        job = NewJob(id="j", provider="unless", operation="query", digest="d", spec=SPEC, deadline_ms=HOUR, **fields)
        await self.lanes.enqueue([job])
        fence = (await self.claim(Step.SUBMIT)).fence
        await self.record(Submitted(work_id="j", fence=fence, external_id="x-1", countdown_ms=0, submits=1))

    async def end(self, state: JobState, result: object = None) -> None:
        raw = None if result is None else codec.blob(codec.encode(result), 1000)
        fence = (await self.claim(Step.POLL)).fence
        error = "" if state is JobState.SUCCEEDED else ERROR
        await self.record(End(work_id="j", fence=fence, state=state, error=error, result=raw))

    async def fan_out(self) -> None:
        fence = (await self.claim(Step.CALLBACK)).fence
        assert await self.record(Fanout(work_id="j", fence=fence, targets=TARGETS)) is Recorded.WRITTEN

    async def ended_and(self, stage: str, state: JobState = JobState.FAILED) -> None:
        """Bring the job to its end, and its deliveries to this stage."""
        await self.waiting()
        await self.end(state)
        if stage == "ended":
            return
        await self.fan_out()
        if stage == "delivering":
            return
        crm = await self.claim(Step.DELIVER, "crm")
        await self.record(Delivered(work_id=crm.work_id, fence=crm.fence))
        if stage == "closed":
            erp = await self.claim(Step.DELIVER, "erp")
            await self.record(Dead(work_id=erp.work_id, fence=erp.fence, error=ERROR))


@pytest.fixture
def hands(settings: Settings, connection: Connection) -> Hands:
    return Hands(settings, connection)


async def job_of(client: StoreClient) -> Job:
    return await client.job("j")


@pytest.mark.parametrize("stage", STAGES)
async def test_an_ended_job_is_polled_again_and_its_next_end_is_delivered_to_every_target(
    client: StoreClient, hands: Hands, stage: str
) -> None:
    await hands.ended_and(stage)
    before = await job_of(client)
    await client.repoll("j")
    job = await job_of(client)
    assert (job.state, job.error, job.ended, job.closed) == (JobState.WAITING, None, None, None)
    assert (job.external_id, job.ledger.submits, job.attempts) == ("x-1", 1, 0)
    assert before.deadline is not None
    assert (job.deadline or 0) > before.deadline, "it gets as much time again"
    assert await client.deliveries("j") == []
    assert await client.dead() == []
    with pytest.raises(NotReplayable):
        await client.replay("j")
    assert await hands.lanes.purge() == 0
    await hands.end(JobState.SUCCEEDED, {"answer": 42})
    await hands.fan_out()
    made = 0 if stage == "ended" else len(TARGETS)
    deliveries = await client.deliveries("j")
    assert [(delivery.id, delivery.target) for delivery in deliveries] == [
        (f"j#{made + n}", target) for n, target in enumerate(TARGETS, 1)
    ], "a receiver ignores ids that it has seen"
    assert {delivery.state for delivery in deliveries} == {DeliveryState.PENDING}
    for target in TARGETS:
        claim = await hands.claim(Step.DELIVER, target)
        await hands.record(Delivered(work_id=claim.work_id, fence=claim.fence))
    job = await job_of(client)
    assert (job.state, job.closed is not None, job.ledger.submits) == (JobState.SUCCEEDED, True, 1)
    assert await client.result("j") == {"answer": 42}
    events = [entry.event for entry in await client.timeline("j")]
    assert [event for event in events if event in {"failed", "repolled", "succeeded"}] == [
        "failed",
        "repolled",
        "succeeded",
    ]

    async def purged() -> bool:
        return await hands.lanes.purge() == 1

    await until(purged)
    left = await hands.connection.redis.keys(f"{hands.connection.keys.root}*j*")
    assert [key for key in left if b"}:d:" in key or key.endswith(b":j")] == []


async def test_what_was_on_its_way_for_the_last_end_changes_nothing(client: StoreClient, hands: Hands) -> None:
    await hands.ended_and("delivering")
    crm = await hands.claim(Step.DELIVER, "crm")
    await client.repoll("j")
    assert await hands.record(Delivered(work_id=crm.work_id, fence=crm.fence)) is Recorded.UNKNOWN
    await hands.end(JobState.FAILED)
    callback = await hands.claim(Step.CALLBACK)
    await client.repoll("j")
    late = Fanout(work_id="j", fence=callback.fence, targets=TARGETS)
    assert await hands.record(late) is Recorded.REFUSED
    assert ((await job_of(client)).state, await client.deliveries("j")) == (JobState.WAITING, [])


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.EXPIRED, JobState.CANCELLED])
async def test_whatever_its_end_was(client: StoreClient, hands: Hands, state: JobState) -> None:
    await hands.ended_and("ended", state)
    await client.repoll("j")
    assert (await client.timeline("j"))[-1].detail == f"it had {state}"
    assert await client.counts() == {"unless": dict.fromkeys(JobState, 0) | {JobState.WAITING: 1}}


async def test_what_cannot_be_polled_is_refused(client: StoreClient, hands: Hands) -> None:
    with pytest.raises(JobNotFound):
        await client.repoll("j")
    await hands.waiting()
    with pytest.raises(WrongState, match="it has not ended"):
        await client.repoll("j")
    await hands.end(JobState.SUCCEEDED, 1)
    with pytest.raises(WrongState, match="it has its result"):
        await client.repoll("j")
    assert (await job_of(client)).state is JobState.SUCCEEDED


async def test_a_job_that_its_provider_never_took_is_not_polled(client: StoreClient, hands: Hands) -> None:
    await hands.lanes.enqueue([NewJob(id="j", provider="unless", operation="query", digest="d", spec=SPEC)])
    fence = (await hands.claim(Step.SUBMIT)).fence
    await hands.record(Uncertain(work_id="j", fence=fence, reason="lost", submits=1))
    await hands.record(End(work_id="j", fence=NO_FENCE, state=JobState.CANCELLED, error=ERROR))
    with pytest.raises(WrongState, match="its provider never took it"):
        await client.repoll("j")


async def test_two_people_press_at_once(client: StoreClient, hands: Hands) -> None:
    await hands.ended_and("closed")
    answers = await asyncio.gather(client.repoll("j"), client.repoll("j"), return_exceptions=True)
    assert [type(answer) for answer in answers].count(type(None)) == 1
    assert [entry.event for entry in await client.timeline("j")].count("repolled") == 1


async def test_how_long_a_repolled_job_took_teaches_nothing(client: StoreClient, hands: Hands) -> None:
    await hands.ended_and("ended")
    await client.repoll("j")
    await hands.end(JobState.SUCCEEDED, 1)
    assert await hands.connection.redis.keys(f"{hands.connection.keys.root}took:*") == []


async def test_the_button_is_on_the_page_of_a_job_that_can_be_polled_again(
    settings: Settings, hands: Hands, connection: Connection
) -> None:
    await hands.waiting()
    async with visitor(settings, "http://127.0.0.1:8080") as browser:
        await logged_in(browser, connection)
        assert "/jobs/j/repoll" not in (await browser.get("/jobs/j")).text
        await hands.end(JobState.EXPIRED)
        page = (await browser.get("/jobs/j")).text
        assert 'action="/jobs/j/repoll"' in page
        form = dict(re.findall(r'name="(csrf)" value="([0-9a-f]+)"', page))
        pressed = await browser.post("/jobs/j/repoll", data=form)
        assert pressed.status_code == 303
        assert "The job is polled again." in (await browser.get(pressed.headers["location"])).text
