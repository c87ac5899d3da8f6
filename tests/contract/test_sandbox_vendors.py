"""The sandbox answers as the vendors' documents and clients have it: one row for each difference that a client sees."""

import asyncio
import base64
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp.test_utils import TestServer

from outwait.sandbox import Behaviour, SandboxOptions, create_app
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

BASIC = {"Authorization": "Basic " + base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()}
ELEVATE = {"X-API-TOKEN": API_TOKEN}
UNLESS = {"x-api-key": API_KEY, "x-user-email": USER_EMAIL, "x-account-id": ACCOUNT_ID, "x-website-id": WEBSITE_ID}
GRANT = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": JWT}
MEDIA = {"contentUri": "https://x/a.mp3", "encoding": "Mpeg", "languageCode": "en-US"}
SPOKEN = [
    {"speakerId": "0", "text": "how may I assist you", "start": 3.72, "end": 8.96},
    {"speakerId": "1", "text": "I bought a headset", "start": 8.96, "end": 14.28},
]
CONVERSATION = {"KeyPhrases", "ExtractiveSummary", "Topics", "AbstractiveSummaryLong", "AbstractiveSummaryShort"}
SPEAKERS = {"Pace", "TalkToListenRatio", "QuestionsAsked"}

Start = Callable[..., Awaitable["Sandbox"]]
Check = Callable[[Any], object]


