"""`python -m outwait …` as a process that is forked from one which has imported everything.

A suite starts hundreds of our processes, and an import costs each of them more than a second of CPU. What is forked has
its own environment, folder and files, and ends as any process does. Tests of starting itself use real commands, and so
does what changes an interpreter before it runs: `sitecustomize`, another Python, another folder of code.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import IO, Any

from tests.patience import PATIENCE

COMMAND = [sys.executable, "-m"]
ROOT = Path(__file__).parent.parent
IMPORTED = (
    "outwait.cli",
    "outwait.sandbox.options",
    "outwait.sandbox.server",
    "outwait.web.serve",
    "outwait.worker.app",
)
"""With what they import, this is nearly all that a process of ours imports."""

MESSAGE_MAX = 1 << 17
"""Bytes of one order: the words and the environment of a process."""


def start(
    words: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    stdout: IO[Any],
    stderr: IO[Any],
    stdin: IO[Any] | None = None,
) -> "subprocess.Popen[bytes]":
    """Start `python -m` with these words, which begin with a module of ours."""
    if sys.platform != "linux":
        given: Any = subprocess.DEVNULL if stdin is None else stdin
        command = [*COMMAND, *words]
        return subprocess.Popen(command, cwd=folder, env=environment, stdin=given, stdout=stdout, stderr=stderr)
    order = {"words": [*words], "folder": str(folder), "environment": {**environment}}
    with Path(os.devnull).open() as nothing:
        files = [file.fileno() for file in (stdin or nothing, stdout, stderr)]
        return _Forked(_parent().ask(order, *files))


def run(
    words: Sequence[str], folder: Path, environment: Mapping[str, str], stdin: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Run `python -m` with these words to its end."""
    with ExitStack() as stack:
        given, stdout, stderr = (stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(3))
        given.write(stdin)
        given.seek(0)
        code = start(words, folder, environment, stdout, stderr, given).wait(PATIENCE)
        stdout.seek(0)
        stderr.seek(0)
        return subprocess.CompletedProcess([*words], code, stdout.read(), stderr.read())


class _Forked(subprocess.Popen[bytes]):
    """A process whose parent is not this one but the one that has imported everything."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.args = COMMAND
        self.returncode: int | None = None  # type: ignore[assignment]  # as in the class it is, before the end
        self.stdin = self.stdout = self.stderr = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = _parent().ask({"ended": self.pid})
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        end = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            time.sleep(0.01)
        return self.returncode


class _Parent:
    """The process that has imported everything, and what is said to it."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-m", __name__, str(theirs.fileno())],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._lock = threading.Lock()

    def ask(self, question: Mapping[str, Any], *files: int) -> Any:
        """Send an order, with open files, and give back the answer to it."""
        with self._lock:
            socket.send_fds(self._channel, [json.dumps(question).encode()], files)
            return json.loads(self._channel.recv(MESSAGE_MAX))

    def close(self) -> None:
        """End it; what it forked goes on."""
        self._channel.close()
        self._process.wait()


@cache
def _parent() -> _Parent:
    parent = _Parent()
    atexit.register(parent.close)
    return parent


def _serve(channel: socket.socket) -> None:
    """Fork as ordered. Returns in each process that was forked; the server itself ends with the channel."""
    while True:
        message, files, _, _ = socket.recv_fds(channel, MESSAGE_MAX, 3)
        if not message:
            os._exit(0)
        order = json.loads(message)
        if "ended" in order:
            channel.send(json.dumps(_exit_code(order["ended"])).encode())
            continue
        pid = os.fork()
        if not pid:
            channel.close()
            _become(order, files)
            return
        for file in files:
            os.close(file)
        channel.send(json.dumps(pid).encode())


def _exit_code(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def _become(order: Mapping[str, Any], files: Sequence[int]) -> None:
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    given = os.environ.get("PYTHONPATH")
    sys.path[:1] = [order["folder"], *(given.split(os.pathsep) if given else ())]
    sys.argv[:] = order["words"]


if __name__ == "__main__":
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()
    _serve(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
