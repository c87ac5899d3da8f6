"""Odd results: what was paid for is kept, and the timeline says what is missing or was changed."""

from collections.abc import Iterator

import pytest

from outwait.client.store import StoreClient
from outwait.worker.model.jobs import JobRequest, JobState
from outwait.worker.model.json_text import NO_CHARACTERS, NO_NUMBERS
from tests.stack import Stack, ended


@pytest.fixture(scope="module")
def stack(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("results")
    with Stack(redis_url, folder, options={"behaviour": {"duration": 0.2}, "poll_minimum": 0.05}) as running:
        running.worker()
        yield running


def call(order: str) -> JobRequest:
    params = {
        "languageTag": "en-us",
        "vertical": "default",
        "downloadUri": f"https://a.example/1.wav?sandbox={order}",
        "includeAiResults": True,
    }
    return JobRequest(provider="elevateai", operation="audio", params=params)


async def warnings(client: StoreClient, job_id: str) -> list[str]:
    return [entry.detail for entry in await client.timeline(job_id) if entry.event == "warning"]


async def test_parts_that_are_404_at_first_are_not_null(stack: Stack) -> None:
    async with stack.client() as client:
        job_id = (await client.enqueue(call('{"absences":2}'))).job_id
        job = await ended(client, job_id)
        result = await client.result(job_id)
        assert (job.state, job.ledger.submits) == (JobState.SUCCEEDED, 1)
        assert result["punctuated"]["sentenceSegments"]
        assert result["ai"]["allParticipants"]
        assert await warnings(client, job_id) == ["processed, but there is no punctuated and ai yet"] * 2


async def test_parts_that_never_come_are_null_and_the_timeline_says_so(stack: Stack) -> None:
    async with stack.client() as client:
        job_id = (await client.enqueue(call('{"absences":99}'))).job_id
        job = await ended(client, job_id)
        result = await client.result(job_id)
        assert job.state is JobState.SUCCEEDED
        assert result["transcript"]["allParticipants"]
        assert (result["punctuated"], result["ai"]) == (None, None)
        last = (await warnings(client, job_id))[-1]
        assert last == "the provider has no punctuated and ai, although it was ordered: null in the result"


async def test_parts_that_have_not_come_at_the_deadline_do_not_cost_the_others(stack: Stack) -> None:
    request = call('{"absences":99}').model_copy(update={"deadline": 1.5})
    async with stack.client() as client:
        job_id = (await client.enqueue(request)).job_id
        job = await ended(client, job_id)
        assert job.state is JobState.SUCCEEDED
        assert (await client.result(job_id))["transcript"]["allParticipants"]


async def test_a_result_that_is_no_strict_json_is_kept(stack: Stack) -> None:
    uri = 'https://a.example/2.mp3?sandbox={"faults":[{"fault":"odd_json","on":"poll","times":null}]}'
    params = {"contentUri": uri, "encoding": "Mpeg", "languageCode": "en-US"}
    async with stack.client() as client:
        request = JobRequest(provider="ringcentral", operation="speech-to-text", params=params)
        job_id = (await client.enqueue(request)).job_id
        job = await ended(client, job_id)
        assert job.state is JobState.SUCCEEDED
        result = await client.result(job_id)
        assert result["confidence"] == "NaN"
        assert result["transcript"].startswith("This \ufffd is the result")
        assert await warnings(client, job_id) == [f"{NO_NUMBERS}; {NO_CHARACTERS}"]
