"""A Redis behind TLS with client certificates, where each of our processes is a user with the rules of
docs/operations.md: everything works through it, and nobody can do more than they must.

The bundled server speaks no TLS; a proxy in front of it does, as in front of many managed ones.
"""

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest
from pydantic import SecretStr
from redis import Redis
from redis.exceptions import NoPermissionError

from outwait.worker.local.embedded import EmbeddedRedis, free_port
from outwait.worker.model.errors import StoreUnavailable
from outwait.worker.model.jobs import DeliveryState, JobRequest, JobState
from outwait.worker.store.access import Access, Scope
from outwait.worker.store.connection import Connection
from tests.celery_producer import PRODUCER
from tests.patience import PATIENCE
from tests.stack import ROOT, Stack, closed, ended, query, until

PASSWORD = "p%2Fss%40word"  # as it stands in a URL


def rules(namespace: str, queue: str) -> dict[str, list[str]]:
    """The users that the page gives, for other names of the namespace and the queue."""
    page = (ROOT / "docs" / "operations.md").read_text()
    block = re.search(r"```text\n(user .*?)```", page, re.DOTALL)
    assert block
    lines = [line.split() for line in block[1].splitlines() if line]
    users = {words[1].removeprefix("outwait-"): [word for word in words[2:] if word[0] != ">"] for words in lines}

    def renamed(word: str) -> str:
        place = word.replace("{outwait}", f"{{{namespace}}}").replace("~outwait.", f"~{namespace}.")
        return re.sub(r"(~|binding\.|permanent\.)outwait(?![.\w-])", rf"\g<1>{queue}", place)

    return {name: [renamed(word) for word in words] for name, words in users.items()}


@contextmanager
def certificates(folder: Path) -> Iterator[dict[str, Path]]:
    """A self-made certificate for 127.0.0.1, and one for clients."""
    for name in ("server", "client"):
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
                *("-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"),
                *("-keyout", f"{name}.key", "-out", f"{name}.pem"),
            ],
            cwd=folder,
            check=True,
            capture_output=True,
        )
    yield {f"{name}_{kind}": folder / f"{name}.{kind}" for name in ("server", "client") for kind in ("key", "pem")}


@contextmanager
def tls(files: dict[str, Path], to: int) -> Iterator[int]:
    """A TLS proxy in front of a server on port `to`; its port."""
    port = free_port()
    paths = [str(files[name]) for name in ("server_pem", "server_key", "client_pem")]
    command = [sys.executable, str(ROOT / "tests" / "tls_proxy.py"), str(port), str(to), *paths]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout
            assert process.stdout.readline()
            yield port
        finally:
            process.kill()


class Secured:
    """The stack, and the server behind it."""

    def __init__(self, stack: Stack, admin: Redis, url: Callable[[str], str]) -> None:
        self.stack, self.admin, self.url = stack, admin, url

    @property
    def denied(self) -> list[str]:
        """What users were refused since the last look."""
        log = self.admin.acl_log()
        self.admin.acl_log_reset()
        # Workers ask for `appendfsync`, and go on without an answer.
        return [
            f"{entry['username']}: {entry['object']} ({entry['reason']})"
            for entry in log
            if entry["object"] != "config|get"
        ]

    def client(self, user: str) -> Redis:
        return Redis.from_url(self.url(user))


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder: Path = tmp_path_factory.mktemp("secured")
    with (
        certificates(folder) as files,
        EmbeddedRedis(folder / "redis") as server,
        tls(files, server.port) as port,
    ):
        options = f"ssl_cert_reqs=required&ssl_ca_certs={files['server_pem']}&ssl_certfile={files['client_pem']}"

        def url(user: str) -> str:
            place = f"127.0.0.1:{port}/0?{options}&ssl_keyfile={files['client_key']}"
            return f"rediss://outwait-{user}:{PASSWORD}@{place}"

        with (
            Stack(url("worker"), folder, options={"behaviour": {"duration": 0.3}}) as stack,
            Redis.from_url(server.url, decode_responses=True) as admin,
        ):
            for name, words in rules(stack.settings.namespace, stack.settings.intake.queue).items():
                if name != "default":
                    admin.execute_command("ACL", "SETUSER", f"outwait-{name}", "reset", ">p/ss@word", *words)
            stack.worker()
            yield Secured(stack, admin, url)


async def produced(secured: Secured, request: JobRequest) -> str:
    """What a producer in a process of its own gets back."""
    options = [secured.url("producer"), secured.stack.settings.intake.queue, request.model_dump_json()]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PRODUCER, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    output, wrong = await process.communicate()
    assert process.returncode == 0, (secured.denied, wrong.decode())
    return output.decode()


async def test_a_job_goes_through_with_each_process_as_a_user_of_its_own(secured: Secured) -> None:
    assert "This is the result of secured?" in await produced(secured, query("secured?"))
    assert secured.denied == []


