"""The embedded Redis: a real server process, its data, its password and its end."""

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from outwait.worker.local import embedded
from outwait.worker.local.embedded import EmbeddedRedis, answers, find_server
from outwait.worker.local.processes import Child
from outwait.worker.model.errors import NoRedisServer, StoreUnavailable
from tests.patience import PATIENCE, wait_until


def command(server: EmbeddedRedis, *words: str) -> str:
    """One command's first reply line, spoken raw: only the store imports a Redis client."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection:
        replies = connection.makefile("rb")
        connection.sendall(f"AUTH {server.password}\r\n{' '.join(words)}\r\n".encode())
        assert replies.readline() == b"+OK\r\n"
        first = replies.readline().decode().strip()
        return replies.readline().decode().strip() if first.startswith("$") else first


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_data_survives_a_restart(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "data") as server:
        assert command(server, "SET", "job", "kept") == "+OK"
        first = server.password
    with EmbeddedRedis(tmp_path / "data") as server:
        assert command(server, "GET", "job") == "kept"
        assert server.password == first, "a service with the old URL must still get in"


def test_a_kill_of_the_server_loses_nothing_written(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path, fsync="always").start()
    command(server, "SET", "job", "kept")
    assert server.pid
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: not server.alive)
    server.stop()
    with EmbeddedRedis(tmp_path) as again:
        assert command(again, "GET", "job") == "kept"


def test_never_evicts_and_asks_for_its_password(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection:
            connection.sendall(f"AUTH {server.password}\r\nCONFIG GET maxmemory-policy\r\nQUIT\r\n".encode())
            assert b"noeviction" in connection.makefile("rb").read()
        assert not answers("127.0.0.1", server.port, "guess")
        assert stat.S_IMODE((tmp_path / "redis.password").stat().st_mode) == 0o600


def test_listens_on_one_address_alone(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        assert answers("127.0.0.1", server.port, server.password)
        assert not answers("127.0.0.2", server.port, server.password)


def test_stop_leaves_no_process(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path).start()
    pid = server.pid
    assert pid
    server.stop()
    assert not alive(pid)
    server.stop()  # a second time does nothing


def test_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from outwait.worker.local.embedded import EmbeddedRedis; "
        "print(EmbeddedRedis(Path(sys.argv[1])).start().pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
    wait_until(lambda: not alive(pid))


def test_a_folder_has_one_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "LOCK_WITHIN", 0.1)
    with EmbeddedRedis(tmp_path), pytest.raises(StoreUnavailable, match="in use by another embedded Redis"):
        EmbeddedRedis(tmp_path).start()


def test_a_taken_port_is_told_with_the_log(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "first") as first:
        second = EmbeddedRedis(tmp_path / "second", port=first.port)
        with pytest.raises(StoreUnavailable, match=r"(?s)did not start.*in use"):
            second.start()
        assert second.pid is None


def test_a_folder_with_spaces_and_quotes(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / 'my "data" folder') as server:
        assert command(server, "PING") == "+PONG"


def test_without_the_package_the_server_on_path_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = tmp_path / "valkey-server"
    server.symlink_to(find_server())
    monkeypatch.setattr(embedded, "_bundled", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server() == server


def test_without_any_server_the_error_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(embedded, "_bundled", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoRedisServer, match=r"apt install redis-server.*OUTWAIT_REDIS_URL"):
        EmbeddedRedis(tmp_path).start()


def test_a_binary_for_another_machine_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    foreign = tmp_path / "redis-server"
    foreign.write_bytes(b"\x7fELF not for this machine")
    foreign.chmod(0o700)
    monkeypatch.setattr(embedded, "find_server", lambda: foreign)
    with pytest.raises(NoRedisServer, match="cannot be run on this machine"):
        EmbeddedRedis(tmp_path / "data").start()


def test_a_child_that_will_not_end_is_killed_with_what_it_started(tmp_path: Path) -> None:
    started = tmp_path / "started"
    stubborn = Child(["/bin/sh", "-c", f"trap '' TERM; sleep 300 & echo $! > {started}; wait; wait"])
    wait_until(lambda: started.exists() and started.read_text().strip() != "")
    grandchild = int(started.read_text())
    assert stubborn.stop(grace=0.2) == -signal.SIGKILL
    wait_until(lambda: not alive(grandchild))
