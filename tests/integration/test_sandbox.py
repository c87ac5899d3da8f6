"""The sandbox speaks the three providers' APIs over real HTTP, flow by flow, and runs as a process."""

import asyncio
import base64
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import httpx
import pytest
from aiohttp import FormData, web

from outwait.config.settings import load_settings
from outwait.sandbox import Behaviour, Fault, SandboxOptions, create_app, environment
from outwait.sandbox.behaviour import Call, FaultKind, Outcome, WebhookMode, WebhookShape
from outwait.sandbox.credentials import (
    ACCOUNT_ID,
    API_KEY,
    API_TOKEN,
    CLIENT_ID,
    CLIENT_SECRET,
    JWT,
    USER_EMAIL,
    WEBSITE_ID,
)
from tests.patience import PATIENCE, until

Client = aiohttp.ClientSession
Start = Callable[..., Awaitable[Client]]
BASIC = {"Authorization": "Basic " + base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()}
ELEVATE = {"X-API-Token": API_TOKEN}
UNLESS = {"x-api-key": API_KEY, "x-user-email": USER_EMAIL, "x-account-id": ACCOUNT_ID, "x-website-id": WEBSITE_ID}
GRANT = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": JWT}
STT = "/ringcentral/ai/audio/v1/async/speech-to-text"
AUDIO = {"type": "audio", "languageTag": "en-us", "vertical": "default", "includeAiResults": True}
SLOW = 3.0
"""Seconds that a job takes whose every status is to be seen."""
QUESTION = {"query": "What is it?", "sessionId": "s-1", "visitorId": "v-1"}


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts sandboxes the way `serve` does (aiohttp's TestServer would cancel a request whose client went away)."""
    async with contextlib.AsyncExitStack() as stack:

        async def begin(duration: float = 0.8, **options: Any) -> Client:
            app = create_app(SandboxOptions(behaviour=Behaviour(duration=duration, jitter=0), **options))
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            session = aiohttp.ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}")
            return await stack.enter_async_context(session)

        yield begin


async def token(client: Client) -> str:
    async with client.post("/ringcentral/restapi/oauth/token", data=GRANT, headers=BASIC) as got:
        assert got.status == 200
        return str((await got.json())["access_token"])


async def bearer(client: Client) -> dict[str, str]:
    return {"Authorization": f"Bearer {await token(client)}"}


async def fetch(client: Client, path: str, headers: dict[str, str]) -> tuple[int, Any]:
    async with client.get(path, headers=headers) as got:
        body = await got.read()
        return got.status, json.loads(body) if body else None


async def flow(client: Client, path: str, headers: dict[str, str], last: set[str]) -> tuple[list[str], Any]:
    """The statuses that a job passes through, and its last document."""
    seen: list[str] = []

    async def look() -> Any:
        status, document = await fetch(client, path, headers)
        assert status == 200, document
        if document["status"] not in seen:
            seen.append(document["status"])
        return document if document["status"] in last else None

    return seen, await until(look)


