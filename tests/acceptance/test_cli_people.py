"""What a person decides, typed as a user types it, beside a real worker: cancel, resolve, pause, resume, replay."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery

from outwait.client.store import Enqueued
from outwait.worker.model.jobs import JobRequest, JobState
from outwait.worker.model.outcomes import Pause
from outwait.worker.store.store import Store
from tests import forked
from tests.stack import Stack, closed, ended, query, until
from tests.terminal import typed

OUTWAIT = str(Path(sys.executable).parent / "outwait")
LOST = '{"faults":[{"fault":"drop_after","on":"submit"}]}'
NEVER = '{"outcome":"never"}'
HANDLERS = """
from pathlib import Path

from outwait import Envelope, handler
from outwait.worker.model.errors import DeliveryRefused

@handler("crm")
def crm(envelope: Envelope) -> None:
    if not Path(__file__).with_name("crm-is-back").exists():
        raise DeliveryRefused("the CRM is away")

@handler("refuses")
def refuses() -> None:
    raise DeliveryRefused("never will")
"""


class Person:
    """A stack with a worker, and somebody at the command line."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.client = stack.client

    def types(self, *words: str) -> subprocess.CompletedProcess[str]:
        return forked.run(["outwait", *words], self.stack.folder, self.stack.environment)

    def json(self, *words: str) -> Any:
        done = self.types(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    async def enqueued(self, text: str, **fields: Any) -> str:
        async with self.client() as client:
            return (await client.enqueue(query(text, **fields))).job_id

    async def becomes(self, job_id: str, state: JobState) -> None:
        async with self.client() as client:

            async def look() -> bool:
                return (await client.job(job_id)).state is state

            await until(look, what=f"job {job_id} is {state}")

    async def ended(self, job_id: str) -> JobState:
        async with self.client() as client:
            return (await ended(client, job_id)).state

    async def closed(self, *job_ids: str) -> None:
        async with self.client() as client:
            for job_id in job_ids:
                await closed(client, job_id)


@pytest.fixture(scope="module")
def person(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    folder = tmp_path_factory.mktemp("people")
    (folder / "people_handlers.py").write_text(HANDLERS)
    variables = {"OUTWAIT_HANDLERS__MODULES": "people_handlers"}
    with Stack(redis_url, folder, options={"behaviour": {"duration": 0.2}}, variables=variables) as stack:
        stack.worker()
        yield Person(stack)


async def test_cancel_gives_up_each_job_and_tells_which_it_could_not(person: Person) -> None:
    first, second = [await person.enqueued(f"cancel {n} sandbox:{NEVER}") for n in range(2)]
    await person.becomes(first, JobState.WAITING)
    done = person.types("cancel", first, "no-such-job", second, "--reason", "the customer left")
    assert done.returncode == 4
    assert f"{first} is cancelled" in done.stderr
    assert f"{second} is cancelled" in done.stderr
    assert "no job has the id 'no-such-job'" in done.stderr
    for job_id in (first, second):
        assert await person.ended(job_id) is JobState.CANCELLED
    assert person.json("status", first)["job"]["error"]["message"] == "the customer left"
    again = person.types("cancel", first, "--json")
    assert again.returncode == 3
    assert json.loads(again.stdout)["error"] == "wrong_state"
    assert "it has ended (cancelled)" in again.stderr


async def test_repoll_takes_up_what_was_given_up(person: Person) -> None:
    job_id = await person.enqueued('repoll sandbox:{"duration":5}')
    await person.becomes(job_id, JobState.WAITING)
    async with person.client() as client:  # a command could take longer than the job
        await client.cancel(job_id)
    done = person.types("repoll", job_id, "no-such-job")
    assert done.returncode == 4
    assert f"{job_id} is polled again" in done.stderr
    assert await person.ended(job_id) is JobState.SUCCEEDED
    assert person.json("status", job_id)["job"]["ledger"]["submits"] == 1
    again = person.types("repoll", job_id, "--json")
    assert again.returncode == 3
    assert json.loads(again.stdout)["error"] == "wrong_state"


async def test_every_refusal_is_told_and_the_first_is_the_exit_code(person: Person) -> None:
    ended = await person.enqueued("refusals")
    assert await person.ended(ended) is JobState.SUCCEEDED
    for words, code in ((["cancel"], "wrong_state"), (["replay"], "not_replayable")):
        done = person.types(*words, ended, "nobody-1", "nobody-2", "--json")
        assert done.returncode == 3
        assert [json.loads(line)["error"] for line in done.stdout.splitlines()] == [code, *["job_not_found"] * 2]
        assert all(f"no job has the id 'nobody-{n}'" in done.stderr for n in (1, 2))


async def test_a_lost_submit_is_resolved_by_a_person(person: Person) -> None:
    texts = [f"lost {n}" for n in range(3)]
    sent, repeated, failed = [await person.enqueued(f"{text} sandbox:{LOST}") for text in texts]
    for job_id in (sent, repeated, failed):
        await person.becomes(job_id, JobState.UNCERTAIN)
    assert {sent, repeated, failed} <= {job["id"] for job in person.json("held")["jobs"]}
    (external,) = [job["id"] for job in person.stack.seen("lost 0")]
    for wrong in ([], ["--fail", "--resubmit"], ["--submitted-as", external, "--fail"]):
        assert person.types("resolve", sent, *wrong).returncode == 2
    as_known = person.types("resolve", sent, "--submitted-as", external)
    assert as_known.stderr == f"{sent} waits for its result; its external id is {external}.\n"
    assert person.json("resolve", repeated, "--resubmit") == {"job_id": repeated, "resolved": "resubmit"}
    assert person.types("resolve", failed, "--fail").returncode == 0
    ends = [await person.ended(job_id) for job_id in (sent, repeated, failed)]
    assert ends == [JobState.SUCCEEDED, JobState.SUCCEEDED, JobState.FAILED]
    assert [len(person.stack.seen(text)) for text in texts] == [1, 2, 1]
    too_late = person.types("resolve", sent, "--resubmit")
    assert too_late.returncode == 3
    assert "is not uncertain but succeeded" in too_late.stderr
    choices = [entry["detail"] for entry in person.json("timeline", repeated) if entry["event"] == "resolved"]
    assert choices == ["resubmit"]


async def test_a_paused_provider_gets_no_request_until_it_is_resumed(person: Person) -> None:
    assert person.types("pause", "unless", "--reason", "the invoice is wrong").returncode == 0
    paused = await person.enqueued("paused")
    other = {"languageTag": "en-us", "vertical": "default", "downloadUri": "https://a.example/2.wav"}
    free = person.types("submit", "elevateai", "audio", "--params", json.dumps(other)).stdout.strip()
    assert await person.ended(free) is JobState.SUCCEEDED
    assert person.stack.seen("paused") == []
    shown = {provider["group"]: provider for provider in person.json("providers")["providers"]}
    assert shown["unless"]["suspended_why"] == "the invoice is wrong"
    assert shown["elevateai"]["suspended_since"] is None
    table = person.types("providers").stdout
    assert "paused by a person since" in table
    assert "(the invoice is wrong)" in table
    doctor = {
        finding["subject"]: finding for finding in json.loads(person.types("doctor", "--no-providers", "--json").stdout)
    }
    assert "outwait resume unless" in doctor["requests to unless"]["advice"]
    assert person.types("resume", "unless").stderr == "unless is resumed.\n"
    assert await person.ended(paused) is JobState.SUCCEEDED
    assert person.types("resume", "unless").stderr == "unless was not paused.\n"
    misspelt = person.types("pause", "unles")
    assert misspelt.returncode == 3
    assert "elevateai, ringcentral, unless" in misspelt.stderr


async def test_a_pause_that_the_provider_asked_for_is_lifted_too(person: Person) -> None:
    async with Store.open(person.stack.settings) as store:
        await store.lanes.record([Pause(provider="ringcentral", pause_ms=10**12, reason="429: Retry-After 999999999")])
    texts = ["submit", "ringcentral", "punctuate", "-p", 'texts=["why not"]']
    waits = person.types(*texts).stdout.strip()
    shown = {one["group"]: one for one in person.json("providers")["providers"]}
    assert shown["ringcentral"]["paused_until"] > 2.7e9
    assert person.types("resume", "ringcentral").stderr == "ringcentral is resumed.\n"
    assert await person.ended(waits) is JobState.SUCCEEDED


async def test_who_a_job_belongs_to_when_it_goes_and_what_is_text(person: Person) -> None:
    given = ["-p", "query=4711", "-p", "sessionId=7", "-p", "visitorId=12345"]
    options = ["--tenant", "acme", "--priority", "9", "--countdown", "3600"]
    done = person.types("submit", "unless", "query", *given, *options)
    assert done.returncode == 0, done.stderr
    job_id = done.stdout.strip()
    job = person.json("status", job_id)["job"]
    assert (job["tenant"], job["state"]) == ("acme", "queued")
    assert 3500 < job["due"] - job["created"] <= 3600
    assert job["deadline"] - job["due"] == pytest.approx(600)
    async with person.client() as client:
        assert await client.params(job_id) == {"query": "4711", "sessionId": "7", "visitorId": "12345"}
    assert [one["id"] for one in person.json("jobs", "--tenant", "acme")["jobs"]] == [job_id]
    assert person.json("jobs", "--tenant", "other")["jobs"] == []
    assert person.types("cancel", job_id).returncode == 0


async def test_a_job_is_not_submitted_before_its_countdown_has_ended(person: Person) -> None:
    done = person.types(
        "submit",
        "unless",
        "query",
        *["-p", "query=later", "-p", "sessionId=s"],
        "-p",
        "visitorId=v",
        "--countdown",
        "1.5",
    )
    job_id = done.stdout.strip()
    assert await person.ended(job_id) is JobState.SUCCEEDED
    job = person.json("status", job_id)["job"]
    assert job["submitted"] - job["created"] >= 1.5


async def test_watch_shows_every_open_job_and_its_id_and_state_at_80_columns(person: Person) -> None:
    async with person.client() as client:
        await client.pause("elevateai")
        params = {"languageTag": "en-us", "vertical": "default", "downloadUri": "https://a.example/4.wav"}
        request = JobRequest(provider="elevateai", operation="audio", params=params)
        answers = await client.enqueue_many([(request, str(uuid4())) for _ in range(250)])
        ids = {one.job_id for one in answers if isinstance(one, Enqueued)}
        try:
            done = person.types("watch", "--timeout", "0", "--json")
            assert done.returncode == 5
            assert {json.loads(line)["id"] for line in done.stdout.splitlines()} >= ids
            words = [OUTWAIT, "watch", *sorted(ids)[:3], "--timeout", "0"]
            shown = await asyncio.to_thread(typed, words, person.stack.folder, person.stack.environment, width=80)
            for job_id in sorted(ids)[:3]:
                assert re.search(rf"{job_id}.*queued", shown), shown
        finally:
            for job_id in ids:
                await client.cancel(job_id)
            await client.resume("elevateai")


async def test_a_provider_is_not_told_of_a_cancel_while_it_is_paused(person: Person) -> None:
    """Protected by tasks/callback.py `_cancel`."""
    recording = f"https://a.example/3.wav?sandbox={NEVER}"
    params = {"languageTag": "en-us", "vertical": "default", "downloadUri": recording}
    job_id = person.types("submit", "elevateai", "audio", "--params", json.dumps(params)).stdout.strip()
    await person.becomes(job_id, JobState.WAITING)
    assert person.types("pause", "elevateai").returncode == 0
    assert person.types("cancel", job_id).returncode == 0
    await person.closed(job_id)
    assert person.types("resume", "elevateai").returncode == 0
    answers = [entry["detail"] for entry in person.json("timeline", job_id) if entry["event"] == "provider-told"]
    assert answers == ["not notified: nothing is sent to elevateai now"]
    external = person.json("status", job_id)["job"]["external_id"]
    assert [job["deleted"] for job in person.stack.ledger()["jobs"] if job["id"] == external] == [False]


async def test_dead_deliveries_are_replayed_one_many_and_by_filter(person: Person) -> None:
    crm = [await person.enqueued(f"dead {n}", targets=["crm"]) for n in range(4)]
    refused = await person.enqueued("refused", targets=["refuses"])
    await person.closed(*crm, refused)
    listed = person.json("dead", "--target", "crm", "--provider", "unless", "--since", "10m")["deliveries"]
    assert {delivery["job_id"] for delivery in listed} == set(crm)
    assert {(delivery["provider"], delivery["error"]["message"]) for delivery in listed} == {
        ("unless", "the CRM is away")
    }
    assert person.json("dead", "--provider", "elevateai")["deliveries"] == []
    for wrong in ([], [crm[0], "--all"], [crm[0], "--since", "1h"]):
        assert person.types("replay", *wrong).returncode == 2
    (person.stack.folder / "crm-is-back").touch()
    three = person.types("replay", crm[0], "no-such-job", crm[1], "--json")
    assert three.returncode == 4
    answers = [json.loads(line) for line in three.stdout.splitlines()]
    assert [answer.get("deliveries") for answer in answers] == [1, None, 1]
    assert person.json("replay", "--all", "--target", "crm") == {"deliveries": 2}
    await person.closed(*crm)
    states = [person.json("status", job_id)["deliveries"][0]["state"] for job_id in crm]
    assert states == ["delivered"] * 4
    assert [delivery["job_id"] for delivery in person.json("dead")["deliveries"]] == [refused]
    assert {person.json("status", job_id)["job"]["ledger"]["submits"] for job_id in crm} == {1}
    assert person.types("replay", "--all", "--target", "crm").stderr == "0 deliveries will be repeated.\n"


async def test_a_message_that_could_be_no_job_is_shown(person: Person) -> None:
    variables = person.stack.variables
    with Celery(broker=variables["OUTWAIT_REDIS_URL"]) as producer:
        queue = variables["OUTWAIT_INTAKE__QUEUE"]
        producer.send_task("tasks.submit", kwargs={}, task_id="no id at all!", queue=queue)

    async def put_aside() -> Any:
        return person.json("parked")["messages"]

    (message,) = await until(put_aside)
    assert "'no id at all!' is not a valid job id" in message["reason"]
    assert "no id at all!" in person.types("parked").stdout