async def test_the_web_process_works_as_its_user(secured: Secured) -> None:
    stack = secured.stack
    connection = Connection(stack.settings)
    made = await Access(connection).create("ada", set(Scope))
    await connection.close()
    process = await asyncio.to_thread(stack.web, OUTWAIT_REDIS_URL=secured.url("web"))
    headers = {"Authorization": f"Bearer {made.text}"}
    async with httpx.AsyncClient(base_url=stack.web_url, headers=headers) as web:
        sent = await web.post("/v1/jobs", json=query("over http?").model_dump())
        assert sent.status_code == 201, sent.text
        job_id = sent.json()["id"]
        done = await web.get(f"/v1/jobs/{job_id}?wait=30", timeout=PATIENCE)
        assert done.json()["state"] == "succeeded"
        assert (await web.post("/login", data={"key": made.text})).status_code == 303
        job = f"/v1/jobs/{job_id}"
        for path in (
            f"{job}/result",
            f"{job}/events",
            "/v1/counts",
            "/v1/providers",
            "/metrics",
            "/readyz",
            "/",
            f"/jobs/{job_id}",
        ):
            answer = await web.get(path)
            assert answer.status_code == 200, (path, answer.text, secured.denied)
    process.terminate()
    assert secured.denied == []


async def test_flower_works_as_its_user_and_its_revoke_cancels(secured: Secured) -> None:
    stack, port = secured.stack, free_port()
    stack.start(
        [sys.executable, "-m", "outwait", "flower"],
        "flower",
        OUTWAIT_REDIS_URL=secured.url("flower"),
        OUTWAIT_FLOWER__PORT=str(port),
        OUTWAIT_FLOWER__BASIC_AUTH="ada:lovelace",
    )
    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", auth=("ada", "lovelace")) as flower,
        stack.client() as client,
    ):
        await until(lambda: _answers(flower), what="Flower answers")
        enqueued = await client.enqueue(query('sandbox:{"outcome":"never"}'))

        async def row() -> bool:
            return enqueued.job_id in (await flower.get("/api/tasks")).json()

        await until(row, what="the job's row")
        assert f"{stack.settings.namespace}.submit" in (await flower.get("/broker")).text
        assert (await flower.post(f"/api/task/revoke/{enqueued.job_id}")).status_code == 200
        assert (await ended(client, enqueued.job_id)).state is JobState.CANCELLED
    assert secured.denied == []
    assert "Unable to get queues" not in stack.logs("flower")


EDGE = ["LPUSH {namespace}.submit x", "LPUSH {queue} x", "GET other", "CONFIG GET *", "KEYS *"]

REFUSED = {
    "producer": [
        "LRANGE {queue} 0 -1",
        "RPOP {queue}",
        "DEL {queue}",
        "LPUSH {namespace}.submit x",
        "LPUSH other x",
        "GET {{{namespace}}}:j:some-job",
        "HGETALL {{{namespace}}}:access",
        "SET celery-task-meta-some-job x",
        "PUBLISH /0.celery.pidbox x",
        "PUBLISH celery-task-meta-some-job x",
        "SUBSCRIBE /0.celeryev/worker.heartbeat",
        "SCAN 0",
        "KEYS *",
        "EVAL return(1) 0",
        "CONFIG GET requirepass",
        "ACL LIST",
        "CLIENT LIST",
        "INFO",
        "FLUSHALL",
    ],
    # It appends to streams and queues of users. No target can change the type of a key that workers need.
    "worker": [
        "XADD {namespace}.unacked * field value",
        "LPUSH {namespace}.unacked x",
        "XADD {namespace}.unacked_index * field value",
        "XADD {namespace}.deliver * field value",
        "XADD _kombu.binding.celeryev * field value",
        "LPUSH _kombu.binding.celeryev x",
        "XADD reply.celery.pidbox * field value",
        "XADD {queue} * field value",
        "XADD {{{namespace}}}:orphans * field value",
        "XADD celery * field value",
        "LPUSH celery x",
        "LPUSH outwait-stream:calls x",
        "XADD outwait-queue:crm * field value",
    ],
    "web": EDGE,
    "flower": EDGE,
}


@pytest.mark.parametrize(("user", "command"), [(user, each) for user, commands in REFUSED.items() for each in commands])
async def test_each_user_can_do_only_what_it_must(secured: Secured, user: str, command: str) -> None:
    settings = secured.stack.settings
    words = command.format(queue=settings.intake.queue, namespace=settings.namespace).split()
    with secured.client(user) as client, pytest.raises(NoPermissionError):
        client.execute_command(*words)
    secured.admin.acl_log_reset()


async def test_targets_that_are_allowed_by_default_are_reached(secured: Secured) -> None:
    targets = ["stream://outwait-stream:calls", "celery://crm.store?queue=outwait-queue:crm"]
    async with secured.stack.client() as client:
        job_id = (await client.enqueue(query("to targets", targets=targets))).job_id
        await closed(client, job_id)
        assert [each.state for each in await client.deliveries(job_id)] == [DeliveryState.DELIVERED] * 2
    assert secured.denied == []


async def test_nobody_gets_in_without_a_certificate_or_past_one_that_is_not_known(secured: Secured) -> None:
    """Certificates are shown and checked without being asked for in the URL."""
    url = urlsplit(secured.url("worker"))
    options = dict(parse_qsl(url.query))
    authority = {"ssl_ca_certs": options["ssl_ca_certs"]}
    certificate = {name: options[name] for name in ("ssl_certfile", "ssl_keyfile")}
    for given, opens in (({}, False), (authority, False), (certificate, False), ({**authority, **certificate}, True)):
        redis_url = SecretStr(url._replace(query=urlencode(given)).geturl())
        connection = Connection(secured.stack.settings.model_copy(update={"redis_url": redis_url}))
        try:
            assert await Access(connection).find("ow_0a1b2c3d_" + "x" * 43) is None
            opened = True
        except StoreUnavailable:
            opened = False
        await connection.close()
        assert opened is opens, given


async def _answers(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/livez")).status_code < 500
    except httpx.HTTPError:
        return False
