"""Callers without a key open connections and finish nothing, while a good client uses the same web process."""

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from outwait import AsyncClient
from outwait.worker.local.embedded import free_port
from outwait.worker.store.access import Access, Scope
from outwait.worker.store.connection import Connection
from tests.patience import PATIENCE, wait_until
from tests.stack import WEB, Stack

MEBIBYTE = 1024 * 1024
FILES = 1024
"""Open files that a process may have: the usual limit."""

HEAD = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
FORM = b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
CHUNKED = FORM + b"Transfer-Encoding: chunked\r\n\r\n1\r\nk\r\n"


class Web:
    """A real web process with the usual limit of open files, and a key for it."""

    def __init__(self, stack: Stack, **variables: str) -> None:
        self.stack = stack
        port = free_port()
        self.address = ("127.0.0.1", port)
        self.url = f"http://127.0.0.1:{port}"
        limited = ["/bin/sh", "-c", f'ulimit -n {FILES} && exec "$0" "$@"', *WEB]
        self.process: subprocess.Popen[bytes] = stack.start(limited, "web", OUTWAIT_WEB__PORT=str(port), **variables)
        wait_until(self._answers, what="the web process answers")

    def connect(self, data: bytes = b"", *, source: str = "127.0.0.1") -> socket.socket:
        connection = socket.create_connection(self.address, PATIENCE, (source, 0))
        connection.sendall(data)
        return connection

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=PATIENCE, **options)

    def forget(self) -> int:
        """Bytes that the process takes now; `memory` begins with them again."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        return self.memory()

    def memory(self) -> int:
        """Bytes that the process took at most."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    def serves(self, key: str) -> bool:
        """Whether a good client's requests are answered: whether it lives, and an enqueue."""
        return self.get("/livez").status_code == 200 and bool(a_job(self, key))

    def _answers(self) -> bool:
        assert self.process.poll() is None, "the web process ended"
        try:
            return self.get("/livez").status_code == 200
        except httpx.TransportError:
            return False


def a_job(web: Web, key: str) -> str:
    """A job that is enqueued over HTTP; its id."""
    headers = {"Authorization": f"Bearer {key}"}
    params = {"query": "why?", "sessionId": "s-1", "visitorId": "v-1"}
    body = {"provider": "unless", "operation": "query", "params": params}
    answered = httpx.post(web.url + "/v1/jobs", json=body, headers=headers, timeout=PATIENCE)
    assert answered.status_code == 201, answered.text
    job_id: str = answered.json()["id"]
    return job_id


