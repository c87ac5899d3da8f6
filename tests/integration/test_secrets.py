"""A job whose every secret-like place carries a canary goes through all processes; nothing that they show has one."""

import asyncio
import base64
import json
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from outwait.cli.root import app
from outwait.sandbox import credentials
from outwait.web.problems import of
from outwait.worker.local.embedded import EmbeddedRedis, free_port
from outwait.worker.model.errors import OperatorError, StoreRefused, StoreUnavailable, StoreUnfit
from outwait.worker.model.jobs import JobRequest
from outwait.worker.store.access import Access, Scope
from outwait.worker.store.connection import Connection
from tests.stack import ROOT, Stack, closed, query, until

CANARY = "c4naryC4NARYc4nary"
TARGET = "t4rgetT4RGETt4rget"
LOGIN = "fl0werFL0WERfl0wer"
SIGNING = "s1gningS1GNINGs1gning-s1gning"

HANDLERS = f"""
from outwait import Envelope, handler

@handler("leaky")
def leaky(envelope: Envelope) -> None:
    raise RuntimeError(
        "POST https://u:{CANARY}@crm.example/notes?token={CANARY} answered 401; Authorization: Bearer {CANARY}; "
        '{{"access_token": "{CANARY}"}}; ow_0a1b2c3d_{CANARY}'
    )
"""

MEDIA = f"https://u:{CANARY}@media.example/{CANARY}/1.wav?access_token={CANARY}&sig={CANARY}"
COMMANDS = "status|jobs|dead|held|parked|providers|endpoints|config|keys list"
OF_A_JOB = "status|timeline|webhooks"
OF_JOBS = (
    ("/v1/jobs", ""),
    ("/v1/jobs", "/timeline"),
    ("/v1/jobs", "/events"),
    ("/v1/jobs", "/deliveries"),
    ("/jobs", ""),
)
OVERALL = ("/v1/jobs", "/v1/dead", "/v1/providers", "/metrics", "/readyz", "/", "/jobs", "/dead", "/held", "/providers")
RESULT = re.compile(r"<h2[^>]*>Result .*?</pre>", re.DOTALL)
"""On the page of a job; the sandbox says in it what it was asked."""
DATA = (":s:", ":r:", ":w:", ":token:", ":w-secret", ":in:messages")
"""Keys that are there to hold what is secret: requests, results, webhooks as they came, tokens."""

KNOW_TARGETS = ("redis", "web /v1/jobs", "web /v1/dead")
"""A target is told, as metadata are, to those who may read its job; without it nothing could be delivered there."""


