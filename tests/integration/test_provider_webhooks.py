"""What a webhook changes, in every state of its job: on a real server, without a web process."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from outwait.client.store import StoreClient
from outwait.config.settings import Settings
from outwait.worker.engine.lane_policies import Policies
from outwait.worker.engine.provider_webhooks import WebhookProcessor, WebhookUrls
from outwait.worker.model.errors import InvalidRequest
from outwait.worker.model.jobs import Claim, Job, JobError, JobState, Step
from outwait.worker.model.lanes import Lane
from outwait.worker.model.outcomes import Cancel, Choice, End, Fanout, Hold, Outage, Retry, Submitted, Uncertain, Wait
from outwait.worker.providers.contract import Succeeded
from outwait.worker.providers.registry import Registry, build
from outwait.worker.store import codec
from outwait.worker.store.codes import Recorded
from outwait.worker.store.connection import Connection
from outwait.worker.store.fields import JobField
from outwait.worker.store.lanes import Held, LanePolicy, Lanes, NewJob
from outwait.worker.store.provider_webhooks import ProviderWebhooks, Webhook
from outwait.worker.store.store import Store
from tests.stack import until

SPEC = codec.blob(codec.encode({"params": {}, "targets": [], "metadata": {}}), 1000)
EXTERNAL = "4ad42b6a-0000"
SUCCESS = {"jobId": EXTERNAL, "status": "Success", "response": {"transcript": "hello"}}
BARE = {"status": "Success", "response": {"transcript": "hello"}}
HOUR = 3_600_000


@pytest.fixture
def settings(settings: Settings) -> Settings:
    keys = {"client_id": "i", "client_secret": "s", "jwt": "j", "poll_every": 30}
    web = settings.web.model_copy(update={"public_url": "https://hooks.example.com/"})
    return settings.model_copy(update={"providers": {"ringcentral": keys}, "web": web})


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[StoreClient]:
    async with StoreClient(settings) as client:
        yield client


class Hands:
    """Does what workers, the provider and the web process do with one job, `j`."""

    def __init__(self, settings: Settings, connection: Connection, client: StoreClient, *, trust: bool = False) -> None:
        self.connection, self.client = connection, client
        self.lanes = Lanes(connection)
        self.registry: Registry = build({"ringcentral": settings.providers["ringcentral"] | {"trust_webhooks": trust}})
        self.policies = Policies(settings, self.registry)
        self.webhooks = WebhookProcessor(Store(connection), self.registry)

    async def claim(self, step: Step, *, lease: int = 60_000) -> Claim:
        lane = Lane.of(step, "ringcentral")
        policy = LanePolicy(batch=10, lease_ms=lease, cap=10, min_interval_ms=30_000 if step is Step.POLL else 0)
        claims = await self.lanes.claim(lane, policy)
        (claim,) = claims
        _, (fence,) = await self.lanes.begin(lane, policy, [Held(claim.work_id, claim.fence)])
        if step is Step.SUBMIT:
            await self.lanes.renew(lane, policy, [Held(claim.work_id, fence)], intent=True)
        return msgspec.structs.replace(claim, fence=fence)

    async def doubted(self) -> Claim:
        """A worker looks at the uncertain job; nothing is sent for it."""
        (claim,) = await self.lanes.claim(
            Lane.of(Step.SUBMIT, "ringcentral"), LanePolicy(batch=10, lease_ms=60_000, cap=10)
        )
        return claim

    async def on_its_way(self) -> Claim:
        """The request has left; its answer is not known."""
        await self.lanes.enqueue(
            [NewJob(id="j", provider="ringcentral", operation="speech-to-text", digest="d", spec=SPEC)]
        )
        return await self.claim(Step.SUBMIT)

    async def waiting(self, countdown: int = 300_000) -> None:
        await self.submitted(await self.on_its_way(), countdown)

    async def submitted(self, claim: Claim, countdown: int, not_before: int = 0) -> None:
        await self.record(
            Submitted(
                work_id=claim.work_id,
                fence=claim.fence,
                external_id=EXTERNAL,
                memo="webhook",
                countdown_ms=countdown,
                submits=1,
                not_before_ms=not_before,
            )
        )

    async def polled(self, countdown: int, hurried: int) -> Recorded:
        claim = await self.claim(Step.POLL)
        return await self.record(
            Wait(
                work_id="j",
                fence=claim.fence,
                countdown_ms=countdown,
                status="InProgress",
                webhook_countdown_ms=hurried,
                polls=1,
            )
        )

    async def record(self, *outcomes: object) -> Recorded:
        codes, _ = await self.lanes.record(outcomes)  # type: ignore[arg-type]
        return codes[0]

    async def hear(self, body: object = SUCCESS, *, job_id: str = "j", problem: str = "") -> Recorded:
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        return await self.record(
            self.webhooks.webhook_received(Webhook("ringcentral", job_id, content, len(content), problem))
        )

    async def job(self) -> Job:
        return await self.client.job("j")

    async def story(self) -> list[str]:
        return [f"{entry.event} {entry.detail}".strip() for entry in await self.client.timeline("j")]

    async def due_in(self) -> float:
        """Milliseconds until the job's next step."""
        (second, micro), job = await self.connection.redis.time(), await self.job()
        assert job.due is not None
        return job.due * 1000 - (second * 1000 + micro / 1000)


