"""The web process behind a real HAProxy, with the file of our examples, as an operator uses it."""

import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from outwait.worker.local.embedded import free_port
from outwait.worker.store.access import Access, Scope
from outwait.worker.store.connection import Connection
from tests.patience import PATIENCE, wait_until
from tests.stack import ROOT, Stack
from tests.tls import certificate


class Proxied:
    """A web process behind HAProxy."""

    def __init__(self, stack: Stack, port: int, context: ssl.SSLContext) -> None:
        self.stack = stack
        self.port = port
        self.context = context

    def client(self, source: str = "127.0.0.1", **options: Any) -> httpx.Client:
        transport = httpx.HTTPTransport(verify=self.context, local_address=source)
        return httpx.Client(base_url=f"https://127.0.0.1:{self.port}", transport=transport, timeout=PATIENCE, **options)

    def connect(self, source: str = "127.0.0.1") -> ssl.SSLSocket:
        raw = socket.create_connection(("127.0.0.1", self.port), PATIENCE, (source, 0))
        return self.context.wrap_socket(raw, server_hostname="127.0.0.1")

    def answers(self) -> bool:
        try:
            with self.client() as client:
                return client.get("/livez").status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture(scope="module")
def proxied(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if program is None:
        missing = "no HAProxy was found: install one (`apt-get install haproxy`)"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    folder = tmp_path_factory.mktemp("proxy")
    chain, key = certificate(folder)
    both, port = folder / "both.pem", free_port()
    both.write_text(chain.read_text() + key.read_text())
    with Stack(redis_url, folder) as stack:
        stack.web(OUTWAIT_WEB__TRUSTED_PROXIES="127.0.0.1")
        places = {"LISTEN": f"127.0.0.1:{port}", "CERTIFICATE": str(both), "WEB": stack.web_url.removeprefix("http://")}
        command = [program, "-f", str(ROOT / "examples" / "haproxy-web.cfg")]
        with subprocess.Popen(command, env=os.environ | places) as process:
            try:
                ready = Proxied(stack, port, ssl.create_default_context(cafile=str(chain)))
                wait_until(ready.answers, what="HAProxy answers")
                yield ready
            finally:
                process.kill()


@pytest.fixture
async def key(proxied: Proxied) -> str:
    connection = Connection(proxied.stack.settings)
    made = await Access(connection).create("good", set(Scope), networks=["127.0.0.3"])
    await connection.close()
    return made.text


def test_wrong_keys_lock_nobody_else_out(proxied: Proxied, key: str) -> None:
    forged = {"X-Forwarded-For": "127.0.0.3", "Forwarded": "for=127.0.0.3"}
    with proxied.client("127.0.0.2", headers=forged) as attacker, proxied.client("127.0.0.3") as good:
        statuses = [attacker.post("/login", data={"key": "wrong"}).status_code for _ in range(12)]
        assert statuses == [401] * 10 + [429] * 2
        assert good.post("/login", data={"key": "wrong"}).status_code == 401
        assert good.post("/login", data={"key": key}).status_code == 303
        assert attacker.post("/login", data={"key": key}).status_code == 403  # a header is no address


def test_a_key_is_good_from_its_addresses(proxied: Proxied, key: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    with proxied.client("127.0.0.3", headers=headers) as good, proxied.client("127.0.0.4", headers=headers) as other:
        params = {"query": "why?", "sessionId": "s-1", "visitorId": "v-1"}
        job = good.post("/v1/jobs", json={"provider": "unless", "operation": "query", "params": params}).json()["id"]
        assert other.get(f"/v1/jobs/{job}").json()["code"] == "forbidden"
        with good.stream("GET", f"/v1/jobs/{job}/events") as events:
            lines = events.iter_lines()
            assert any('"enqueued"' in line for line in lines)  # it comes while the stream is open


# `SSLContext.wrap_socket` leaves the socket open if the connection was reset before it (Python 3.11).
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_connections_of_one_address_are_bounded(proxied: Proxied) -> None:
    with ExitStack() as opened:
        refused = 0
        for _ in range(120):
            try:
                opened.enter_context(proxied.connect("127.0.0.5")).sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n")
            except OSError:
                refused += 1
        assert refused >= 15
        with proxied.client() as good:
            assert good.get("/livez").status_code == 200


def test_slow_heads_end_at_the_proxy(proxied: Proxied) -> None:
    with proxied.connect() as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")


def test_what_is_for_programs_inside_stays_inside(proxied: Proxied) -> None:
    with proxied.client() as client:
        assert [client.get(path).status_code for path in ("/metrics", "/readyz", "/livez")] == [404, 404, 200]
        assert client.get("/livez").headers["strict-transport-security"]
