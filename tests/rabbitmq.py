"""A RabbitMQ of our own, as a process, where one is installed."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from kombu import Connection
from kombu.exceptions import OperationalError

from outwait.worker.local.embedded import free_port
from tests.patience import wait_until

HOST = "127.0.0.1"

PROGRAMS = os.pathsep.join(["/usr/lib/rabbitmq/bin", os.environ["PATH"], "/usr/sbin"])
"""Debian's program on PATH changes the user, who cannot write to our folder; the first folder has RabbitMQ's own."""


class RabbitMQ:
    """A running server and its `rabbitmqctl`."""

    def __init__(self, port: int, environment: dict[str, str]) -> None:
        self.url = f"amqp://guest:guest@{HOST}:{port}//"
        self._environment = environment

    def control(self, *words: str) -> str:
        """Run `rabbitmqctl`."""
        program = shutil.which("rabbitmqctl", path=PROGRAMS)
        command = [str(program), "--quiet", *words]
        done = subprocess.run(command, env=self._environment, check=True, capture_output=True, text=True)
        return done.stdout

    @property
    def answers(self) -> bool:
        with suppress(OperationalError, OSError), Connection(self.url, connect_timeout=5) as connection:
            connection.connect()
            return True
        return False


@contextmanager
def rabbitmq(folder: Path) -> Iterator[RabbitMQ]:
    """A server with its files in a folder; the test is skipped where there is no such program."""
    server, registry = (shutil.which(name, path=PROGRAMS) for name in ("rabbitmq-server", "epmd"))
    if server is None or registry is None:
        pytest.skip("no RabbitMQ was found: install one (`apt-get install rabbitmq-server`)")
    port, names = free_port(), free_port()
    environment = os.environ | {
        "HOME": str(folder),  # of the cookie that `rabbitmqctl` shows
        "ERL_EPMD_PORT": str(names),  # the nodes of other servers have nothing to do with ours
        "ERL_EPMD_ADDRESS": HOST,
        "RABBITMQ_NODENAME": "outwait@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": HOST,
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "logs"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "env.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
    }
    (folder / "env.conf").touch()
    with (
        (folder / "rabbitmq.log").open("wb") as log,
        _running([registry], environment, log.fileno()),
        _running([server], environment, log.fileno()) as process,
    ):
        broker = RabbitMQ(port, environment)

        def answers() -> bool:
            assert process.poll() is None, (folder / "rabbitmq.log").read_text()
            return broker.answers

        wait_until(answers, what="RabbitMQ answers")
        yield broker


@contextmanager
def _running(command: list[str], environment: dict[str, str], output: int) -> Iterator["subprocess.Popen[bytes]"]:
    """A process in a session of its own: it ends with all that it started."""
    process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