@pytest.fixture
def hands(settings: Settings, connection: Connection, client: StoreClient) -> Hands:
    return Hands(settings, connection, client)


@pytest.fixture
def trusting(settings: Settings, connection: Connection, client: StoreClient) -> Hands:
    return Hands(settings, connection, client, trust=True)


async def test_a_token_is_for_one_job_of_one_provider(settings: Settings, connection: Connection) -> None:
    addresses = WebhookUrls(settings, ProviderWebhooks(connection))
    url = await addresses.url("ringcentral", "j:1@a.b")
    assert url is not None
    root, _, token = url.rpartition("/")
    assert root == "https://hooks.example.com/webhooks/ringcentral"
    assert addresses.job_of("ringcentral", token) == "j:1@a.b"
    assert addresses.job_of("elevateai", token) is None
    other = "B" if token[0] == "A" else "A"
    for wrong in (token[:-1], token + "c", other + token[1:], token[1:], "", "j:1@a.b", "ä" * 30, token + "\n"):
        assert addresses.job_of("ringcentral", wrong) is None
    another = WebhookUrls(settings, ProviderWebhooks(connection))
    await another.open()
    assert another.job_of("ringcentral", token) == "j:1@a.b"  # another process, the same secret
    elsewhere = WebhookUrls(settings.model_copy(update={"namespace": "other"}), ProviderWebhooks(connection))
    await elsewhere.open()
    assert elsewhere.job_of("ringcentral", token) is None


async def test_without_a_public_url_no_webhook_is_asked_for(settings: Settings, connection: Connection) -> None:
    nowhere = settings.model_copy(update={"web": settings.web.model_copy(update={"public_url": None})})
    assert await WebhookUrls(nowhere, ProviderWebhooks(connection)).url("ringcentral", "j") is None


async def test_a_webhook_makes_the_first_poll_due_and_a_poll_confirms(hands: Hands) -> None:
    await hands.waiting()
    assert await hands.due_in() > 200_000
    assert await hands.hear() is Recorded.WRITTEN
    assert await hands.due_in() <= 0
    job = await hands.job()
    assert (job.state, job.ledger.webhooks, job.ledger.submits) == (JobState.WAITING, 1, 1)
    assert (await hands.story())[-1] == "webhook Success, 78 bytes; a poll confirms it"


async def test_a_poll_is_never_hurried_under_the_providers_interval(hands: Hands) -> None:
    await hands.waiting(0)
    await hands.polled(HOUR, 0)
    await hands.hear()
    assert 20_000 < await hands.due_in() <= 30_000


async def test_a_webhook_does_not_shorten_what_a_provider_asked_for(hands: Hands) -> None:
    await hands.waiting(0)
    await hands.polled(HOUR, 120_000)
    await hands.hear()
    assert 110_000 < await hands.due_in() <= 120_000