class TestRingCentral:
    @pytest.mark.parametrize(
        ("path", "body", "key"),
        [
            ("audio/v1/async/speech-to-text", {"contentUri": "https://x/7.mp3", "encoding": "Mpeg"}, "transcript"),
            ("audio/v1/async/speaker-diarize", {"contentUri": "https://x/7.mp3", "encoding": "Mpeg"}, "utterances"),
            (
                "audio/v1/async/speaker-identify",
                {"contentUri": "https://x/7.mp3", "encoding": "Wav", "speakerIds": ["a"]},
                "utterances",
            ),
            ("text/v1/async/punctuate", {"texts": ["so it is 7"]}, "texts"),
            (
                "text/v1/async/summarize",
                {"summaryType": "All", "utterances": [{"speakerId": "1", "text": "7", "start": 0, "end": 1}]},
                "summaries",
            ),
            (
                "insights/v1/async/analyze-interaction",
                {"contentUri": "https://x/7.mp3", "encoding": "Mpeg", "insights": ["All"]},
                "speakerInsights",
            ),
        ],
    )
    async def test_each_operation_goes_from_202_to_its_result(
        self, start: Start, path: str, body: dict[str, Any], key: str
    ) -> None:
        client = await start()
        headers = await bearer(client)
        async with client.post(f"/ringcentral/ai/{path}", json=body, headers=headers) as got:
            assert got.status == 202
            assert got.headers["X-Rate-Limit-Group"] == "heavy"
            job_id = (await got.json())["jobId"]
        seen, document = await flow(client, f"/ringcentral/ai/status/v1/jobs/{job_id}", headers, {"Success"})
        assert seen == ["InProgress", "Success"]
        assert document["api"] == f"/ai/{path}"
        assert document["jobId"] == job_id
        assert set(document) >= {"creationTime", "completionTime", "expirationTime"}
        assert key in document["response"]
        if "identify" not in path and "diarize" not in path:
            assert "7" in json.dumps(document["response"])

    async def test_wrong_parameter_is_named(self, start: Start) -> None:
        client = await start()
        async with client.post(STT, json={"contentUri": "https://x/a.mp3"}, headers=await bearer(client)) as got:
            assert got.status == 400
            error = (await got.json())["errors"][0]
        assert (error["errorCode"], error["parameterName"]) == ("CAI-101", "encoding")

    async def test_wrong_client_and_wrong_assertion(self, start: Start) -> None:
        client = await start()
        path = "/ringcentral/restapi/oauth/token"
        async with client.post(path, data=GRANT, headers={"Authorization": "Basic d3Jvbmc6d3Jvbmc="}) as got:
            assert (got.status, (await got.json())["error"]) == (401, "invalid_client")
        wrong = {**GRANT, "assertion": "wrong"}
        async with client.post(path, data=wrong, headers=BASIC) as got:
            assert (got.status, (await got.json())["error"]) == (400, "invalid_grant")

    async def test_tokens_expire_are_revoked_and_give_way(self, start: Start) -> None:
        client = await start(token_ttl=2, sessions=2)
        path = "/ringcentral/ai/status/v1/jobs/none"
        first = await bearer(client)
        assert (await fetch(client, path, first))[0] == 404

        async def code(headers: dict[str, str]) -> str:
            return str((await fetch(client, path, headers))[1]["errorCode"])

        async def expired() -> bool:
            return await code(first) == "OAU-128"

        await until(expired)
        second = await token(client)
        await token(client)  # a third session ends the first
        assert await code(first) == "OAU-213"
        form = {"token": second}
        async with client.post("/ringcentral/restapi/oauth/revoke", data=form, headers=BASIC) as got:
            assert got.status == 200
        assert await code({"Authorization": f"Bearer {second}"}) == "OAU-213"

    async def test_fail_carries_errors_and_an_expired_id_is_unknown(self, start: Start) -> None:
        client = await start()
        headers = await bearer(client)
        marker = urlencode({"sandbox": json.dumps({"outcome": "failure", "duration": 0, "expiry": 2})})
        body = {"contentUri": f"https://x/a.mp3?{marker}", "encoding": "Mpeg"}
        async with client.post(STT, json=body, headers=headers) as got:
            path = f"/ringcentral/ai/status/v1/jobs/{(await got.json())['jobId']}"
        _, document = await fetch(client, path, headers)
        assert document["status"] == "Fail"
        assert document["response"]["errors"][0]["errorCode"] == "CAI-101"

        async def gone() -> bool:
            return (await fetch(client, path, headers))[0] == 404

        await until(gone)


