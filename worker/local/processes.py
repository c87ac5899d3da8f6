"""A child process that ends when this process ends, even after a kill."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Self

_WATCHER = 'read -r _; kill -TERM "$0" 2>/dev/null'
"""Waits on a pipe whose other end only this process holds: the kernel closes it even when we are killed. It needs only
a shell, on Linux and on macOS. A parent-death signal exists only on Linux, and belongs to a thread, not a process."""


class Child:
    """One process in its own session, so that Ctrl-C in our terminal does not reach it.

    Args:
        argv: the command.
        log: file to which its output is appended; None: our output.
        env: its complete environment; None: ours.
        folder: its working folder; None: ours.
        stdin: its standard input, up to PIPE_BUF bytes; it is there before the process starts.
        keep_fds: open files that it inherits.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        log: Path | None = None,
        env: Mapping[str, str] | None = None,
        folder: Path | None = None,
        stdin: bytes = b"",
        keep_fds: Sequence[int] = (),
    ) -> None:
        self._log = log
        with _output(log) as output, _input(stdin) as given:
            self._process = subprocess.Popen(  # noqa: S603 - only our own commands
                argv,
                stdin=given,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                env=env,
                cwd=folder,
                pass_fds=keep_fds,
                start_new_session=True,
            )
        self._watcher = subprocess.Popen(  # noqa: S603 - a constant script
            ["/bin/sh", "-c", _WATCHER, str(self._process.pid)], stdin=subprocess.PIPE, start_new_session=True
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def tail(self, lines: int = 12) -> str:
        """The last lines of its log file."""
        if self._log is None or not self._log.exists():
            return ""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def terminate(self) -> None:
        """Ask it to end, without waiting."""
        if self.code is None:
            self._process.terminate()

    def stop(self, *, grace: float) -> int:
        """Ask it to end, wait `grace` seconds, then kill it and its children. Returns its exit code."""
        self.terminate()
        try:
            self._process.wait(grace)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        code = self._process.wait()
        self._unwatch()
        return code

    def _unwatch(self) -> None:
        self._watcher.kill()
        self._watcher.wait()
        if self._watcher.stdin:
            self._watcher.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(grace=10)


def _output(log: Path | None) -> contextlib.AbstractContextManager[BinaryIO | None]:
    return log.open("ab") if log else contextlib.nullcontext()


@contextlib.contextmanager
def _input(content: bytes) -> Iterator[int]:
    """A pipe that holds all of the input. If we are killed now, the process reads the same: a server that finds no
    configuration would listen everywhere, without a password.
    """
    theirs, ours = os.pipe()
    try:
        os.write(ours, content)
        os.close(ours)
        yield theirs
    finally:
        os.close(theirs)