@pytest.mark.parametrize("early", [False, True])
async def test_a_webhook_does_not_shorten_what_the_submits_answer_asked_for(hands: Hands, *, early: bool) -> None:
    claim = await hands.on_its_way()
    if early:
        await hands.hear()
    await hands.submitted(claim, HOUR, 120_000)
    await hands.hear()
    assert 110_000 < await hands.due_in() <= 120_000


async def test_a_webhook_does_not_shorten_the_countdown_of_a_failed_poll(hands: Hands) -> None:
    await hands.waiting(0)
    claim = await hands.claim(Step.POLL)
    await hands.record(
        Retry(work_id="j", fence=claim.fence, countdown_ms=77_000, reason="unavailable", attempt=1, polls=1)
    )
    await hands.hear()
    assert 67_000 < await hands.due_in() <= 77_000


async def test_a_webhook_does_not_hurry_past_a_lost_poll(hands: Hands) -> None:
    await hands.waiting(0)
    await hands.claim(Step.POLL, lease=1)

    async def lease_ended() -> bool:
        await hands.lanes.claim(
            Lane.of(Step.POLL, "ringcentral"), LanePolicy(batch=10, lease_ms=1, cap=10, min_interval_ms=30_000)
        )
        return any("lease-ended" in line for line in await hands.story())

    await until(lease_ended)
    await hands.hear()
    assert 20_000 < await hands.due_in() <= 30_000


async def test_a_job_that_is_being_polled_is_hurried_afterwards_and_from_then_on(hands: Hands) -> None:
    await hands.waiting(0)
    claim = await hands.claim(Step.POLL)
    await hands.hear()
    await hands.record(
        Wait(work_id="j", fence=claim.fence, countdown_ms=HOUR, status="InProgress", webhook_countdown_ms=1, polls=1)
    )
    await until(lambda: _due(hands))
    await hands.polled(HOUR, 30_000)
    assert 20_000 < await hands.due_in() <= 30_000  # not back to the slow safety net


async def _due(hands: Hands) -> bool:
    return await hands.due_in() <= 0


async def test_without_a_webhook_the_safety_net_is_slow(hands: Hands) -> None:
    await hands.waiting(0)
    await hands.polled(HOUR, 30_000)
    assert await hands.due_in() > HOUR - 1000


@pytest.mark.parametrize("body", [SUCCESS, BARE])
async def test_a_webhook_before_the_submits_answer(hands: Hands, body: object) -> None:
    claim = await hands.on_its_way()
    await hands.hear(body)
    job = await hands.job()
    assert (job.state, job.external_id, job.ledger.webhooks) == (JobState.QUEUED, None, 1)
    await hands.record(
        Submitted(work_id="j", fence=claim.fence, external_id=EXTERNAL, memo="webhook", countdown_ms=300_000, submits=1)
    )
    job = await hands.job()
    assert (job.state, job.external_id, job.ledger.submits) == (JobState.WAITING, EXTERNAL, 1)
    assert await hands.due_in() <= 0
    assert [line.split()[0:2] for line in await hands.story()][1:] == [["webhook", "early,"], ["submitted"]]


async def unnamed(hands: Hands, claim: Claim) -> None:
    """The provider took the job, and answered nothing."""
    await hands.record(
        Submitted(work_id="j", fence=claim.fence, external_id="", memo="webhook", countdown_ms=HOUR, submits=1)
    )


@pytest.mark.parametrize("early", [False, True])
async def test_a_job_without_an_external_id_is_due_when_its_webhook_comes(hands: Hands, *, early: bool) -> None:
    claim = await hands.on_its_way()
    if early:
        await hands.hear(BARE)
    await unnamed(hands, claim)
    job = await hands.job()
    assert (job.state, job.external_id, job.ledger.submits) == (JobState.WAITING, None, 1)
    assert await hands.webhooks.last_answer("j") == (Succeeded(BARE["response"], "Success") if early else None)
    if not early:
        assert await hands.due_in() > HOUR - 10_000
        await hands.hear(BARE)
        assert (await hands.story())[-1].endswith("; nothing can be polled: what it says counts")
    assert await hands.due_in() <= 0
    assert await hands.webhooks.last_answer("j") == Succeeded(BARE["response"], "Success")