class Sandbox:
    """A sandbox whose jobs end at once, and a client of it."""

    def __init__(self, server: TestServer, client: aiohttp.ClientSession) -> None:
        self.host, self.port = server.host, server.port
        self.client = client

    async def token(self, **more: str) -> dict[str, Any]:
        """What the token endpoint answers."""
        path = "/ringcentral/restapi/oauth/token"
        async with self.client.post(path, data={**GRANT, **more}, headers=BASIC) as answer:
            assert answer.status == 200, await answer.text()
            return dict(await answer.json())

    async def operate(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Submit to RingCentral: the status, and the result or the error."""
        bearer = {"Authorization": f"Bearer {(await self.token())['access_token']}"}
        async with self.client.post(f"/ringcentral/ai/{path}", json=body, headers=bearer) as answer:
            document = await answer.json()
            if answer.status != 202:
                return answer.status, document
        async with self.client.get(f"/ringcentral/ai/status/v1/jobs/{document['jobId']}", headers=bearer) as answer:
            return 202, (await answer.json())["response"]

    async def declare(self, **body: Any) -> str:
        """The path of a new ElevateAI interaction."""
        declared = {"type": "audio", "languageTag": "en-us", "vertical": "default", "includeAiResults": True, **body}
        async with self.client.post("/elevateai/v1/interactions", json=declared, headers=ELEVATE) as answer:
            assert answer.status == 201, await answer.text()
            return f"/elevateai/v1/interactions/{(await answer.json())['interactionIdentifier']}"


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with contextlib.AsyncExitStack() as stack:

        async def begin(**options: Any) -> Sandbox:
            server = TestServer(create_app(SandboxOptions(behaviour=Behaviour(duration=0, jitter=0), **options)))
            await server.start_server(shutdown_timeout=0.1)
            stack.push_async_callback(server.close)
            client = await stack.enter_async_context(aiohttp.ClientSession(server.make_url("/")))
            return Sandbox(server, client)

        yield begin


def named(units: list[dict[str, Any]]) -> dict[str, Any]:
    """The first value of each insight or summary, by its name."""
    return {unit["name"]: unit["values"][0] for unit in units}


STT, DIARIZE = "audio/v1/async/speech-to-text", "audio/v1/async/speaker-diarize"
IDENTIFY, ANALYZE = "audio/v1/async/speaker-identify", "insights/v1/async/analyze-interaction"
PUNCTUATE, SUMMARIZE = "text/v1/async/punctuate", "text/v1/async/summarize"
DIARIZED = {**MEDIA, "enableSpeakerDiarization": True}

RESULTS: dict[str, tuple[str, dict[str, Any], Check]] = {
    "a diarized transcript has utterances": (
        STT,
        DIARIZED,
        lambda r: {"speakerId", "text", "start", "end", "confidence", "wordTimings"} <= r["utterances"][0].keys(),
    ),
    "its words have speakers": (
        STT,
        DIARIZED,
        lambda r: {word["speakerId"] for word in r["words"]} == {"0", "1"} == {u["speakerId"] for u in r["utterances"]},
    ),
    "the words of its utterances are its words": (
        STT,
        DIARIZED,
        lambda r: [word for u in r["utterances"] for word in u["wordTimings"]] == r["words"],
    ),
    "it counts the speakers": (STT, DIARIZED, lambda r: r["speakerCount"] == 2),
    "it has as many speakers as the client says": (
        STT,
        {**DIARIZED, "speakerCount": 3},
        lambda r: (r["speakerCount"], len(r["utterances"])) == (3, 3),
    ),
    "-1 speakers: an unknown number": (STT, {**DIARIZED, "speakerCount": -1}, lambda r: r["speakerCount"] == 2),
    "a transcript without diarization has no speakers": (
        STT,
        {**MEDIA, "enableSpeakerDiarization": False},
        lambda r: {"words", "transcript", "confidence"} == r.keys() and "speakerId" not in r["words"][0],
    ),
    "punctuation is on unless it is switched off": (STT, MEDIA, lambda r: r["transcript"].endswith(".")),
    "punctuation can be switched off": (
        STT,
        {**MEDIA, "enablePunctuation": False},
        lambda r: not r["transcript"].endswith("."),
    ),
    "what is null is not set": (
        STT,
        {**MEDIA, "languageCode": None, "audioType": None, "speakerCount": None, "enableSpeakerDiarization": None},
        lambda r: r["transcript"],
    ),
    "as many speakers are told apart as there are": (
        DIARIZE,
        {**MEDIA, "speakerCount": 3},
        lambda r: (r["speakerCount"], {u["speakerId"] for u in r["utterances"]}) == (3, {"0", "1", "2"}),
    ),
    "only speakers that were asked for are identified": (
        IDENTIFY,
        {**MEDIA, "speakerIds": ["anna", "bert"]},
        lambda r: [u["speakerId"] for u in r["utterances"]] == ["anna", "bert", "UserNotIdentified"],
    ),
    "three texts are punctuated as three": (
        PUNCTUATE,
        {"texts": ["one", "two", "three"]},
        lambda r: all(text in given for text, given in zip(("one", "two", "three"), r["texts"], strict=True)),
    ),
    "All summaries": (
        SUMMARIZE,
        {"summaryType": "All", "utterances": SPOKEN},
        lambda r: named(r["summaries"]).keys() == {"Extractive", "AbstractiveLong", "AbstractiveShort"},
    ),
    "all abstractive summaries": (
        SUMMARIZE,
        {"summaryType": "AbstractiveAll", "utterances": SPOKEN},
        lambda r: named(r["summaries"]).keys() == {"AbstractiveLong", "AbstractiveShort"},
    ),
    "the summary that was ordered": (
        SUMMARIZE,
        {"summaryType": "AbstractiveLong", "utterances": SPOKEN},
        lambda r: named(r["summaries"]).keys() == {"AbstractiveLong"},
    ),
    "Extractive unless another one is ordered": (
        SUMMARIZE,
        {"utterances": SPOKEN},
        lambda r: named(r["summaries"]).keys() == {"Extractive"},
    ),
    "speaker and times of utterances are optional": (
        SUMMARIZE,
        {"utterances": [{"text": "hello"}]},
        lambda r: "hello" in named(r["summaries"])["Extractive"]["value"],
    ),
    "a summary says of when it is": (
        SUMMARIZE,
        {"utterances": SPOKEN},
        lambda r: [named(r["summaries"])["Extractive"][end] for end in ("start", "end")] == [3.72, 14.28],
    ),
    "All insights": (
        ANALYZE,
        {**MEDIA, "insights": ["All"]},
        lambda r: (
            (named(r["conversationalInsights"]).keys(), named(r["speakerInsights"]["insights"]).keys())
            == (CONVERSATION, SPEAKERS)
        ),
    ),
    "only the insights that were ordered": (
        ANALYZE,
        {**MEDIA, "insights": ["Topics", "Pace"]},
        lambda r: (
            (named(r["conversationalInsights"]).keys(), named(r["speakerInsights"]["insights"]).keys())
            == ({"Topics"}, {"Pace"})
        ),
    ),
    "insights that are null": (ANALYZE, {**MEDIA, "insights": None}, lambda r: r["conversationalInsights"]),
    "pace is a word and a number": (
        ANALYZE,
        MEDIA,
        lambda r: (
            {"speakerId": str, "value": str, "wpm": float}
            == {k: type(v) for k, v in named(r["speakerInsights"]["insights"])["Pace"].items()}
        ),
    ),
    "questions have a number and a list": (
        ANALYZE,
        MEDIA,
        lambda r: (
            {"text", "start", "end"} == named(r["speakerInsights"]["insights"])["QuestionsAsked"]["questions"][0].keys()
        ),
    ),
    "an insight has a value for each speaker": (
        ANALYZE,
        {**MEDIA, "speakerCount": 3},
        lambda r: (r["speakerInsights"]["speakerCount"], len(r["speakerInsights"]["insights"][0]["values"])) == (3, 3),
    ),
    "an extractive summary is a sentence": (
        ANALYZE,
        MEDIA,
        lambda r: named(r["conversationalInsights"])["ExtractiveSummary"]["sentence"],
    ),
    "a long summary has paragraphs": (
        ANALYZE,
        MEDIA,
        lambda r: named(r["conversationalInsights"])["AbstractiveSummaryLong"]["groupId"] == "0",
    ),
    "utterances carry the documented fields": (
        ANALYZE,
        MEDIA,
        lambda r: {"start", "end", "text", "confidence", "speakerId"} == r["utteranceInsights"][0].keys(),
    ),
}


@pytest.mark.parametrize(("path", "body", "holds"), RESULTS.values(), ids=RESULTS)
async def test_results_of_ringcentral(start: Start, path: str, body: dict[str, Any], holds: Check) -> None:
    status, result = await (await start()).operate(path, body)
    assert status == 202, result
    assert holds(result), result


@pytest.mark.parametrize(
    ("path", "body", "parameter"),
    [
        (STT, {**MEDIA, "audioType": "Podcast"}, "audioType"),
        (STT, {**MEDIA, "enablePunctuation": "yes"}, "enablePunctuation"),
        (STT, {**MEDIA, "speakerCount": "two"}, "speakerCount"),
        (DIARIZE, {**MEDIA, "speakerCount": -2}, "speakerCount"),
        (IDENTIFY, {**MEDIA, "speakerIds": "anna"}, "speakerIds"),
        (ANALYZE, {**MEDIA, "insights": "All"}, "insights"),
        (SUMMARIZE, {"summaryType": "Short", "utterances": SPOKEN}, "summaryType"),
        (SUMMARIZE, {"utterances": [{"speakerId": "0"}]}, "utterances"),
    ],
    ids=lambda value: value if isinstance(value, str) and "/" not in value else "",
)
async def test_parameters_that_ringcentral_does_not_take(
    start: Start, path: str, body: dict[str, Any], parameter: str
) -> None:
    status, error = await (await start()).operate(path, body)
    assert (status, error["errors"][0]["parameterName"], error["errorCode"]) == (400, parameter, "CAI-101")


@pytest.mark.parametrize(("marker", "life"), [("", 7 * 86400), ('?sandbox={"expiry":100}', 100)])
async def test_a_job_says_when_its_id_expires(start: Start, marker: str, life: float) -> None:
    sandbox = await start()
    bearer = {"Authorization": f"Bearer {(await sandbox.token())['access_token']}"}
    body = {**MEDIA, "contentUri": f"https://x/a.mp3{marker}"}
    async with sandbox.client.post(f"/ringcentral/ai/{STT}", json=body, headers=bearer) as answer:
        job_id = (await answer.json())["jobId"]
    async with sandbox.client.get(f"/ringcentral/ai/status/v1/jobs/{job_id}", headers=bearer) as answer:
        document = await answer.json()
    created, expires = (datetime.fromisoformat(document[name]) for name in ("creationTime", "expirationTime"))
    assert (expires - created).total_seconds() == pytest.approx(life, abs=0.01)


async def test_an_access_token_lives_as_long_as_the_client_orders(start: Start) -> None:
    sandbox = await start()
    assert (await sandbox.token(access_token_ttl="600"))["expires_in"] == 600
    assert (await sandbox.token())["expires_in"] == 3600


FORMS = {"ringcentral": "errors", "elevateai": "errorMessage", "unless": "message", "nobody": "error"}
"""The field that every error of a provider has, and of the sandbox itself."""


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/ringcentral/ai/audio/v1/async/translate", {}, 404),
        ("GET", "/ringcentral/ai/audio/v1/async/speech-to-text", {}, 405),
        ("POST", "/ringcentral/restapi/oauth/token", {"Authorization": "Basic \xff"}, 401),
        ("GET", "/elevateai/v1/interactions/none/gen-ai/summary", ELEVATE, 404),
        ("PUT", "/elevateai/v1/interactions", ELEVATE, 405),
        ("GET", "/elevateai/v1/interactions/none/status", {"X-API-TOKEN": "\xff"}, 401),
        ("GET", "/unless/api/v1/ai/async/nothing", UNLESS, 404),
        ("DELETE", "/unless/api/v1/ai/async/answer", UNLESS, 405),
        ("GET", "/unless/api/v1/ai/async/answer", {"x-api-key": "\xff"}, 403),
        ("GET", "/nobody", {}, 404),
    ],
    ids=lambda value: str(value) if isinstance(value, str | int) else "",
)
async def test_every_error_is_json_of_the_providers_form(
    start: Start, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    sandbox = await start()
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    answered, fields, body = await raw(
        sandbox, f"{method} {path} HTTP/1.1\r\nHost: x\r\n{head}Content-Length: 0\r\n", b""
    )
    assert (answered, fields["content-type"]) == (status, "application/json"), body
    assert FORMS[path.split("/")[1]] in body
    assert (status == 405) == ("allow" in fields)


@pytest.mark.parametrize(
    "path",
    ["/ringcentral/ai/text/v1/async/punctuate", "/elevateai/v1/interactions", "/unless/api/v1/ai/async/query"],
)
async def test_a_body_that_is_too_large_is_refused_in_the_providers_form(
    start: Start, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr("outwait.sandbox.server._BODY_MAX", 1000)
    async with (await start()).client.post(path, data=b" " * 2000) as answer:
        assert answer.status == 413
        assert FORMS[path.split("/")[1]] in await answer.json()


async def test_an_unknown_job_and_an_unknown_path_have_the_codes_of_the_guide(start: Start) -> None:
    sandbox = await start()
    bearer = {"Authorization": f"Bearer {(await sandbox.token())['access_token']}"}
    async with sandbox.client.get("/ringcentral/ai/status/v1/jobs/none", headers=bearer) as answer:
        error = (await answer.json())["errors"][0]
        assert (answer.status, error["errorCode"], error["parameterName"]) == (404, "CMN-102", "jobId")
    async with sandbox.client.get("/ringcentral/ai/status/v2/jobs/none", headers=bearer) as answer:
        assert (answer.status, (await answer.json())["errorCode"]) == (404, "CMN-120")


LONG = "9" * 77


def form(boundary: str, *head: str, end: str = "\r\n") -> str:
    """A multipart body with one file of four bytes."""
    return "\r\n".join((f"--{boundary}", *head, "", "RIFF", f"--{boundary}--")) + end


OCTETS, LONG = "Content-Type: application/octet-stream", "9" * 77

UPLOADS = {
    # what NICE's SDKs send: Java, Python (two of its clients), .NET
    "java": (
        f"multipart/form-data;boundary={LONG}",
        form(LONG, 'Content-Disposition: form-data; name="file"; filename="a.wav"', "Content-Type: null", end=""),
    ),
    "python": (
        "multipart/form-data; boundary=b",
        form("b", 'Content-Disposition: form-data; name=""; filename="a.wav"', OCTETS),
    ),
    "python, asynchronous": (
        "multipart/form-data;boundary=_____123456789_____",
        form("_____123456789_____", OCTETS, 'Content-Disposition: form-data; filename="a.wav"'),
    ),
    "dotnet": (
        'multipart/form-data; boundary="0d3c-7"',
        form("0d3c-7", "Content-Disposition: form-data; name=files; filename=a.wav; filename*=utf-8''a.wav"),
    ),
}


@pytest.mark.parametrize(("kind", "body"), UPLOADS.values(), ids=UPLOADS)
async def test_each_of_nices_clients_can_upload(start: Start, kind: str, body: str) -> None:
    sandbox = await start()
    path = await sandbox.declare()
    head = (
        f"POST {path}/upload HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: {kind}\r\nX-API-TOKEN: {API_TOKEN}\r\n"
        # Java offers HTTP/2 with its first request.
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
    )
    status, _, answer = await raw(sandbox, head, body.encode())
    assert (status, answer) == (201, None)
    async with sandbox.client.get("/_ledger") as ledger:
        [upload] = (await ledger.json())["jobs"][0]["uploads"]
    assert (upload["filename"], upload["size"]) == ("a.wav", 4)


async def test_an_upload_is_answered_with_200_for_clients_that_take_nothing_else(start: Start) -> None:
    sandbox = await start(upload_status=200)
    kind, body = UPLOADS["java"]
    headers = {**ELEVATE, "Content-Type": kind}
    async with sandbox.client.post(f"{await sandbox.declare()}/upload", data=body, headers=headers) as answer:
        assert (answer.status, await answer.read()) == (200, b"")


@pytest.mark.parametrize(
    "body", ["", "--b--\r\n", "--c\r\n\r\nRIFF", "--b\r\n" + "x" * 9000, "--b\r\n" + "a: b\r\n" * 200], ids=range(5)
)
async def test_an_upload_that_cannot_be_read_is_400(start: Start, body: str) -> None:
    sandbox = await start()
    path = await sandbox.declare()
    headers = {**ELEVATE, "Content-Type": "multipart/form-data; boundary=b"}
    async with sandbox.client.post(f"{path}/upload", data=body, headers=headers) as answer:
        assert (answer.status, list(await answer.json())) == (400, ["errorMessage"])


async def test_nices_sdks_read_the_phrases_at_transcripts(start: Start) -> None:
    sandbox = await start()
    path = await sandbox.declare(downloadUri="https://x/a.wav")
    async with sandbox.client.get(f"{path}/transcript", headers=ELEVATE) as answer:
        phrases = await answer.json()
    async with sandbox.client.get(f"{path}/transcripts", headers=ELEVATE) as answer:
        assert (answer.status, await answer.json()) == (200, phrases)


async def test_the_case_of_a_declarations_fields_is_ignored(start: Start) -> None:
    sandbox = await start()
    await sandbox.declare(externalidentifier="call 7", downloaduri="https://x/a.wav")
    async with sandbox.client.get("/_ledger?text=call 7") as ledger:
        [job] = (await ledger.json())["jobs"]
    assert job["ready"] is not None, "its file is downloaded"


@pytest.mark.parametrize("chat", [{"messages": {"1": "hello"}}, {"messages": ["hello"]}, ["hello"]])
async def test_a_chat_of_another_form_is_refused(start: Start, chat: Any) -> None:
    sandbox = await start()
    body = {"type": "chat", "languageTag": "en-us", "vertical": "default", "chat": chat}
    async with sandbox.client.post("/elevateai/v1/interactions", json=body, headers=ELEVATE) as answer:
        assert (answer.status, list(await answer.json())) == (400, ["errorMessage"])


async def test_an_answer_of_unless_has_every_documented_field(start: Start) -> None:
    sandbox = await start()
    question = {"query": "What is it?", "sessionId": "s-1", "visitorId": "v-1"}
    begun = time.time()
    async with sandbox.client.post("/unless/api/v1/ai/async/query", json=question, headers=UNLESS) as answer:
        question_id = uuid.UUID((await answer.json())["questionId"])
    async with sandbox.client.get(f"/unless/api/v1/ai/async/answer?questionId={question_id}", headers=UNLESS) as answer:
        chat = (await answer.json())["chatData"]
    assert chat.keys() == {
        "history",
        "metadata",
        "toolsetName",
        "personalizationId",
        "sessionId",
        "conversationName",
        "conversationId",
    }
    for message in chat["history"]:
        uuid.UUID(message["uuid"])
        assert message["timestamp"] >= int(begun * 1000)
        assert {name: type(value) for name, value in message.items()} == {
            "type": str,
            "timestamp": int,
            "uuid": str,
            "hidden": bool,
            "sender": str,
            "message": str,
            "metadata": list,
            "languageCode": str,
            "showMetadata": bool,
            "canGetFeedback": bool,
            "feedback": str,
        }


@pytest.mark.parametrize("path", ["query", "answer"])
async def test_a_page_may_ask_unless(start: Start, path: str) -> None:
    sandbox = await start()
    asked = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
    async with sandbox.client.options(f"/unless/api/v1/ai/async/{path}", headers=asked) as answer:
        assert answer.status == 204
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        allowed = answer.headers["Access-Control-Allow-Headers"]
        assert {"content-type", *UNLESS} <= set(allowed.split(", "))
    async with sandbox.client.post("/unless/api/v1/ai/async/nothing", headers=asked) as answer:
        assert answer.headers["Access-Control-Allow-Origin"] == "*", "the page can read why"


async def raw(sandbox: Sandbox, head: str, body: bytes) -> tuple[int, dict[str, str], Any]:
    """Send these very bytes: status, headers and JSON of the answer."""
    reader, writer = await asyncio.open_connection(sandbox.host, sandbox.port)
    writer.write(head.encode("latin-1") + b"\r\n" + body)
    await writer.drain()
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    content = await reader.readexactly(int(fields["content-length"]))
    writer.close()
    return int(first.split()[1]), fields, msgspec.json.decode(content) if content else None
