"""A terminal of some width, in which a command runs."""

import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.patience import PATIENCE


def typed(words: Sequence[str], folder: Path, environment: Mapping[str, str], *, width: int, height: int = 24) -> str:
    """What a command printed on a terminal of this size."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    given = {name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES")}
    with subprocess.Popen(words, cwd=folder, env={**given, "TERM": "xterm"}, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # the terminal's other end is closed when the command has ended
            while part := os.read(ours, 65536):
                shown += part
        process.wait(PATIENCE)
    os.close(ours)
    return shown.decode()