@pytest.mark.parametrize("early", [False, True])
async def test_a_webhook_names_the_external_id_that_the_submits_answer_did_not(hands: Hands, *, early: bool) -> None:
    claim = await hands.on_its_way()
    if early:
        await hands.hear()
    await unnamed(hands, claim)
    if not early:
        await hands.hear()
    job = await hands.job()
    assert (job.state, job.external_id) == (JobState.WAITING, EXTERNAL)
    assert await hands.due_in() <= 0


async def test_a_job_without_an_external_id_closes_no_breaker_when_it_is_looked_at(hands: Hands) -> None:
    await unnamed(hands, await hands.on_its_way())
    await hands.hear({"status": "new"})
    claim = await hands.claim(Step.POLL)
    outage = Outage(provider="ringcentral", reason="503", limit=1, wait_ms=HOUR, longest_ms=HOUR)
    look = Wait(work_id="j", fence=claim.fence, countdown_ms=HOUR, status="", polls=0, webhook_countdown_ms=30_000)
    await hands.record(outage, look)
    (governor,) = [status for status in await hands.client.providers() if status.provider == "ringcentral"]
    assert not governor.flows


async def test_an_early_webhook_of_an_unfinished_job_hurries_nothing(hands: Hands) -> None:
    claim = await hands.on_its_way()
    await hands.hear({"jobId": EXTERNAL, "status": "InProgress"})
    await hands.record(
        Submitted(work_id="j", fence=claim.fence, external_id=EXTERNAL, memo="webhook", countdown_ms=300_000, submits=1)
    )
    assert await hands.due_in() > 200_000


async def test_an_early_webhook_about_another_job_hurries_nothing(hands: Hands) -> None:
    claim = await hands.on_its_way()
    await hands.hear(SUCCESS | {"jobId": "another"})
    await hands.record(
        Submitted(work_id="j", fence=claim.fence, external_id=EXTERNAL, memo="webhook", countdown_ms=300_000, submits=1)
    )
    assert await hands.due_in() > 200_000
    assert "warning a webhook named another external id: another" in await hands.story()


async def adopted(hands: Hands, *, submits: int = 1) -> None:
    job = await hands.job()
    assert (job.state, job.external_id, job.ledger.submits) == (JobState.WAITING, EXTERNAL, submits)
    assert await hands.due_in() <= 0
    assert f"adopted {EXTERNAL}" in await hands.story()
    assert (await hands.claim(Step.POLL)).external_id == EXTERNAL


async def test_an_early_webhook_adopts_the_job_when_the_answer_is_lost(hands: Hands) -> None:
    claim = await hands.on_its_way()
    await hands.hear()
    assert (
        await hands.record(Uncertain(work_id="j", fence=claim.fence, reason="answer_lost: broken", submits=1))
        is Recorded.WRITTEN
    )
    await adopted(hands)


async def test_an_early_webhook_adopts_the_job_when_its_worker_is_lost(hands: Hands) -> None:
    await hands.lanes.enqueue(
        [NewJob(id="j", provider="ringcentral", operation="speech-to-text", digest="d", spec=SPEC)]
    )
    await hands.claim(Step.SUBMIT, lease=1)
    await hands.hear()

    async def lease_ended() -> bool:
        assert (
            await hands.lanes.claim(Lane.of(Step.SUBMIT, "ringcentral"), LanePolicy(batch=10, lease_ms=1, cap=10)) == []
        )
        return (await hands.job()).state is JobState.WAITING

    await until(lease_ended)
    await adopted(hands)


async def test_a_webhook_adopts_a_job_whose_answer_seemed_to_say_that_it_was_not_taken(hands: Hands) -> None:
    claim = await hands.on_its_way()
    await hands.hear()
    await hands.record(
        Retry(work_id="j", fence=claim.fence, countdown_ms=0, reason="unavailable: 503", submits=1, attempt=1)
    )
    await adopted(hands)


