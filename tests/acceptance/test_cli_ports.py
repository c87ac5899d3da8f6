"""A port that is not free, a wrong password, an old Redis: each ends in a clear line and the documented code."""

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from redis import Redis

from outwait.sandbox import environment as providers
from outwait.worker.local.embedded import free_port
from outwait.worker.store.access import Access, Scope
from outwait.worker.store.connection import Connection
from tests.acceptance.test_cli import QUESTION, Shell
from tests.patience import PATIENCE
from tests.stack import Stack


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def busy() -> Iterator[str]:
    """A port on which another program listens."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield str(other.getsockname()[1])


@pytest.mark.parametrize(
    ("words", "setting"),
    [
        (["up", "--no-flower"], "OUTWAIT_WEB__PORT"),
        (["up", "--no-web"], "OUTWAIT_FLOWER__PORT"),
        (["web"], "OUTWAIT_WEB__PORT"),
        (["flower"], "OUTWAIT_FLOWER__PORT"),
    ],
    ids=" ".join,
)
def test_a_busy_port_ends_with_its_setting(shell: Shell, busy: str, words: list[str], setting: str) -> None:
    done = shell.run(*words, **{setting: busy})
    assert done.returncode == 6, done.stderr
    assert f"127.0.0.1:{busy}" in done.stderr
    assert f"set {setting} to a free port" in done.stderr
    assert "http://" not in done.stderr
    assert "bug" not in done.stderr


def test_a_busy_port_of_the_embedded_redis(shell: Shell, busy: str) -> None:
    ports = {"OUTWAIT_WEB__PORT": str(free_port()), "OUTWAIT_FLOWER__PORT": str(free_port())}
    done = shell.run("up", "--redis-port", busy, **ports)
    assert done.returncode == 6, done.stderr
    assert "set --redis-port to a free port" in done.stderr


def test_up_ends_when_a_process_would_end_the_same_way_again(shell: Shell) -> None:
    done = shell.run("up", "--no-web", "--no-flower", OUTWAIT_HANDLERS__MODULES="no_such_module")
    assert done.returncode == 6, done.stderr
    assert "no_such_module" in done.stderr
    assert "worker-1 ended with exit code 6" in done.stderr


@pytest.mark.parametrize("secret", ["", ":wrong@"])
def test_a_wrong_password_is_said(shell: Shell, redis_url: str, secret: str) -> None:
    parts = urlsplit(redis_url)
    wrong = parts._replace(netloc=f"{secret}127.0.0.1:{parts.port}").geturl()
    done = shell.run("jobs", OUTWAIT_REDIS_URL=wrong)
    assert done.returncode == 6, done.stderr
    assert "refuses the user name or the password" in done.stderr
    assert "Correct both in OUTWAIT_REDIS_URL" in done.stderr
    assert "that it runs" not in done.stderr


class OldRedis:
    """A proxy before a real server: what `INFO` says of the version is older, and nothing else differs."""

    def __init__(self, redis_url: str) -> None:
        parts = urlsplit(redis_url)
        self._server = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = parts._replace(netloc=parts.netloc.rpartition(":")[0] + f":{port}").geturl()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(self._server) as server:
            back = threading.Thread(target=self._reply, args=[server, client], daemon=True)
            back.start()
            while data := client.recv(1 << 20):
                server.sendall(data)
            server.shutdown(socket.SHUT_RDWR)
            back.join()

    @staticmethod
    def _reply(server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 20):
                older = re.sub(rb"(?<=redis_version:)[\d.]+", lambda now: b"6.0." + b"9" * (len(now[0]) - 4), data)
                client.sendall(older)


@pytest.fixture
def old(redis_url: str) -> Iterator[OldRedis]:
    proxy = OldRedis(redis_url)
    yield proxy
    proxy.close()


def test_an_old_redis_is_refused_before_anything_is_written(shell: Shell, old: OldRedis, redis_url: str) -> None:
    ours = {"OUTWAIT_REDIS_URL": old.url, "OUTWAIT_NAMESPACE": "too-old", **providers("http://127.0.0.1:1")}
    done = shell.run("submit", *QUESTION, "-p", "query=why?", **ours)
    assert done.returncode == 7, done.stderr
    assert "6.0.9 is too old" in done.stderr
    assert shell.run("worker", **ours).returncode == 7
    with Redis.from_url(redis_url) as redis:
        assert list(redis.scan_iter("{too-old}*", count=1000)) == []


async def test_an_old_redis_is_refused_over_http(old: OldRedis, redis_url: str, tmp_path: Path) -> None:
    with Stack(redis_url, tmp_path, variables={"OUTWAIT_REDIS_URL": old.url}) as stack:
        stack.web()
        connection = Connection(stack.settings)
        key = await Access(connection).create("test", tuple(Scope), None)
        await connection.close()
        body = {"provider": "unless", "operation": "query"}
        body |= {"params": {"query": "why?", "sessionId": "s", "visitorId": "v"}}
        headers = {"Authorization": f"Bearer {key.text}"}
        async with httpx.AsyncClient(base_url=stack.web_url, headers=headers, timeout=PATIENCE) as web:
            refused = await web.post("/v1/jobs", json=body)
            assert (refused.status_code, refused.json()["code"]) == (503, "store_unfit")
            assert (await web.get("/v1/jobs")).json()["jobs"] == []
