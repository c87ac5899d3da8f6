"""Nobody gets another job's result by its external id: each is one job's only, in every way in which a job gets one.

In release 0.2.0 `resolve --submitted-as` with another tenant's external id handed over its result.
"""

from collections.abc import AsyncIterator, Iterator

import httpx
import msgspec
import pytest

from outwait.client.store import StoreClient
from outwait.config.exits import Exit
from outwait.config.settings import Settings
from outwait.worker.engine.provider_webhooks import WebhookProcessor
from outwait.worker.model.errors import ExternalIdTaken
from outwait.worker.model.jobs import Claim, Job, JobState, Step
from outwait.worker.model.lanes import Lane
from outwait.worker.model.outcomes import NO_FENCE, Choice, End, Fanout, Submitted, Uncertain
from outwait.worker.providers.registry import build
from outwait.worker.store import codec
from outwait.worker.store.access import Access, Scope
from outwait.worker.store.codes import Recorded
from outwait.worker.store.connection import Connection
from outwait.worker.store.fields import JobField
from outwait.worker.store.lanes import Held, LanePolicy, Lanes, NewJob
from outwait.worker.store.provider_webhooks import Webhook
from outwait.worker.store.store import Store
from tests.stack import Stack, ended, query, until

SPEC = codec.blob(codec.encode({"params": {}}), 1000)
POLICY = LanePolicy(batch=10, lease_ms=60_000, cap=10)
X = "victims-id"
ENDED = {"jobId": X, "status": "Success", "response": {"transcript": "hello"}}


class Attack:
    """A victim's job, which the provider has under `X`, and an attacker's."""

    def __init__(self, connection: Connection, client: StoreClient) -> None:
        self.connection, self.client = connection, client
        self.lanes = Lanes(connection)

    async def submitting(self, job_id: str, lease_ms: int = 60_000) -> Claim:
        """Its request has left; its answer is not known."""
        job = NewJob(
            id=job_id, provider="ringcentral", operation="speech-to-text", digest=job_id, spec=SPEC, tenant=job_id
        )
        await self.lanes.enqueue([job])
        lane, policy = Lane.of(Step.SUBMIT, "ringcentral"), LanePolicy(batch=10, lease_ms=lease_ms, cap=10)
        (claim,) = await self.lanes.claim(lane, policy)
        _, (fence,) = await self.lanes.begin(lane, policy, [Held(job_id, claim.fence)])
        await self.lanes.renew(lane, policy, [Held(job_id, fence)], intent=True)
        return msgspec.structs.replace(claim, fence=fence)

    async def record(self, outcome: object) -> Recorded:
        (code,), _ = await self.lanes.record([outcome])  # type: ignore[list-item]
        return code

    async def answered(self, claim: Claim, external_id: str = X, fence: int | None = None) -> Recorded:
        fence = claim.fence if fence is None else fence
        return await self.record(
            Submitted(work_id=claim.work_id, fence=fence, external_id=external_id, countdown_ms=60_000, submits=1)
        )

    async def victim(self) -> None:
        assert await self.answered(await self.submitting("victim")) is Recorded.WRITTEN

    async def uncertain(self) -> None:
        claim = await self.submitting("attacker")
        await self.record(Uncertain(work_id="attacker", fence=claim.fence, reason="lost", submits=1))

    async def webhook(self, *, trusted: bool = False) -> None:
        """The attacker, who knows the URL for its own job, sends the victim's external id there."""
        settings = {"client_id": "i", "client_secret": "s", "jwt": "j", "trust_webhooks": trusted}
        webhooks = WebhookProcessor(Store(self.connection), build({"ringcentral": settings}))
        body = msgspec.json.encode(ENDED)
        await self.record(webhooks.webhook_received(Webhook("ringcentral", "attacker", body, len(body), "")))

    async def of_attacker(self) -> Job:
        return await self.client.job("attacker")

    async def timeline(self) -> str:
        return "\n".join(f"{entry.event} {entry.detail}" for entry in await self.client.timeline("attacker"))


@pytest.fixture
async def attack(settings: Settings, connection: Connection) -> AsyncIterator[Attack]:
    async with StoreClient(settings) as client:
        yield Attack(connection, client)


async def test_a_person_cannot_name_another_jobs_external_id(attack: Attack) -> None:
    await attack.victim()
    await attack.uncertain()
    with pytest.raises(ExternalIdTaken, match="another job of ringcentral has the external id 'victims-id'"):
        await attack.client.resolve("attacker", Choice.SUBMITTED_AS, X)
    assert (await attack.of_attacker()).state is JobState.UNCERTAIN
    await attack.client.resolve("attacker", Choice.SUBMITTED_AS, "its-own")
    assert (await attack.of_attacker()).external_id == "its-own"


async def test_nor_that_of_a_job_which_a_release_before_stored(attack: Attack) -> None:
    """Protected by worker/store/lua/catch_up.lua: such jobs are not known by their external ids yet."""
    await attack.victim()
    await attack.uncertain()
    redis = attack.connection.redis
    for key in [key async for key in redis.scan_iter(attack.connection.keys("EXTERNAL", "*"))]:
        await redis.delete(key)
    with pytest.raises(ExternalIdTaken):
        await attack.client.resolve("attacker", Choice.SUBMITTED_AS, X)


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("state", ["queued", "uncertain", "waiting"])
async def test_a_webhook_cannot_name_it(attack: Attack, state: str, *, trusted: bool) -> None:
    """Protected by worker/store/lua/record/webhooks.lua `apply_webhook`."""
    await attack.victim()
    if state == "uncertain":
        await attack.uncertain()
    else:
        claim = await attack.submitting("attacker")
        if state == "waiting":
            await attack.answered(claim, external_id="")
    await attack.webhook(trusted=trusted)
    job = await attack.of_attacker()
    assert (job.state, job.external_id) == (state, None)
    assert "it names victims-id, which another job has" in await attack.timeline()
    if state == "queued":
        await attack.answered(claim, external_id="its-own")
        assert (await attack.of_attacker()).external_id == "its-own"