@pytest.mark.parametrize("held", [False, True])
async def test_a_webhook_adopts_an_uncertain_job(hands: Hands, held: bool) -> None:  # noqa: FBT001 - a parameter
    claim = await hands.on_its_way()
    await hands.record(Uncertain(work_id="j", fence=claim.fence, reason="answer_lost: broken", submits=1))
    claim = await hands.doubted()
    if held:
        await hands.record(Hold(work_id="j", fence=claim.fence, reason="a person decides"))
    await hands.hear()
    assert await hands.record(Hold(work_id="j", fence=claim.fence, reason="too late")) is Recorded.REFUSED
    await adopted(hands)


async def test_what_a_worker_of_the_release_before_left_is_adopted_instead_of_held(hands: Hands) -> None:
    claim = await hands.on_its_way()
    await hands.record(Uncertain(work_id="j", fence=claim.fence, reason="answer_lost: broken", submits=1))
    await hands.connection.redis.hset(hands.connection.keys("JOB", "j"), JobField.WEBHOOK_EXTERNAL_ID, EXTERNAL)
    claim = await hands.doubted()
    await hands.record(Hold(work_id="j", fence=claim.fence, reason="a person decides"))
    await adopted(hands)


async def test_a_cancel_asked_for_meanwhile_wins_over_adoption_and_the_provider_can_be_told(hands: Hands) -> None:
    claim = await hands.on_its_way()
    assert (
        await hands.record(Cancel(work_id="j", error=JobError("cancelled", "by a person").text()))
        is Recorded.CANCEL_PENDING
    )
    await hands.hear()
    await hands.record(Uncertain(work_id="j", fence=claim.fence, reason="answer_lost: broken", submits=1))
    claim = await hands.doubted()
    await hands.record(Hold(work_id="j", fence=claim.fence, reason="a person decides"))
    job = await hands.job()
    assert (job.state, job.external_id) == (JobState.CANCELLED, EXTERNAL)


async def test_a_body_without_an_id_leaves_the_job_held_until_a_person_accepts_it(hands: Hands) -> None:
    claim = await hands.on_its_way()
    await hands.hear(BARE)
    await hands.record(Uncertain(work_id="j", fence=claim.fence, reason="answer_lost: broken", submits=1))
    claim = await hands.doubted()
    await hands.record(Hold(work_id="j", fence=claim.fence, reason="a person decides"))
    assert "held a person decides; a webhook said that it ended" in await hands.story()
    assert (await hands.job()).state is JobState.UNCERTAIN
    await hands.client.resolve("j", Choice.AS_WEBHOOK)
    job = await hands.job()
    assert (job.state, job.ledger.submits, job.ledger.webhooks) == (JobState.SUCCEEDED, 1, 1)
    assert await hands.client.result("j") == {"transcript": "hello"}
    with pytest.raises(InvalidRequest, match="not uncertain"):
        await hands.client.resolve("j", Choice.AS_WEBHOOK)


@pytest.mark.parametrize("policy", ["resubmit", "fail", "not taken"])
async def test_what_a_webhook_proves_is_neither_paid_again_nor_given_up(hands: Hands, policy: str) -> None:
    claim = await hands.on_its_way()
    await hands.hear(BARE)
    if policy == "not taken":  # so the answer seemed to say
        await hands.record(
            Retry(work_id="j", fence=claim.fence, countdown_ms=0, reason="unavailable: 503", submits=1, attempt=1)
        )
    else:
        await hands.record(Uncertain(work_id="j", fence=claim.fence, reason="answer_lost: broken", submits=1))
    assert (await hands.job()).state is JobState.UNCERTAIN
    claim = await hands.doubted()
    if policy == "fail":
        await hands.record(
            End(work_id="j", fence=claim.fence, state=JobState.FAILED, error=JobError("uncertain", "the policy").text())
        )
    else:
        await hands.record(
            Retry(work_id="j", fence=claim.fence, countdown_ms=0, reason="uncertain: the policy", attempt=1)
        )
    job = await hands.job()
    assert (job.state, job.due, job.ledger.submits) == (JobState.UNCERTAIN, None, 1)
    assert (await hands.story())[-1] == "held the provider has it; a webhook said that it ended"
    await hands.client.resolve("j", Choice.AS_WEBHOOK)
    assert (await hands.job()).state is JobState.SUCCEEDED