class Collector(ThreadingHTTPServer):
    """Takes what OpenTelemetry sends."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Take)
        self.taken = b""
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Take(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Collector)
        self.server.taken += self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector
        collector.shutdown()


@pytest.fixture(scope="module")
def stack(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder: Path = tmp_path_factory.mktemp("secrets")
    (folder / "leaking.py").write_text(HANDLERS)
    variables = {
        "OUTWAIT_LOG__LEVEL": "DEBUG",
        "OUTWAIT_HANDLERS__MODULES": "leaking",
        "OUTWAIT_DELIVER__ATTEMPTS": "2",
        "OUTWAIT_WEBHOOKS__SECRETS": SIGNING,
        "OUTWAIT_WEBHOOKS__SCHEDULE": "0.1,0.1",
        "OUTWAIT_FLOWER__BASIC_AUTH": f"ada:{LOGIN}",
        "OUTWAIT_FLOWER__PORT": str(free_port()),
    }
    options = {"behaviour": {"duration": 0.3}}
    with (
        EmbeddedRedis(folder / "redis") as server,
        Stack(server.url, folder, options=options, variables=variables) as up,
    ):
        up.web()
        up.start([sys.executable, "-m", "outwait", "flower"], "flower")
        up.worker(
            OUTWAIT_TRACES__ENABLED="true", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="200"
        )
        yield up


@pytest.fixture
async def connection(stack: Stack) -> AsyncIterator[Connection]:
    connection = Connection(stack.settings)
    yield connection
    await connection.close()


async def test_no_secret_is_shown_anywhere(stack: Stack, collector: Collector, connection: Connection) -> None:
    made = await Access(connection).create("ada", set(Scope))
    flower = f"http://127.0.0.1:{stack.variables['OUTWAIT_FLOWER__PORT']}"
    async with (
        httpx.AsyncClient(base_url=stack.web_url, headers={"Authorization": f"Bearer {made.text}"}) as web,
        httpx.AsyncClient(base_url=flower, auth=("ada", LOGIN)) as tasks,
        stack.client() as client,
    ):
        await until(lambda: _answers(tasks), what="Flower answers")
        jobs = [(await client.enqueue(request)).job_id for request in requests()]
        jobs.append(await sent_badly(stack, connection))
        for job_id in jobs:
            await closed(client, job_id)
        await until(lambda: client.parked(1), what="a message that can be no job")
        answers = await visited(web, jobs)
        session = web.cookies["outwait"]
        await until(lambda: _rows(tasks, jobs), what="rows in Flower")
        pages = {path: (await tasks.get(path)).text for path in await flower_pages(tasks, jobs)}
        shown = {
            **{f"web {path}": text for path, text in answers.items()},
            **{f"flower {path}": text for path, text in pages.items()},
            **await asyncio.to_thread(printed, stack, jobs),
            **{f"log {name}": stack.logs(name) for name in ("worker", "web", "flower")},
            **await held(connection),
            "traces": collector.taken.decode(errors="replace"),
        }
    assert len(pages) >= 5
    assert "leaky" in shown["outwait dead"]  # what is looked at is there
    assert "RuntimeError" in shown["traces"]
    assert "media.example" in shown["outwait parked"]
    secrets = {
        "canary": CANARY,
        "target": TARGET,
        "flower login": LOGIN,
        "signing": SIGNING,
        "api key": made.text.split("_", 2)[2],
        "session": session,
        "redis password": _password(stack),
        "client secret": credentials.CLIENT_SECRET,
        "jwt": credentials.JWT,
        "api token": credentials.API_TOKEN,
        "provider key": credentials.API_KEY,
        **{f"access token {n}": token for n, token in enumerate(await tokens(connection))},
        **{f"webhook token {n}": token for n, token in enumerate(webhook_tokens(stack))},
    }
    assert [name for name in secrets if name.endswith(" 0")] == ["access token 0", "webhook token 0"]
    leaks = [
        (place, name)
        for place, text in shown.items()
        for name, secret in secrets.items()
        if secret in text and not (name == "target" and place.startswith(KNOW_TARGETS))
    ]
    assert not leaks, "\n".join(f"{name} in {place}: …{_around(shown[place], secrets[name])}…" for place, name in leaks)


def requests() -> list[JobRequest]:
    speech = {"contentUri": MEDIA, "encoding": "Wav", "languageCode": "en-US"}
    target = f"https://receiver.invalid/hook?token={TARGET}"
    audio = {"languageTag": "en-us", "vertical": "default", "downloadUri": MEDIA}
    failing = f'Bearer {CANARY} {MEDIA} sandbox:{{"outcome":"failure","duration":0.1}}'
    return [
        JobRequest(provider="ringcentral", operation="speech-to-text", params=speech, targets=["leaky"]),
        JobRequest(provider="elevateai", operation="audio", params=audio, targets=["leaky"]),
        query("answered by webhook", targets=[target]),
        query(failing, targets=["leaky"]),
    ]


async def sent_badly(stack: Stack, connection: Connection) -> str:
    """A producer's message that is no valid request, under the id that is given back, and one that can be no job."""
    params = {"contentUri": MEDIA, "encoding": "Wav", "api_key": CANARY}
    kwargs = {"provider": "ringcentral", "operation": "speech-to-text", "params": params, "password": CANARY}
    for task_id in ("refused-1", "no job id"):
        message = {
            "body": base64.b64encode(json.dumps([[], kwargs, {}]).encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"task": "tasks.submit", "id": task_id, "lang": "py", "kwargsrepr": repr(kwargs)},
            "properties": {"body_encoding": "base64", "delivery_tag": task_id, "delivery_info": {}},
        }
        await connection.redis.lpush(stack.settings.intake.queue, json.dumps(message))
    return "refused-1"


