"""Appends lines to JSON Lines files that several worker processes share."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from outwait.worker.model.errors import DeliveryFailed, DeliveryRefused

LOCK_WITHIN = 5.0
"""Seconds to wait for the file's lock. We hold it for one write only, so another program holds it longer."""

_BLOCK = 65536


def append(folder: Path, path: str, line: bytes) -> None:
    """Append a line, whole, and return when it is on the disk.

    Raises:
        DeliveryRefused: the file lies outside the folder (a symlink).
        DeliveryFailed: another program holds its lock, or the disk is full.
        OSError: it cannot be written.
    """
    file = _inside(folder, path)
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    try:
        with _locked(descriptor, path):
            size = _mended(descriptor)
            _write(descriptor, line + b"\n", size)
        os.fsync(descriptor)  # outside the lock, so that several writers wait for the disk together
    finally:
        os.close(descriptor)
    if size == 0:
        _sync_folder(file.parent)


def _inside(folder: Path, path: str) -> Path:
    root = folder.resolve()
    file = (root / path).resolve()
    if not file.is_relative_to(root):
        raise DeliveryRefused(f"{path} is a link to outside of OUTWAIT_HANDLERS__FOLDER")
    return file


@contextmanager
def _locked(descriptor: int, path: str) -> Iterator[None]:
    # flock, not lockf: it also excludes the other threads of this process.
    ends = time.monotonic() + LOCK_WITHIN
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > ends:
                raise DeliveryFailed(f"another program has held the lock of {path} for {LOCK_WITHIN:g} s") from None
            time.sleep(0.002)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _mended(descriptor: int) -> int:
    """The size of the file after a line that was torn when its writer was killed is cut off.

    The torn delivery was never recorded, so it comes again. A last line that only lacks its end is kept and ended.
    """
    size = os.fstat(descriptor).st_size
    if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
        return size
    start = _last_line(descriptor, size)
    try:
        json.loads(os.pread(descriptor, size - start, start))
    except ValueError:
        os.ftruncate(descriptor, start)
        return start
    return size + os.write(descriptor, b"\n")


def _last_line(descriptor: int, end: int) -> int:
    while end > 0:
        start = max(0, end - _BLOCK)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _write(descriptor: int, line: bytes, size: int) -> None:
    try:
        written = os.write(descriptor, line)
    except OSError:
        os.ftruncate(descriptor, size)
        raise
    if written < len(line):
        os.ftruncate(descriptor, size)
        raise DeliveryFailed(f"only {written} of {len(line)} bytes could be written: is the disk full?")


def _sync_folder(folder: Path) -> None:
    """Make a new file's name survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
