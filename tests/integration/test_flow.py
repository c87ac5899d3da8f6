"""The main job, end to end: real workers, a real Redis, the sandbox over HTTP, results where the handlers put them."""

import json
from collections.abc import Iterator

import pytest
from celery import Celery

from outwait.client.store import StoreClient
from outwait.worker.model.errors import InvalidRequest
from outwait.worker.model.jobs import DeliveryState, JobRequest, JobState
from outwait.worker.model.outcomes import Choice
from tests.stack import WORKER, Stack, closed, ended, query, until

HANDLERS = """
from outwait import handler
from outwait.worker.model.errors import DeliveryRefused

@handler("refuses")
def refuses():
    raise DeliveryRefused("never will")
"""


@pytest.fixture(scope="module")
def stack(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("flow")
    (folder / "flow_handlers.py").write_text(HANDLERS)
    (folder / "upload").mkdir()
    (folder / "upload" / "call.wav").write_bytes(b"RIFF" + bytes(1000))
    variables = {
        "OUTWAIT_PROVIDERS__ELEVATEAI__UPLOAD_FOLDER": str(folder / "upload"),
        "OUTWAIT_HANDLERS__MODULES": "flow_handlers",
    }
    with Stack(redis_url, folder, options={"behaviour": {"duration": 0.3}}, variables=variables) as running:
        running.worker()
        yield running


RECORDING = {"contentUri": "https://a.example/1.wav", "encoding": "Wav", "languageCode": "en-US"}
REQUESTS = {
    "speech-to-text": ("ringcentral", RECORDING),
    "punctuate": ("ringcentral", {"texts": ["hello how are you"]}),
    "audio": ("elevateai", {"languageTag": "en-us", "vertical": "default", "downloadUri": "https://a.example/2.wav"}),
    "query": ("unless", {"query": "why?", "sessionId": "s", "visitorId": "v"}),
}


@pytest.mark.parametrize("operation", REQUESTS)
async def test_a_job_of_each_provider_ends_with_its_result_delivered(stack: Stack, operation: str) -> None:
    provider, params = REQUESTS[operation]
    request = JobRequest(
        provider=provider, operation=operation, params=params, targets=[f"file:{operation}.jsonl"], metadata={"n": 1}
    )
    async with stack.client() as client:
        job_id = (await client.enqueue(request)).job_id
        job = await closed(client, job_id)
        assert job.state is JobState.SUCCEEDED, job.error
        assert job.ledger.submits == 1
        result = await client.result(job_id)
        assert [delivery.state for delivery in await client.deliveries(job_id)] == [DeliveryState.DELIVERED]
    line = json.loads((stack.folder / "results" / f"{operation}.jsonl").read_text())
    assert (line["job_id"], line["result"], line["metadata"], line["state"]) == (job_id, result, {"n": 1}, "succeeded")


async def test_an_audio_file_is_uploaded_and_its_three_results_are_read(stack: Stack) -> None:
    params = {"languageTag": "en-us", "vertical": "default", "source": "call.wav", "includeAiResults": True}
    async with stack.client() as client:
        job_id = (await client.enqueue(JobRequest(provider="elevateai", operation="audio", params=params))).job_id
        job = await ended(client, job_id)
        assert job.state is JobState.SUCCEEDED, job.error
        assert {"transcript", "punctuated", "ai"} <= set(await client.result(job_id))
        assert job.ledger.submits == 1


async def test_what_the_provider_says_failed_fails_with_its_words(stack: Stack) -> None:
    async with stack.client() as client:
        job_id = (await client.enqueue(query('x sandbox:{"outcome":"failure"}', targets=["file:failed.jsonl"]))).job_id
        job = await closed(client, job_id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.code == "provider_failed"
    assert json.loads((stack.folder / "results" / "failed.jsonl").read_text())["state"] == "failed"


async def test_a_job_that_never_finishes_expires_at_its_deadline(stack: Stack) -> None:
    async with stack.client() as client:
        job_id = (await client.enqueue(query('x sandbox:{"outcome":"never"}', deadline=6))).job_id
        job = await ended(client, job_id)
    assert job.state is JobState.EXPIRED
    assert job.ledger.polls >= 2


async def test_the_timeline_tells_the_story(stack: Stack) -> None:
    async with stack.client() as client:
        job_id = (await client.enqueue(query())).job_id
        await closed(client, job_id)
        events = [entry.event for entry in await client.timeline(job_id)]
    assert events[:2] == ["enqueued", "submitted"]
    assert events[-3:] == ["succeeded", "callback", "closed"]


async def test_a_refused_delivery_is_dead_at_once_and_can_be_replayed(stack: Stack) -> None:
    async with stack.client() as client:
        job_id = (await client.enqueue(query(targets=["refuses"]))).job_id
        await closed(client, job_id)
        (delivery,) = await client.deliveries(job_id)
        assert delivery.state is DeliveryState.DEAD
        assert delivery.error is not None
        assert delivery.error.message == "never will"
        assert await client.replay(job_id) == 1

        async def dead_again() -> bool:
            return (await client.job(job_id)).ledger.deliveries == 2

        await until(dead_again)
        assert (await client.job(job_id)).ledger.submits == 1


async def test_a_cancelled_job_ends_its_handlers_hear_of_it_and_the_provider_is_told(stack: Stack) -> None:
    params = {
        "languageTag": "en-us",
        "vertical": "default",
        "downloadUri": 'https://a.example/3.wav?sandbox={"outcome":"never"}',
    }
    request = JobRequest(provider="elevateai", operation="audio", params=params, targets=["file:cancelled.jsonl"])
    async with stack.client() as client:
        job_id = (await client.enqueue(request)).job_id
        await state(client, job_id, JobState.WAITING)
        assert await client.cancel(job_id)
        job = await closed(client, job_id)
        assert (job.state, job.error and job.error.code) == (JobState.CANCELLED, "cancelled")
        answers = [entry.detail for entry in await client.timeline(job_id) if entry.event == "provider-told"]
        assert answers == ["the interaction was deleted"]
        with pytest.raises(InvalidRequest, match="has ended"):
            await client.cancel(job_id)
    assert json.loads((stack.folder / "results" / "cancelled.jsonl").read_text())["state"] == "cancelled"


async def test_celerys_revoke_cancels_the_job(stack: Stack) -> None:
    async with stack.client() as client:
        job_id = (await client.enqueue(query('r sandbox:{"outcome":"never"}'))).job_id
        await state(client, job_id, JobState.WAITING)
        with Celery(broker=stack.variables["OUTWAIT_REDIS_URL"]) as producer:
            producer.control.revoke(job_id, terminate=True)
        job = await ended(client, job_id)
    assert job.state is JobState.CANCELLED


async def test_an_uncertain_submit_is_held_until_a_person_resolves_it(stack: Stack) -> None:
    marker = '{"faults":[{"fault":"drop_after","on":"submit"}]}'
    async with stack.client() as client:
        job_id = (await client.enqueue(query(f"lost sandbox:{marker}"))).job_id
        await state(client, job_id, JobState.UNCERTAIN)

        async def is_held() -> bool:
            return "held" in [entry.event for entry in await client.timeline(job_id)]

        await until(is_held)
        (submitted,) = stack.sandbox("GET", "/_ledger?text=lost")["jobs"]
        await client.resolve(job_id, Choice.SUBMITTED_AS, submitted["id"])
        job = await closed(client, job_id)
    assert job.state is JobState.SUCCEEDED
    assert job.ledger.submits == 1


async def state(client: StoreClient, job_id: str, wanted: JobState) -> None:
    async def look() -> bool:
        return (await client.job(job_id)).state is wanted

    await until(look, what=f"job {job_id} is {wanted}")


async def test_a_worker_says_that_it_does_not_use_the_proxy_of_its_environment(stack: Stack) -> None:
    worker = stack.start(WORKER, "proxied", HTTPS_PROXY="http://user:word@proxy.example:3128")

    async def said() -> bool:
        return "OUTWAIT_OUTBOUND__PROXY" in stack.logs("proxied")

    await until(said)
    (line,) = [line for line in stack.logs("proxied").splitlines() if "proxy-unused" in line]
    assert "HTTPS_PROXY" in line
    assert "word" not in line
    worker.terminate()