class TestElevateAI:
    async def declare(self, client: Client, **more: Any) -> str:
        async with client.post("/elevateai/v1/interactions", json={**AUDIO, **more}, headers=ELEVATE) as got:
            assert got.status == 201, await got.text()
            return f"/elevateai/v1/interactions/{(await got.json())['interactionIdentifier']}"

    async def upload(self, client: Client, job: str, content: bytes = b"RIFF") -> int:
        form = FormData()
        form.add_field("call.wav", content, filename="call.wav", content_type="application/octet-stream")
        async with client.post(f"{job}/upload", data=form, headers=ELEVATE) as got:
            return got.status

    async def test_upload_flow_and_results(self, start: Start) -> None:
        client = await start(duration=SLOW)
        job = await self.declare(client, externalIdentifier="call 7")
        assert (await fetch(client, f"{job}/status", ELEVATE))[1]["status"] == "filePendingUpload"
        assert (await fetch(client, f"{job}/transcript", ELEVATE))[0] == 404
        assert await self.upload(client, job, b"x" * 300_000) == 201
        assert await self.upload(client, job) == 409
        seen, document = await flow(client, f"{job}/status", ELEVATE, {"processed"})
        assert seen == ["fileUploaded", "pendingProcessing", "processing", "processed"]
        assert document["uploaded"]
        assert document["downloaded"] is None
        for name in ("transcript", "transcripts/punctuated", "ai"):
            status, result = await fetch(client, f"{job}/{name}", ELEVATE)
            assert status == 200
            assert "call 7" in json.dumps(result)
        _, ledger = await fetch(client, "/_ledger?text=call 7", {})
        [upload] = ledger["jobs"][0]["uploads"]
        assert (upload["filename"], upload["size"]) == ("call.wav", 300_000)
        assert ledger["jobs"][0]["fetches"] == 4

    async def test_download_flow(self, start: Start) -> None:
        client = await start(duration=SLOW)
        job = await self.declare(client, downloadUri="https://x/a.wav")
        seen, document = await flow(client, f"{job}/status", ELEVATE, {"processed"})
        assert seen == [
            "declared",
            "filePendingDownload",
            "fileDownloading",
            "fileDownloaded",
            "pendingProcessing",
            "processing",
            "processed",
        ]
        assert document["downloaded"]
        _, declared = await fetch(client, job, ELEVATE)
        assert (declared["downloadUri"], declared["type"]) == ("https://x/a.wav", "audio")

    async def test_chat_flow_has_no_transcript(self, start: Start) -> None:
        client = await start(duration=SLOW)
        chat = {"participants": [], "messages": [{"participant_id": "1", "timestamp": "t", "content": "hello 9"}]}
        job = await self.declare(client, type="chat", chat=chat)
        seen, _ = await flow(client, f"{job}/status", ELEVATE, {"processed"})
        assert seen == ["declared", "pendingProcessing", "processing", "processed"]
        assert (await fetch(client, f"{job}/transcript", ELEVATE))[0] == 404
        assert "hello 9" in json.dumps((await fetch(client, f"{job}/ai", ELEVATE))[1])

    async def test_failed_uploads_are_repeated_on_the_same_interaction(self, start: Start) -> None:
        client = await start(duration=0)
        job = await self.declare(client, externalIdentifier='sandbox:{"upload_failures": 2}')
        for expected in ("fileUploadFailed", "fileUploadFailed", "processed"):
            assert await self.upload(client, job) == 201
            _, document = await fetch(client, f"{job}/status", ELEVATE)
            assert document["status"] == expected
            assert bool(document["errorMessage"]) == (expected == "fileUploadFailed")

    async def test_failures_of_download_and_processing(self, start: Start) -> None:
        client = await start()
        marker = {"sandbox": json.dumps({"outcome": "download_failure"})}
        job = await self.declare(client, downloadUri=f"https://x/a.wav?{urlencode(marker)}")
        seen, document = await flow(client, f"{job}/status", ELEVATE, {"fileDownloadFailed"})
        assert "processing" not in seen
        assert document["downloaded"] is None
        assert "https://x/a.wav" in document["errorMessage"]
        job = await self.declare(client, downloadUri="https://x/b", externalIdentifier='sandbox:{"outcome":"failure"}')
        _, document = await flow(client, f"{job}/status", ELEVATE, {"processingFailed"})
        assert document["processed"]

    async def test_empty_transcript_delete_and_refusals(self, start: Start) -> None:
        client = await start(duration=0, upload_max=1000)
        job = await self.declare(
            client, downloadUri="https://x/a", externalIdentifier='sandbox:{"punctuated_empty":true}'
        )
        assert await fetch(client, f"{job}/transcripts/punctuated", ELEVATE) == (204, None)
        async with client.delete(job, headers=ELEVATE) as got:
            assert (got.status, await got.read()) == (200, b"")
        status, body = await fetch(client, f"{job}/status", ELEVATE)
        assert status == 404
        assert set(body) == {"errorMessage"}
        assert (await fetch(client, f"{job}/status", {"X-API-Token": "wrong"}))[0] == 401
        assert await self.upload(client, await self.declare(client), b"x" * 2000) == 413
        async with client.post("/elevateai/v1/interactions", json={"type": "video"}, headers=ELEVATE) as got:
            assert got.status == 400
        job = await self.declare(client)
        async with client.post(f"{job}/upload", data=b"raw", headers=ELEVATE) as got:
            assert got.status == 400
        assert (await fetch(client, f"{job}/status", ELEVATE))[1]["status"] == "filePendingUpload"


