"""A user's folder whose files have the names of what we import, and a shell in it."""

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from outwait.worker.local.embedded import free_port
from tests.patience import PATIENCE, wait_until

QUESTION = ("unless", "query", "-p", "query=Is it open?", "-p", "sessionId=s", "-p", "visitorId=v")

NAMES = ("tasks", "worker", "celery", "redis", "examples", "aiohttp", "typer", "email", "queue")
"""The user's modules that raise when they are imported."""

CONFIG = "SHOP = 'corner-shop'\n"
"""The user's `config.py`, which the handlers import."""

HANDLERS = """
import os, signal, sys
from pathlib import Path

import config
from outwait import Envelope, handler

ALONE = sys.argv[0] == "-c"  # in a process of the handler's own


@handler("note")
def note(envelope: Envelope) -> None:
    with Path("notes.txt").open("a") as file:
        file.write(f"{envelope.job_id} {config.SHOP}\\n")


@handler("crash")
def crash(envelope: Envelope) -> None:
    if not ALONE:
        os.kill(os.getpid(), signal.SIGKILL)
    note(envelope)
"""


class HostileFolder:
    """Runs commands in such a folder.

    Args:
        folder: an empty folder.
        command: what starts the command line.
        variables: on top of an environment without settings of ours or of Python's.
    """

    def __init__(self, folder: Path, command: Sequence[str], **variables: str) -> None:
        self.folder, self.command = folder, command
        self.web = f"http://127.0.0.1:{free_port()}"
        self.flower = f"http://127.0.0.1:{free_port()}"
        given = {name: value for name, value in os.environ.items() if not name.startswith(("OUTWAIT_", "PYTHON"))}
        ours = {
            "OUTWAIT_PROVIDERS__UNLESS__POLL_EVERY": "0.2",
            "OUTWAIT_HANDLERS__MODULES": "my_handlers",
            "OUTWAIT_DELIVER__TIME_LIMIT": "8",
            "OUTWAIT_DELIVER__LEASE": "10",  # what a lost worker held is delivered soon
            "OUTWAIT_WEB__PORT": self.web.rpartition(":")[2],
            "OUTWAIT_FLOWER__PORT": self.flower.rpartition(":")[2],
        }
        self.environment = {**given, **ours, **variables}
        self.add(*NAMES)
        (folder / "config.py").write_text(CONFIG)
        (folder / "my_handlers.py").write_text(HANDLERS)

    def add(self, *names: str) -> None:
        """Give the user modules that raise when they are imported."""
        for name in names:
            (self.folder / f"{name}.py").write_text(f"raise RuntimeError('this is the {name}.py of the user')\n")

    def run(self, *words: str, code: int = 0) -> str:
        """Run one command, which must end with this code; gives what it prints."""
        done = subprocess.run(
            [*self.command, *words],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def json(self, *words: str) -> Any:
        """What a command prints as JSON."""
        return json.loads(self.run(*words, "--json"))

    @contextmanager
    def up(self) -> Iterator[None]:
        """`outwait up --sandbox`, and a worker that is ready."""
        with (self.folder / "log.txt").open("w") as log:
            command = [*self.command, "up", "--sandbox"]
            up = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=log, stderr=log)
        try:
            wait_until(lambda: up.poll() is not None or " ready." in self.log, what="the worker is ready")
            assert up.poll() is None, self.log
            yield
        finally:
            up.terminate()
            up.wait(PATIENCE)

    @property
    def log(self) -> str:
        """What the processes of `up` wrote."""
        return (self.folder / "log.txt").read_text()

    def notes_after(self, *words: str) -> str:
        """What the handlers have noted when a job of this submit is closed."""
        job, notes = self.run("submit", *QUESTION, *words).strip(), self.folder / "notes.txt"
        wait_until(notes.exists, what="a handler has noted something")  # a command costs a second of CPU
        wait_until(lambda: self.json("status", job)["job"]["closed"], what=f"{job} is closed")
        return notes.read_text()