@pytest.fixture(scope="module")
def stack(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(redis_url, tmp_path_factory.mktemp("web")) as running:
        yield running


@pytest.fixture(scope="module")
def web(stack: Stack) -> Web:
    return Web(stack)


@pytest.fixture(scope="module")
def hasty(stack: Stack) -> Web:
    """It waits two seconds for its callers."""
    return Web(stack, OUTWAIT_WEB__READ_TIME="2")


@pytest.fixture
async def key(stack: Stack) -> str:
    connection = Connection(stack.settings)
    made = await Access(connection).create("good", set(Scope))
    await connection.close()
    return made.text


@contextmanager
def many(web: Web, count: int, data: bytes) -> Iterator[list[socket.socket]]:
    with ExitStack() as opened:
        yield [opened.enter_context(web.connect(data)) for _ in range(count)]


def answer(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    received = bytearray()
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionError:
        pass
    return bytes(received)


@pytest.mark.parametrize(
    "data",
    [b"", HEAD, HEAD + b"\r\n", FORM + b"Content-Length: 99\r\n\r\nkey="],
    ids=["silent", "half a head", "kept open", "half a body"],
)
def test_open_connections_silence_nobody(web: Web, key: str, data: bytes) -> None:
    """Protected by outwait/web/protocol.py: whoever has waited longest for its caller makes room."""
    with many(web, 1100, data):
        assert web.serves(key)


@pytest.mark.parametrize(
    ("begin", "part", "size"),
    [
        (HEAD, b"x-a: " + b"a" * 1017 + b"\r\n", 300),
        (HEAD, b"a: b\r\n", 30),
        (HEAD + b"x-a: ", b"a" * 1024, 300),
        (b"GET /", b"a" * 1024, 300),
        (CHUNKED + b"0\r\n", b"x-a: " + b"a" * 1017 + b"\r\n", 300),
        (CHUNKED + b"1;", b"a" * 1024, 300),
        (b"", HEAD + b"\r\n", 30),
    ],
    ids=["fields", "small fields", "one field", "target", "trailers", "chunk extension", "requests"],
)
def test_heads_without_an_end_take_no_memory(web: Web, key: str, begin: bytes, part: bytes, size: int) -> None:
    """Protected by outwait/web/protocol.py: a head has a size and a number of fields, a line of requests a length."""
    before = web.forget()
    data = part * (MEBIBYTE // len(part))
    with many(web, 30, begin) as connections:
        for _ in range(size // 30):
            for connection in connections:
                connection.settimeout(1)  # a server that reads no more is as good as one that closes
                try:
                    connection.sendall(data)
                except OSError:
                    connections.remove(connection)
        assert web.serves(key)
        assert web.memory() - before < 64 * MEBIBYTE


@pytest.mark.parametrize(
    ("begin", "drop", "status"),
    [
        (b"", b"", b""),
        (HEAD, b"", b"408"),
        (HEAD + b"x-a: ", b"a", b"408"),
        (FORM + b"Content-Length: 9999\r\n\r\nkey=", b"", b"408"),
        (FORM + b"Content-Length: 9999\r\n\r\nkey=", b"a", b"408"),
        (b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\nkey=", b"a", b"401"),
    ],
    ids=["silent", "half a head", "drops of a head", "half a body", "drops of a body", "drops after the answer"],
)
def test_slow_callers_are_not_waited_for(hasty: Web, begin: bytes, drop: bytes, status: bytes) -> None:
    """Protected by outwait/web/protocol.py: a head has a time, a body a time for each part and a speed."""
    with hasty.connect(begin) as connection:
        connection.settimeout(0.2)
        received = bytearray()

        def is_closed() -> bool:
            try:
                connection.sendall(drop)
                data = connection.recv(65536)
            except TimeoutError:
                return False
            except ConnectionError:
                return True
            received.extend(data)
            return not data

        wait_until(is_closed, what="the server closes the connection")
        assert received.split()[1:2] == [status][: len(status)]


def test_a_body_with_pauses_is_read(hasty: Web, key: str) -> None:
    params = {"query": "why?" * 3000, "sessionId": "s-1", "visitorId": "v-1"}
    body = json.dumps({"provider": "unless", "operation": "query", "params": params}).encode()
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
    with hasty.connect(f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode()) as connection:
        connection.settimeout(0.25)
        for place in range(0, len(body) - 1000, 1000):
            connection.sendall(body[place : place + 1000])
            with pytest.raises(TimeoutError):
                connection.recv(1)  # nothing comes: it is waited for
        connection.settimeout(PATIENCE)
        connection.sendall(body[-(len(body) % 1000 or 1000) :])
        assert answer(connection).startswith(b"HTTP/1.1 201 ")


def test_one_address_cannot_take_every_connection(stack: Stack, key: str) -> None:
    """Protected by outwait/web/connections.py."""
    web = Web(stack, OUTWAIT_WEB__CONNECTIONS_PER_ADDRESS="20")
    wait = f"GET /v1/jobs/{a_job(web, key)}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
    with ExitStack() as opened:
        for _ in range(20):
            connection = opened.enter_context(web.connect(wait, source="127.0.0.2"))
            assert connection.recv(15) == b"HTTP/1.1 200 OK"
        refused = answer(opened.enter_context(web.connect(HEAD + b"\r\n", source="127.0.0.2")))
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"too_many_connections" in refused
        assert web.serves(key)


async def test_one_tenant_cannot_take_every_connection(stack: Stack, key: str) -> None:
    """Protected by outwait/web/waiting.py, also where all callers come through one proxy."""
    web = Web(stack, OUTWAIT_WEB__CONNECTIONS="40", OUTWAIT_WEB__TRUSTED_PROXIES="127.0.0.1")
    connection = Connection(stack.settings)
    tenant = (await Access(connection).create("greedy", set(Scope), "greedy")).text
    await connection.close()
    job = a_job(web, tenant)
    follow = f"GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {tenant}\r\n\r\n"
    with ExitStack() as opened:
        answers = []
        for _ in range(30):
            connected = opened.enter_context(web.connect(follow.encode()))
            answers.append(connected.recv(12))
        assert answers == [b"HTTP/1.1 200"] * 20 + [b"HTTP/1.1 429"] * 10
        async with AsyncClient(web.url, key=tenant) as client:
            with pytest.raises(TimeoutError):
                await client.wait(job, timeout_s=0.5)  # it asks again until then
        assert web.serves(key)

        def is_free() -> bool:
            with web.connect(follow.encode()) as another:
                return another.recv(12) == b"HTTP/1.1 200"

        opened.close()
        wait_until(is_free, what="the places of those that are gone are free")


def test_answers_that_nobody_reads_are_not_kept(hasty: Web) -> None:
    """Protected by outwait/web/protocol.py."""
    files = Path(f"/proc/{hasty.process.pid}/fd")
    before = len(list(files.iterdir()))
    with ExitStack() as opened:
        connections = [opened.enter_context(socket.socket()) for _ in range(10)]
        for connection in connections:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(hasty.address)
        wait_until(lambda: len(list(files.iterdir())) >= before + 8, what="the server has accepted them")
        for _ in range(60):  # more than the system holds for them
            for connection in connections:
                with suppress(OSError):
                    connection.sendall(b"GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")
            assert hasty.get("/livez").status_code == 200
        wait_until(lambda: len(list(files.iterdir())) <= before + 4, what="the server gives up")


def test_a_head_that_is_too_large_is_told(web: Web) -> None:
    many_fields = {f"x-{number}": "a" for number in range(200)}
    for headers in ({"x-a": "a" * 100_000}, many_fields):
        refused = web.get("/livez", headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (431, "request_header_fields_too_large")
    assert web.get("/livez", headers={"x-a": "a" * 10_000}).status_code == 200


@pytest.mark.parametrize("trusted", ["", "127.0.0.0/8"])
def test_wrong_keys_lock_nobody_out(stack: Stack, key: str, trusted: str) -> None:
    """Protected by outwait/web/client_address.py, and by outwait/web/pages/session.py: only wrong keys are refused."""
    web = Web(stack, OUTWAIT_WEB__TRUSTED_PROXIES=trusted)

    def log_in(text: str, address: str) -> int:
        headers = {"X-Forwarded-For": f"198.51.100.1, {address}"}
        return httpx.post(web.url + "/login", data={"key": text}, headers=headers, timeout=PATIENCE).status_code

    tries = [log_in("ow_00000000_" + "x" * 43, "203.0.113.9") for _ in range(12)]
    assert tries == [401] * 10 + [429] * 2
    assert log_in(key, "203.0.113.9") == 303
    assert log_in("wrong", "203.0.113.10") == (401 if trusted else 429)
    assert log_in(key, "203.0.113.10") == 303
    headers = {"Authorization": f"Bearer {key}"}
    for _ in range(30):
        assert web.get("/v1/counts", headers={"Authorization": "Bearer ow_wrong"}).status_code == 401
    assert web.get("/v1/counts", headers=headers).status_code == 200
