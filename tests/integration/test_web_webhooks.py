"""Webhooks end to end: the sandbox posts them to a real web process, workers act on them; and what others may post."""

import gzip
import json
import subprocess
import sys
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from outwait.client.store import StoreClient
from outwait.worker.local.embedded import EmbeddedRedis, free_port
from outwait.worker.model.jobs import Job, JobRequest, JobState
from tests.patience import PATIENCE
from tests.stack import ROOT, WEB, Stack, closed, ended, until

BODY_MAX = 20_000
VARIABLES = {
    "OUTWAIT_WEB__BODY_MAX": str(BODY_MAX),
    "OUTWAIT_SUBMIT__TIME_LIMIT": "8",
    "OUTWAIT_SUBMIT__LEASE": "10",
    "OUTWAIT_WORKER__GRACE": "8",
}
# No job here ends in time by polling alone: the safety net is five minutes wide.
OPTIONS = {"behaviour": {"duration": 0.4}, "webhook_backoff": 0.2, "poll_minimum": 0.1}


@pytest.fixture(scope="module")
def stack(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("webhooks")
    with Stack(redis_url, folder, options=OPTIONS, variables=VARIABLES) as running:
        running.web()
        yield running


@pytest.fixture(scope="module", autouse=True)
def worker(stack: Stack) -> subprocess.Popen[bytes]:
    return stack.worker()


def speech(name: str, *, target: str = "", **behaviour: Any) -> JobRequest:
    """A job for RingCentral that the sandbox runs as told."""
    uri = f"https://media.example.com/{name}.mp3?sandbox={quote(json.dumps(behaviour))}"
    params = {"contentUri": uri, "encoding": "Mpeg", "languageCode": "en-US"}
    targets = [target] if target else []
    return JobRequest(provider="ringcentral", operation="speech-to-text", params=params, targets=targets)


def post(url: str, body: bytes, **headers: str) -> int:
    """Post a webhook; the status of the answer, which tells nothing of the token."""
    request = urllib.request.Request(url, body, {"content-type": "application/json", **headers}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            status, text = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read().decode()
    assert url.rpartition("/")[2] not in text
    assert (status == 200) == (text == "")
    return int(status)


def sent(stack: Stack, name: str) -> dict[str, Any]:
    """The job as the sandbox has it."""
    (job,) = stack.seen(f"/{name}.mp3")
    return job


async def story(client: StoreClient, job_id: str) -> list[str]:
    return [f"{entry.event} {entry.detail}".strip() for entry in await client.timeline(job_id)]


async def running(stack: Stack, client: StoreClient, name: str, **behaviour: Any) -> str:
    """A submitted job that no webhook ends by itself; its webhook's URL."""
    await client.enqueue(speech(name, webhook="never", **behaviour), job_id=name)

    async def waiting() -> bool:
        return (await client.job(name)).state is JobState.WAITING

    await until(waiting)
    return str(sent(stack, name)["webhook"])


@pytest.mark.parametrize(("mode", "webhooks"), [("early", 1), ("on_time", 1), ("twice", 2)])
async def test_a_webhook_ends_the_wait_whenever_it_comes(stack: Stack, mode: str, webhooks: int) -> None:
    async with stack.client() as client:
        await client.enqueue(speech(mode, target=f"file:{mode}.jsonl", webhook=mode), job_id=mode)

        async def all_heard() -> Job | None:
            job = await client.job(mode)
            return job if job.closed and job.ledger.webhooks == webhooks else None

        job: Job = await until(all_heard)
        lines = await story(client, mode)
    assert (job.state, job.ledger.submits, job.ledger.polls) == (JobState.SUCCEEDED, 1, 1)
    (line,) = (stack.folder / "results" / f"{mode}.jsonl").read_text().splitlines()
    assert mode in json.dumps(json.loads(line)["result"])
    assert [webhook["answer"] for webhook in sent(stack, mode)["webhooks"]] == [200] * webhooks
    assert sum(line.startswith("webhook") for line in lines) == webhooks
    first = next(line for line in lines if line.startswith("webhook"))
    assert first.startswith("webhook early, Success" if mode == "early" else "webhook Success")
    assert sum(line.startswith("succeeded") for line in lines) == 1


@pytest.mark.parametrize("unfinished", [False, True])
async def test_a_deadline_comes_before_a_safety_poll(stack: Stack, *, unfinished: bool) -> None:
    """Protected by tasks/submit.py `decide_answer` and tasks/poll.py `_next_poll`: the safety poll is no minimum."""
    name = f"in-time-{unfinished}"
    async with stack.client() as client:
        request = speech(name, webhook="never", outcome="never").model_copy(update={"deadline": 2.0})
        await client.enqueue(request, job_id=name)

        async def submitted() -> bool:
            return (await client.job(name)).state is JobState.WAITING

        if unfinished:  # a body that nobody can read makes one poll look
            await until(submitted)
            assert post(str(sent(stack, name)["webhook"]), b"?") == 200
        job = await ended(client, name)
    assert (job.state, job.ledger.polls) == (JobState.EXPIRED, 2 if unfinished else 1)


async def test_a_webhook_after_the_poll_changes_nothing(stack: Stack) -> None:
    async with stack.client() as client:
        await client.enqueue(speech("after", target="file:after.jsonl"), job_id="after")
        job = await closed(client, "after")
        other = {"jobId": job.external_id, "status": "Fail", "response": {"errors": []}}
        # In the older form, with a request id of the sender's own behind the token.
        assert post(sent(stack, "after")["webhook"] + "/1234567890", json.dumps(other).encode()) == 200
        job = await client.job("after")
        lines = await story(client, "after")
        assert "result of" in json.dumps(await client.result("after"))
    assert (job.state, job.ledger.webhooks) == (JobState.SUCCEEDED, 2)
    assert lines[-1].startswith("webhook again, Fail,")
    assert lines[-1].endswith("; changes nothing: the job had ended")
    assert len((stack.folder / "results" / "after.jsonl").read_text().splitlines()) == 1


def raw(data: bytes) -> dict[str, Any]:
    return {"body": data}


RUBBISH = {
    "malformed": raw(b'{"jobId": "x", '),
    "empty": raw(b""),
    "charset": raw('{"status":"Erfolg ä"}'.encode("latin-1")),
    "list": raw(b"[" * 5000),
    "oversized": raw(b'{"response":"' + b"x" * 3 * BODY_MAX + b'"}'),
    "bomb": {"body": gzip.compress(bytes(50_000_000)), "content-encoding": "gzip"},
    "half gzip": {"body": gzip.compress(b"{}" * 100)[:-9], "content-encoding": "gzip"},
    "no gzip": {"body": b"{}", "content-encoding": "gzip"},
    "brotli": {"body": b"\x0b\x02\x80{}\x03", "content-encoding": "br"},
}


async def test_whatever_comes_is_kept_answered_and_harmless(stack: Stack) -> None:
    async with stack.client() as client:
        url = await running(stack, client, "rubbish", duration=600)
        for name, request in RUBBISH.items():
            headers = {key: value for key, value in request.items() if key != "body"}
            assert post(url, request["body"], **headers) == 200, name
        kept = dict(zip(RUBBISH, await client.webhooks.of("rubbish"), strict=True))
        assert all(len(webhook.body) <= BODY_MAX for webhook in kept.values())
        assert kept["malformed"].body == RUBBISH["malformed"]["body"]
        assert kept["charset"].body == RUBBISH["charset"]["body"]
        assert len(kept["oversized"].body) == 2048
        assert kept["oversized"].size == len(RUBBISH["oversized"]["body"])
        assert kept["bomb"].summary == kept["oversized"].summary == "larger than 20000 bytes (OUTWAIT_WEB__BODY_MAX)"
        assert kept["half gzip"].summary == "its gzip data is incomplete"
        assert kept["no gzip"].summary.startswith("its gzip data is damaged")
        assert kept["brotli"].summary == "its Content-Encoding 'br' is not supported"
        job = await client.job("rubbish")
        assert (job.state, job.ledger.webhooks) == (JobState.WAITING, len(RUBBISH))
        await client.cancel("rubbish")


async def test_compressed_bodies_are_read(stack: Stack) -> None:
    async with stack.client() as client:
        for name, pack in (("gzip", gzip.compress), ("deflate", zlib.compress)):
            url = await running(stack, client, name, duration=0.2)
            external = sent(stack, name)["id"]
            body = json.dumps({"jobId": external, "status": "Success", "response": {}}).encode()
            assert post(url, pack(body), **{"content-encoding": name}) == 200
            job = await ended(client, name)
            assert job.state is JobState.SUCCEEDED
            assert "result of" in json.dumps(await client.result(name))  # what the poll told, not the webhook


async def test_after_a_webhook_that_was_not_true_polls_go_on_at_the_providers_interval(stack: Stack) -> None:
    async with stack.client() as client:
        url = await running(stack, client, "liar", duration=1)
        assert post(url, b'{"status": "Success", "response": {"transcript": "made up"}}') == 200
        job = await ended(client, "liar")  # the safety net alone would take five minutes
        assert (job.state, job.ledger.polls > 2) == (JobState.SUCCEEDED, True)
        assert "made up" not in json.dumps(await client.result("liar"))
    assert sent(stack, "liar")["polls"]["too_fast"] == 0


async def test_a_wrong_token_is_refused_and_nothing_is_kept(stack: Stack) -> None:
    async with stack.client() as client:
        url = await running(stack, client, "guarded", duration=600)
        root, _, token = url.rpartition("/")
        before = await story(client, "guarded")
        for wrong in (f"{root}/{'A' * 22}guarded", f"{root}/guarded", url.replace("ringcentral", "unless"), url[:-1]):
            assert post(wrong, b"{}") == 404, wrong
        assert await story(client, "guarded") == before
        assert await client.webhooks.unknown() == []
        assert post(f"{root}/{token}", b"{}") == 200
        await client.cancel("guarded")
    assert "webhook-refused" in stack.logs("web")
    assert token not in stack.logs("web")


async def test_a_trusted_webhook_ends_its_job_without_a_poll(stack: Stack) -> None:
    port = free_port()
    trusting = {"OUTWAIT_WEB__PORT": str(port), "OUTWAIT_PROVIDERS__RINGCENTRAL__TRUST_WEBHOOKS": "true"}
    stack.start(WEB, "web", **trusting)
    async with stack.client() as client:
        url = (await running(stack, client, "trusted", duration=600)).replace(stack.web_url, f"http://127.0.0.1:{port}")
        body = {"jobId": sent(stack, "trusted")["id"], "status": "Success", "response": {"transcript": "told"}}

        async def taken() -> bool:
            try:
                return post(url, json.dumps(body).encode()) == 200
            except OSError:
                return False

        await until(taken)
        job = await ended(client, "trusted")
        assert (job.state, job.ledger.polls, job.ledger.webhooks) == (JobState.SUCCEEDED, 0, 1)
        assert await client.result("trusted") == {"transcript": "told"}


async def test_a_held_job_is_adopted_when_its_webhook_comes(stack: Stack) -> None:
    async with stack.client() as client:
        lost = [{"fault": "drop_after", "on": "submit"}]
        behaviour = {"faults": lost, "webhook": "late", "webhook_delay": 4}
        await client.enqueue(speech("held", target="file:held.jsonl", **behaviour), job_id="held")
        job = await closed(client, "held")
        events = [line.split()[0] for line in await story(client, "held")]
    assert (job.state, job.external_id) == (JobState.SUCCEEDED, sent(stack, "held")["id"])
    assert (job.ledger.submits, job.ledger.webhooks) == (1, 1)
    assert events[1:5] == ["uncertain", "held", "webhook", "adopted"]


def outwait(stack: Stack, *words: str) -> Any:
    """A command, with its JSON."""
    command = [sys.executable, "-m", "outwait", *words, "--json"]
    done = subprocess.run(command, cwd=ROOT, env=stack.environment, capture_output=True, timeout=PATIENCE, check=True)
    return json.loads(done.stdout)


async def test_a_body_without_the_id_leaves_it_to_a_person(stack: Stack) -> None:
    async with stack.client() as client:
        lost = [{"fault": "drop_after", "on": "submit"}]
        behaviour = {"faults": lost, "webhook": "late", "webhook_delay": 0.5, "webhook_shape": "bare"}
        await client.enqueue(speech("bare", **behaviour), job_id="bare")

        async def counted() -> bool:
            return (await client.job("bare")).ledger.webhooks == 1

        await until(counted)
        assert (await client.job("bare")).state is JobState.UNCERTAIN
        (shown,) = outwait(stack, "webhooks", "bare")
        assert (shown["told"], json.loads(shown["body"])["status"]) == ("Success", "Success")
        assert outwait(stack, "webhooks", "bare", "--replay") == {"replayed": 1}
        assert outwait(stack, "resolve", "bare", "--as-webhook") == {"job_id": "bare", "resolved": "as-webhook"}
        job = await ended(client, "bare")
        assert (job.state, job.ledger.submits, job.ledger.polls) == (JobState.SUCCEEDED, 1, 0)
        assert "result of" in json.dumps(await client.result("bare"))
    assert outwait(stack, "webhooks") == []


@pytest.mark.parametrize("shape", ["bare", "envelope"])
@pytest.mark.parametrize("mode", ["early", "on_time", "late"])
async def test_a_submit_that_is_answered_with_nothing_is_followed_by_its_webhook(
    stack: Stack, mode: str, shape: str
) -> None:
    """As the API of 2022 does it: 202 without a body, and a webhook that may name no id."""
    name = f"nothing-{mode}-{shape}"
    empty = [{"fault": "empty", "on": "submit"}]
    behaviour = {"faults": empty, "webhook": mode, "webhook_delay": 0.5, "webhook_shape": shape}
    async with stack.client() as client:
        await client.enqueue(speech(name, target=f"file:{name}.jsonl", **behaviour), job_id=name)
        job = await closed(client, name)
        assert (job.state, job.ledger.submits, job.ledger.webhooks) == (JobState.SUCCEEDED, 1, 1)
        assert job.ledger.polls == (0 if shape == "bare" else 1)
        assert job.external_id == (None if shape == "bare" else sent(stack, name)["id"])
        assert "result of" in json.dumps(await client.result(name))
        assert not [line for line in await story(client, name) if line.startswith(("uncertain", "held"))]


async def test_a_job_whose_awaited_webhook_never_comes_expires_at_its_deadline(stack: Stack) -> None:
    async with stack.client() as client:
        request = speech("silent", faults=[{"fault": "empty", "on": "submit"}], webhook="never")
        await client.enqueue(request.model_copy(update={"deadline": 2.0}), job_id="silent")
        job = await ended(client, "silent")
    assert (job.state, job.ledger.polls) == (JobState.EXPIRED, 0)
    assert job.error is not None
    assert "no webhook said how the job ended" in job.error.message


async def test_a_worker_killed_after_the_request_left_loses_nothing(
    stack: Stack, worker: subprocess.Popen[bytes]
) -> None:
    async with stack.client() as client:
        hang = [{"fault": "hang_after", "on": "submit", "seconds": 600}]
        names = [f"killed-{number}" for number in range(3)]

        async def all_heard() -> bool:
            return all([(await client.job(name)).ledger.webhooks for name in names])

        with stack.frozen(worker):
            victim = stack.worker(OUTWAIT_SUBMIT__LEASE="12")  # time for the webhooks to come
            for name in names:
                await client.enqueue(speech(name, faults=hang, duration=0.2), job_id=name)
            await until(all_heard)
            stack.kill(victim)
        for name in names:
            job = await ended(client, name)
            assert (job.state, job.ledger.submits) == (JobState.SUCCEEDED, 1)
            assert job.external_id == sent(stack, name)["id"]
            lines = await story(client, name)
            assert any(line.startswith("webhook early, ") for line in lines)
            assert any(line.startswith("adopted ") for line in lines)
            assert "uncertain the worker was lost after the request may have left" in lines


async def test_while_the_store_is_away_the_provider_sends_it_again(tmp_path: Path) -> None:
    options = {"behaviour": {"duration": 1}, "webhook_backoff": 0.4}
    with (
        EmbeddedRedis(tmp_path / "redis") as server,
        Stack(server.url, tmp_path, options=options, variables=VARIABLES) as stack,
    ):
        stack.web()
        stack.worker()
        async with stack.client() as client:
            await client.enqueue(speech("away", target="file:away.jsonl"), job_id="away")

            async def waiting() -> bool:
                return (await client.job("away")).state is JobState.WAITING

            await until(waiting)
            assert post(sent(stack, "away")["webhook"], b'{"status": "InProgress"}') == 200  # it knows the store
            server.stop()

            async def refused() -> bool:
                return bool(sent(stack, "away")["webhooks"])

            await until(refused)
            server.start()
            job = await closed(client, "away")
        answers = [webhook["answer"] for webhook in sent(stack, "away")["webhooks"]]
        assert answers == [503] * (len(answers) - 1) + [200]
        assert len(answers) > 1
        assert (job.state, job.ledger.webhooks) == (JobState.SUCCEEDED, 2)
        assert len((stack.folder / "results" / "away.jsonl").read_text().splitlines()) == 1