async def test_a_lost_worker_does_not_adopt_it(attack: Attack) -> None:
    """Protected by worker/store/lua/prelude.lua `adopt`: a webhook named the id before anybody had it."""
    victims = await attack.submitting("victim")
    claim = await attack.submitting("attacker", lease_ms=1)
    await attack.webhook()
    redis, keys = attack.connection.redis, attack.connection.keys
    assert await redis.hget(keys("JOB", "attacker"), JobField.WEBHOOK_EXTERNAL_ID) == X.encode()
    await attack.answered(victims)
    await attack.lanes.claim(Lane.of(Step.SUBMIT, "ringcentral"), POLICY)  # ends the attacker's lease
    job = await attack.of_attacker()
    assert (job.state, job.external_id) == ("uncertain", None)
    assert "warning not adopted: another job has the external id victims-id" in await attack.timeline()
    assert await attack.answered(claim) is Recorded.REFUSED


async def test_an_answer_with_another_jobs_id_stays_for_a_person(attack: Attack) -> None:
    """Protected by worker/store/lua/record/jobs.lua `hold_unnamed`: neither shared nor submitted again."""
    await attack.victim()
    await attack.answered(await attack.submitting("attacker"))
    job = await attack.of_attacker()
    assert (job.state, job.external_id, job.due) == ("uncertain", None, None)
    assert job.ledger.submits == 1
    assert "the provider answered with the external id of another job, victims-id\nheld" in await attack.timeline()
    assert await attack.lanes.claim(Lane.of(Step.SUBMIT, "ringcentral"), POLICY) == []
    assert (await attack.client.job("victim")).external_id == X
    await attack.client.resolve("attacker", Choice.FAIL)


async def test_a_late_answer_with_it_adopts_nothing(attack: Attack) -> None:
    """Protected by worker/store/lua/record/jobs.lua `adopt_late`."""
    await attack.victim()
    claim = await attack.submitting("attacker")
    await attack.record(Uncertain(work_id="attacker", fence=claim.fence, reason="lost", submits=1))
    assert await attack.answered(claim) is Recorded.REFUSED
    assert (await attack.of_attacker()).state is JobState.UNCERTAIN


async def test_a_job_keeps_its_id_through_everything_and_leaves_it_when_it_is_purged(settings: Settings) -> None:
    brief = settings.model_copy(update={"store": settings.store.model_copy(update={"retention": 0.001})})
    short = Connection(brief)
    async with StoreClient(brief) as client:
        attack = Attack(short, client)
        await attack.uncertain()
        await client.resolve("attacker", Choice.SUBMITTED_AS, "first")
        await attack.record(End(work_id="attacker", fence=NO_FENCE, state="failed", error="{}"))
        buckets = [key async for key in short.redis.scan_iter(short.keys("EXTERNAL", "*"))]
        assert len(buckets) == 1
        (claim,) = await attack.lanes.claim(Lane.of(Step.CALLBACK, ""), POLICY)
        await attack.record(Fanout(work_id="attacker", fence=claim.fence, targets=()))

        async def purged() -> bool:
            return await attack.lanes.purge() == 1

        await until(purged)
        assert [key async for key in short.redis.scan_iter(short.keys("EXTERNAL", "*"))] == []
    await short.close()


async def test_the_same_job_may_learn_its_id_twice(attack: Attack) -> None:
    claim = await attack.submitting("victim")
    await attack.record(Uncertain(work_id="victim", fence=claim.fence, reason="lost", submits=1))
    assert await attack.answered(claim) is Recorded.WRITTEN  # the late answer
    assert (await attack.client.job("victim")).external_id == X
    await attack.client.cancel("victim")
    await attack.client.repoll("victim")
    assert (await attack.client.job("victim")).state is JobState.WAITING


@pytest.fixture(scope="module")
def stack(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(redis_url, tmp_path_factory.mktemp("ids"), options={"behaviour": {"duration": 0}}) as running:
        running.web()
        running.worker()
        yield running


async def test_another_tenants_result_is_not_handed_over(stack: Stack) -> None:
    """On real parts, over HTTP and with the command line."""
    async with stack.client() as client:
        victim = (await client.enqueue(query("secret of the victim", tenant="victim"))).job_id
        external_id = (await ended(client, victim)).external_id
        assert external_id
        lost = query('lost sandbox:{"faults":[{"fault":"drop_after","on":"submit"}]}', tenant="attacker")
        attacker = (await client.enqueue(lost)).job_id

        async def uncertain() -> bool:
            return (await client.job(attacker)).state is JobState.UNCERTAIN

        await until(uncertain)
        connection = Connection(stack.settings)
        key = await Access(connection).create("attacker", list(Scope), "attacker")
        await connection.close()
        headers = {"Authorization": f"Bearer {key.text}"}
        choice = {"choice": "submitted-as", "external_id": external_id}
        async with httpx.AsyncClient(base_url=stack.web_url, headers=headers, timeout=60) as http:
            answer = await http.post(f"/v1/jobs/{attacker}/resolve", json=choice)
        assert (answer.status_code, answer.json()["code"]) == (409, "external_id_taken")
        typed = stack.run("resolve", attacker, "--submitted-as", external_id)
        assert typed.returncode == Exit.REFUSED
        assert "another job of unless has the external id" in typed.stderr
        assert (await client.job(attacker)).state is JobState.UNCERTAIN
        assert victim not in answer.text + typed.stderr