async def test_a_rejected_submit_whose_webhook_comes_first_is_adopted(hands: Hands) -> None:
    claim = await hands.on_its_way()
    await hands.hear()
    await hands.record(
        End(work_id="j", fence=claim.fence, state=JobState.FAILED, error=JobError("rejected", "400").text(), submits=1)
    )
    await adopted(hands)


async def test_a_person_cannot_accept_what_no_webhook_said_nor_end_a_job_that_is_not_in_doubt(hands: Hands) -> None:
    claim = await hands.on_its_way()
    await hands.record(Uncertain(work_id="j", fence=claim.fence, reason="answer_lost: broken", submits=1))
    with pytest.raises(InvalidRequest, match="no webhook of job j says how it ended"):
        await hands.client.resolve("j", Choice.AS_WEBHOOK)
    await hands.hear()
    with pytest.raises(InvalidRequest, match="not uncertain but waiting"):
        await hands.client.resolve("j", Choice.AS_WEBHOOK)
    assert (await hands.job()).state is JobState.WAITING


async def test_what_comes_again_and_late_is_kept_and_changes_nothing(trusting: Hands, client: StoreClient) -> None:
    hands = trusting
    await hands.waiting()
    for _ in range(2):
        await hands.hear()
    story = await hands.story()
    assert [line for line in story if line.startswith(("webhook", "succeeded"))] == [
        "webhook Success, 78 bytes; trusted",
        "succeeded",
        "webhook again, Success, 78 bytes; changes nothing: the job had ended",
    ]
    assert len(await client.webhooks.of("j")) == 2
    assert (await hands.job()).ledger.webhooks == 2


async def test_the_same_call_counts_once(hands: Hands, client: StoreClient) -> None:
    await hands.waiting()
    outcome = hands.webhooks.webhook_received(Webhook("ringcentral", "j", b"{}", 2))
    for _ in range(2):
        assert await hands.record(outcome) is Recorded.WRITTEN  # Redis did it, and its answer was lost
    assert (await hands.job()).ledger.webhooks == 1
    assert len(await client.webhooks.of("j")) == 1


async def test_twenty_are_kept_and_the_rest_is_counted(hands: Hands, client: StoreClient) -> None:
    await hands.waiting()
    for number in range(25):
        await hands.hear({"status": f"s{number}"})
    kept = await client.webhooks.of("j")
    assert [webhook.summary for webhook in (kept[0], kept[-1])] == ["s0", "s19"]
    assert (await hands.job()).ledger.webhooks == 25
    assert sum(line.startswith("webhook") for line in await hands.story()) == 20


@pytest.mark.parametrize("answer", ["submitted", "uncertain", "none"])
async def test_trusted_before_the_submits_answer_it_ends_the_job_and_the_submit_counts_once(
    trusting: Hands, answer: str
) -> None:
    hands = trusting
    claim = await hands.on_its_way()
    await hands.hear()
    if answer == "submitted":
        assert (
            await hands.record(
                Submitted(work_id="j", fence=claim.fence, external_id=EXTERNAL, countdown_ms=0, submits=1)
            )
            is Recorded.REFUSED
        )
    elif answer == "uncertain":
        assert (
            await hands.record(Uncertain(work_id="j", fence=claim.fence, reason="lost", submits=1)) is Recorded.REFUSED
        )
    job = await hands.job()
    assert (job.state, job.external_id) == (JobState.SUCCEEDED, EXTERNAL)
    assert (job.ledger.submits, job.ledger.webhooks) == (1, 1)
    assert await hands.client.result("j") == {"transcript": "hello"}