class TestUnless:
    async def ask(self, client: Client, **more: Any) -> str:
        async with client.post("/unless/api/v1/ai/async/query", json={**QUESTION, **more}, headers=UNLESS) as got:
            assert got.status == 202, await got.text()
            return f"/unless/api/v1/ai/async/answer?questionId={(await got.json())['questionId']}"

    async def test_flow_and_answer(self, start: Start) -> None:
        client = await start(duration=SLOW)
        path = await self.ask(client, metadata={"order": 4})
        seen, document = await flow(client, path, {"x-api-key": API_KEY}, {"DONE"})
        assert seen == ["PENDING", "PROCESSING", "DONE"]
        last = document["chatData"]["history"][-1]
        assert last["sender"] == "bot"
        assert "What is it?" in last["message"]
        assert (document["chatData"]["sessionId"], document["chatData"]["metadata"]) == ("s-1", {"order": 4})

    async def test_error_is_answered_with_200(self, start: Start) -> None:
        client = await start(duration=0)
        path = await self.ask(client, metadata={"sandbox": {"outcome": "failure"}})
        status, document = await fetch(client, path, UNLESS)
        assert (status, document["status"]) == (200, "ERROR")
        assert "What is it?" in document["error"]

    async def test_unknown_status_and_never(self, start: Start) -> None:
        client = await start(duration=0)
        path = await self.ask(client, query='sandbox:{"outcome":"unknown","word":"DREAMING"}')
        assert (await fetch(client, path, UNLESS))[1]["status"] == "DREAMING"
        path = await self.ask(client, query='sandbox:{"outcome":"never"}')
        assert (await fetch(client, path, UNLESS))[1]["status"] == "PROCESSING"

    async def test_refusals(self, start: Start) -> None:
        client = await start()
        path = "/unless/api/v1/ai/async/query"
        for headers, body, status in (
            ({**UNLESS, "x-api-key": "wrong"}, QUESTION, 403),
            ({**UNLESS, "x-account-id": "wrong"}, QUESTION, 403),
            ({"x-api-key": API_KEY}, QUESTION, 400),
            (UNLESS, {"query": "no session"}, 400),
            (UNLESS, {**QUESTION, "query": 'sandbox:{"durration": 1}'}, 400),
        ):
            async with client.post(path, json=body, headers=headers) as got:
                assert got.status == status
                assert set(await got.json()) == {"message"}
        assert (await fetch(client, "/unless/api/v1/ai/async/answer?questionId=none", UNLESS))[0] == 404


def test_environment_is_read_by_the_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in environment("http://127.0.0.1:8099/").items():
        monkeypatch.setenv(name, value)
    providers = load_settings().providers
    assert providers["ringcentral"]["base_url"] == "http://127.0.0.1:8099/ringcentral"
    assert providers["elevateai"] == {"base_url": "http://127.0.0.1:8099/elevateai/v1", "api_token": API_TOKEN}
    assert providers["unless"]["website_id"] == WEBSITE_ID


def test_page_names_every_order_and_option() -> None:
    page = Path("docs/sandbox.md").read_text()
    names = {*Behaviour.model_fields, *Fault.model_fields, *SandboxOptions.__dataclass_fields__}
    words = {*Outcome, *FaultKind, *Call, *WebhookMode, *WebhookShape}
    assert [name for name in sorted(names | words) if f"`{name}`" not in page] == []


def test_process_tells_its_address_and_ends_on_sigterm() -> None:
    command = [sys.executable, "-m", "outwait.sandbox", "--port", "0", "--options", '{"heavy_limit": 7}']
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        base = process.stdout.readline().strip()
        assert httpx.get(f"{base}/_ledger/totals").json() == {}
        refused = httpx.get(f"{base}/ringcentral/ai/status/v1/jobs/x")
        assert (refused.status_code, refused.headers["x-rate-limit-limit"]) == (401, "7")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        assert (process.stdout.read(), process.stderr and process.stderr.read()) == ("", "")


def test_process_refuses_options_that_it_does_not_know() -> None:
    command = [sys.executable, "-m", "outwait.sandbox", "--options", '{"behaviour": {"outcome": "perhaps"}}']
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ended.returncode == 2
    assert "behaviour.outcome: given 'perhaps'" in ended.stderr
    assert "'success'" in ended.stderr


async def test_broken_off_submit_is_no_job(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    client = await start()
    base = client._base_url
    assert base is not None
    reader, writer = await asyncio.open_connection(base.host, base.port)
    writer.write(b"POST /unless/api/v1/ai/async/query HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()
    writer.close()
    assert await reader.read() == b""
    assert (await fetch(client, "/_ledger", {}))[1]["jobs"] == []
    assert not caplog.records


async def test_aborted_upload_may_be_repeated(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    client = await start(duration=0)
    part = TestElevateAI()
    job = await part.declare(client)

    async def broken() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="f"; filename="a.wav"\r\n\r\nhalf'
        raise ConnectionResetError

    headers = {**ELEVATE, "Content-Type": "multipart/form-data; boundary=b"}
    with pytest.raises((aiohttp.ClientError, ConnectionResetError)):
        await client.post(f"{job}/upload", data=broken(), headers=headers)

    async def accepted() -> bool:
        return await part.upload(client, job) == 201

    await until(accepted)
    assert not caplog.records
