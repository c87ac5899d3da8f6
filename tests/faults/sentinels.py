"""A master, its replicas and three sentinels, as processes, and what happens to them."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from redis import Redis
from redis.exceptions import RedisError

from outwait.worker.local.embedded import HOST, find_server, free_port
from tests.patience import PATIENCE, wait_until
from tests.stack import ROOT
from tests.tls import certificate, tls_server

NAME, PASSWORD, SENTINEL_PASSWORD = "jobs", "pwOfRedis", "pw@sentinels"
SENTINEL_ESCAPED = "pw%40sentinels"

DOWN_AFTER = 1000
"""Milliseconds without an answer after which a sentinel takes a server for dead."""


class Replicated:
    """The servers. `url` is what our processes get.

    Args:
        folder: for data and logs.
        replicas: of the first master.
        lines: more lines for each server's configuration.
        tls: servers and sentinels speak TLS only, among themselves too, and ask for the client's certificate.
    """

    def __init__(self, folder: Path, *, replicas: int = 2, lines: tuple[str, ...] = (), tls: bool = False) -> None:
        self._folder = folder
        self._lines = lines
        self._program = tls_server() if tls else find_server()
        folder.mkdir(parents=True, exist_ok=True)
        self._certificate = certificate(folder) if tls else None
        self.ports = [free_port() for _ in range(replicas + 1)]
        self._sentinels = [free_port() for _ in range(3)]
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        return f"{'sentinels' if self._certificate else 'sentinel'}://{self.place}{self.tls_options}"

    @property
    def place(self) -> str:
        """The URL without its scheme and without options of TLS."""
        hosts = ",".join(f"{HOST}:{port}" for port in self._sentinels)
        return f":{PASSWORD}@{hosts}/{NAME}/0?sentinel_password={SENTINEL_ESCAPED}"

    @property
    def tls_options(self) -> str:
        return "".join(f"&{name}={value}" for name, value in self.client_options.items() if name != "ssl")

    @property
    def client_options(self) -> dict[str, Any]:
        """For redis-py, and for kombu."""
        if self._certificate is None:
            return {}
        chain, key = map(str, self._certificate)
        return {"ssl": True, "ssl_ca_certs": chain, "ssl_certfile": chain, "ssl_keyfile": key}

    def __enter__(self) -> Self:
        for port in self.ports:
            self.start(port)
        for port in self._sentinels:
            self._start_sentinel(port)
        wait_until(self._is_complete, what="sentinels and replicas know each other")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()

    def start(self, port: int) -> None:
        """Start a server, again too: as a master, as an init system would; the sentinels make it a replica."""
        folder = self._folder / str(port)
        folder.mkdir(parents=True, exist_ok=True)
        lines = [
            *self._listening(port),
            f'requirepass "{PASSWORD}"',
            f'masterauth "{PASSWORD}"',
            f'dir "{folder}"',
            "appendonly yes",
            'save ""',
            "repl-diskless-sync-delay 0",
            *self._lines,
        ]
        if port != self.ports[0] and port not in self._processes:
            lines.append(f"replicaof {HOST} {self.ports[0]}")
        self._run(port, lines)

    @contextmanager
    def through_haproxy(self) -> Iterator[str]:
        """The URL of an HAProxy in front, with the file of our examples."""
        program = shutil.which("haproxy")
        if program is None:
            missing = "no HAProxy was found: install one (`apt-get install haproxy`)"
            pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
        port = free_port()
        servers = {f"REDIS_{number}": f"{HOST}:{port}" for number, port in enumerate(self.ports, 1)}
        variables = {"LISTEN": f"{HOST}:{port}", "REDIS_PASSWORD": PASSWORD, **servers}
        file = ROOT / "examples" / "haproxy.cfg"
        with subprocess.Popen([program, "-f", str(file)], env=os.environ | variables) as process:
            try:
                wait_until(partial(self._answers, port, PASSWORD), what="HAProxy has a master")
                yield f"redis://:{PASSWORD}@{HOST}:{port}/0"
            finally:
                process.kill()

    def kill(self, port: int) -> None:
        self._processes[port].kill()
        self._processes[port].wait()

    def signal(self, port: int, number: int) -> None:
        self._processes[port].send_signal(number)

    def server(self, port: int) -> "Redis":
        return self._client(port, PASSWORD)

    def fail_over(self) -> None:
        """As an operator orders it."""
        with self._sentinel(self._sentinels[0]) as sentinel:
            sentinel.execute_command("SENTINEL FAILOVER", NAME)

    @property
    def master(self) -> int:
        """Port of the master, by the word of the sentinels; 0 while they do not agree."""
        masters = set()
        for port in self._sentinels:
            with self._sentinel(port) as sentinel:
                _, at = sentinel.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", NAME)
            masters.add(int(at))
        return masters.pop() if len(masters) == 1 else 0

    def replicas_of(self, port: int) -> int:
        """Replicas that the server on this port has now."""
        with suppress(RedisError), self.server(port) as server:
            info = server.info("replication")
            found = [info[name] for name in info if name.startswith("slave") and isinstance(info[name], dict)]
            return sum(replica["state"] == "online" for replica in found) if info["role"] == "master" else 0
        return 0

    def _is_complete(self) -> bool:
        if self.replicas_of(self.ports[0]) != len(self.ports) - 1:
            return False
        for port in self._sentinels:
            with suppress(RedisError), self._sentinel(port) as sentinel:
                state = sentinel.execute_command("SENTINEL MASTER", NAME)
                state = state if isinstance(state, dict) else dict(zip(state[::2], state[1::2], strict=True))
                known = int(state["num-other-sentinels"]), int(state["num-slaves"])
                if known == (len(self._sentinels) - 1, len(self.ports) - 1):
                    continue
            return False
        return True

    def _start_sentinel(self, port: int) -> None:
        lines = [
            *self._listening(port),
            f'requirepass "{SENTINEL_PASSWORD}"',
            f'sentinel sentinel-pass "{SENTINEL_PASSWORD}"',
            f"sentinel monitor {NAME} {HOST} {self.ports[0]} 2",
            f'sentinel auth-pass {NAME} "{PASSWORD}"',
            f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER}",
            f"sentinel failover-timeout {NAME} 6000",
            f"sentinel parallel-syncs {NAME} 2",
        ]
        self._run(port, lines, "--sentinel")

    def _sentinel(self, port: int) -> "Redis":
        return self._client(port, SENTINEL_PASSWORD)

    def _client(self, port: int, password: str) -> "Redis":
        options = {"decode_responses": True, "socket_timeout": PATIENCE, **self.client_options}
        return Redis(host=HOST, port=port, password=password, **options)

    def _listening(self, port: int) -> list[str]:
        if self._certificate is None:
            return [f"bind {HOST}", f"port {port}"]
        chain, key = self._certificate
        files = [f"tls-cert-file {chain}", f"tls-key-file {key}", f"tls-ca-cert-file {chain}"]
        return [f"bind {HOST}", "port 0", f"tls-port {port}", "tls-auth-clients yes", "tls-replication yes", *files]

    def _run(self, port: int, lines: list[str], *options: str) -> None:
        file = self._folder / f"{port}.conf"
        file.write_text("\n".join(lines) + "\n")
        with (self._folder / f"{port}.log").open("ab") as log:
            command = [str(self._program), str(file), *options]
            self._processes[port] = subprocess.Popen(command, stdout=log, stderr=log)

        password = SENTINEL_PASSWORD if options else PASSWORD
        wait_until(partial(self._answers, port, password), what=f"the server on {port} answers")

    def _answers(self, port: int, password: str) -> bool:
        with suppress(RedisError), self._client(port, password) as redis:
            return bool(redis.ping())
        return False