async def test_a_trusted_webhook_about_another_job_ends_nothing(trusting: Hands) -> None:
    hands = trusting
    await hands.waiting()
    await hands.hear(SUCCESS | {"jobId": "another"})
    assert (await hands.job()).state is JobState.WAITING
    assert (await hands.story())[-1].endswith("changes nothing: it names another")


async def test_how_long_a_job_took_is_learnt_from_its_webhook(hands: Hands) -> None:
    await hands.waiting()
    redis, keys = hands.connection.redis, hands.connection.keys
    await redis.hincrby(keys("JOB", "j"), JobField.SUBMITTED, -60_000)  # submitted a minute ago
    await hands.hear()
    claim = await hands.claim(Step.POLL)
    await hands.record(hands.webhooks.webhook_received(Webhook("ringcentral", "j", b"{}", 2)))

    await hands.record(End(work_id="j", fence=claim.fence, state=JobState.SUCCEEDED))
    (took,) = await redis.lrange(keys("TOOK", "ringcentral", "speech-to-text"), 0, -1)
    assert 60_000 <= int(took) < 90_000  # and not half of it, as if nobody had seen it end


async def test_unreadable_ones_are_kept_and_a_poll_sees(hands: Hands, client: StoreClient) -> None:
    await hands.waiting()
    await hands.hear(b"\xff\xfe")
    assert await hands.due_in() <= 0
    deep = b'{"status":' + b"[" * 100_000
    for body in (b"", b"[]", deep, b'{"jobId":"\\ud800"}', b'{"status":"' + b"x" * 5000 + b'"}'):
        assert await hands.hear(body) is Recorded.WRITTEN
    await hands.hear(b"{", problem="too large")
    kept = await client.webhooks.of("j")
    assert [webhook.body for webhook in kept][:2] == [b"\xff\xfe", b""]
    assert kept[0].summary.startswith("unreadable_answer: ")
    assert kept[-1].summary == "too large"
    assert (await hands.job()).ledger.webhooks == 7


async def test_those_for_unknown_jobs_are_kept_apart_and_can_be_replayed(hands: Hands, client: StoreClient) -> None:
    assert await hands.hear(job_id="gone") is Recorded.UNKNOWN
    assert [(webhook.job_id, webhook.summary) for webhook in await client.webhooks.unknown()] == [("gone", "Success")]
    assert await client.webhooks.replay_unknown() == 0
    await hands.lanes.enqueue(
        [NewJob(id="gone", provider="ringcentral", operation="speech-to-text", digest="d", spec=SPEC)]
    )  # restored from a backup
    assert await client.webhooks.replay_unknown() == 1
    assert await client.webhooks.unknown() == []
    assert (await client.job("gone")).ledger.webhooks == 1


async def test_kept_ones_are_replayed_when_trust_was_switched_on(
    hands: Hands, trusting: Hands, client: StoreClient
) -> None:
    await hands.waiting()
    await hands.hear({"jobId": EXTERNAL, "status": "InProgress"})
    await hands.hear()
    assert await trusting.webhooks.replay("j") == 2
    job = await hands.job()
    assert (job.state, job.ledger.webhooks) == (JobState.SUCCEEDED, 2)
    assert len(await client.webhooks.of("j")) == 2
    assert "webhook replayed, Success, 78 bytes; trusted" in await hands.story()


async def test_a_purged_job_leaves_no_webhooks(settings: Settings) -> None:
    kept = settings.model_copy(update={"store": settings.store.model_copy(update={"retention": 0.001})})
    connection = Connection(kept)
    async with StoreClient(kept) as client:
        hands = Hands(kept, connection, client, trust=True)
        await hands.waiting()
        await hands.hear()

        claim = await hands.claim(Step.CALLBACK)
        await hands.record(Fanout(work_id="j", fence=claim.fence, targets=()))
        await until(lambda: _purged(hands))
        assert not await connection.redis.exists(connection.keys("WEBHOOKS", "j"))
    await connection.close()


async def _purged(hands: Hands) -> bool:
    return bool(await hands.lanes.purge())