async def visited(web: httpx.AsyncClient, jobs: list[str]) -> dict[str, str]:
    """Requests with good and with bad keys, of the API and of the pages; what is answered."""
    for path in (f"/webhooks/ringcentral/{CANARY}", f"/webhooks/{CANARY}/{CANARY}", f"/webhooks/unless/x/{CANARY}"):
        await web.post(path, json={"jobId": CANARY, "token": CANARY})
    await web.get(f"/{CANARY}?token={CANARY}")
    strange = {"Authorization": f"Bearer ow_0a1b2c3d_{CANARY}"}
    answers = {"refused": (await web.get("/v1/jobs", headers=strange)).text}
    answers["wrong body"] = (await web.post("/v1/jobs", content=f'{{"password": "{CANARY}"')).text
    answers["wrong login"] = (await web.post("/login", data={"key": f"ow_0a1b2c3d_{CANARY}"})).text
    key = web.headers["Authorization"].removeprefix("Bearer ")
    assert (await web.post("/login", data={"key": key})).status_code == 303
    paths = [f"{root}/{job_id}{part}" for job_id in jobs for root, part in OF_JOBS]
    for path in (*OVERALL, *paths):
        answer = await web.get(path)
        assert answer.status_code == 200, (path, answer.text)
        answers[path] = RESULT.sub("", answer.text)
    return answers


async def flower_pages(tasks: httpx.AsyncClient, jobs: list[str]) -> list[str]:
    workers = (await tasks.get("/api/workers?refresh=1")).json()
    return [
        *("/api/tasks", "/broker", "/workers", "/metrics", "/api/workers"),
        *(f"/worker/{name}" for name in workers),
        *(f"{path}/{job_id}" for job_id in jobs for path in ("/task", "/api/task/info")),
    ]


def printed(stack: Stack, jobs: list[str]) -> dict[str, str]:
    """What every command prints, to both outputs."""
    words = [*COMMANDS.split("|"), *(f"{word} {job_id}" for word in OF_A_JOB.split("|") for job_id in jobs)]
    outputs = {f"outwait {word}": CliRunner().invoke(app, word.split(), env=stack.variables).output for word in words}
    doctor = [sys.executable, "-m", "outwait", "doctor"]  # Celery's app is for the life of a process
    done = subprocess.run(doctor, cwd=ROOT, env=stack.environment, capture_output=True, text=True, check=False)
    return outputs | {"outwait doctor": done.stdout + done.stderr}


async def held(connection: Connection) -> dict[str, str]:
    """What Redis holds, without the data itself."""
    redis, stored = connection.redis, {}
    reads: dict[bytes, Any] = {
        b"string": redis.get,
        b"hash": redis.hgetall,
        b"set": redis.smembers,
        b"list": lambda key: redis.lrange(key, 0, -1),
        b"zset": lambda key: redis.zrange(key, 0, -1),
    }
    async for raw in redis.scan_iter():
        key = raw.decode(errors="replace")
        kind = await redis.type(raw)
        if kind in reads and not any(part in key for part in DATA):
            stored[f"redis {key}"] = f"{await reads[kind](raw)}"
    return {key: text for key, text in stored.items() if '"status":"SUCCESS"' not in text}  # Celery's copy of a result


async def tokens(connection: Connection) -> list[str]:
    keys = [key async for key in connection.redis.scan_iter("*:token:*")]
    return [(await connection.redis.get(key)).decode() for key in keys]


def webhook_tokens(stack: Stack) -> list[str]:
    """From the URLs that the sandbox was given."""
    parts = json.dumps(stack.ledger()).split("/webhooks/ringcentral/")[1:]
    return sorted({part.partition('"')[0] for part in parts})


def _password(stack: Stack) -> str:
    return stack.variables["OUTWAIT_REDIS_URL"].partition("://:")[2].partition("@")[0]


async def _answers(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/api/workers?refresh=1")).text.startswith('{"outwait')
    except httpx.HTTPError:
        return False


async def _rows(tasks: httpx.AsyncClient, jobs: list[str]) -> bool:
    rows = (await tasks.get("/api/tasks")).json()
    return all(rows.get(job_id, {}).get("state") in {"SUCCESS", "FAILURE"} for job_id in jobs)


def _around(text: str, secret: str) -> str:
    at = text.index(secret)
    return text[max(0, at - 150) : at + 50]


@pytest.mark.parametrize("kind", [StoreUnavailable, StoreRefused, StoreUnfit])
def test_callers_are_not_told_where_the_store_is(kind: type[OperatorError]) -> None:
    text = of(kind("Redis at 10.0.0.7 refuses: user outwait-web has no permission")).body
    assert b"10.0.0.7" not in text
    assert b"outwait-web" not in text
    assert b"The log of the web process has the details" in text
