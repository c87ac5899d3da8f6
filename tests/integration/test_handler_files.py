"""Deliveries to JSON Lines files: real files, several processes, kills, full disks."""

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from outwait import DeliveryFailed, DeliveryRefused, Envelope
from outwait.config.groups import HandlerSettings
from outwait.tasks.handlers import files
from outwait.tasks.handlers.delivery import Handlers
from outwait.worker.model.jobs import JobState
from tests.destinations import ANYWHERE
from tests.patience import PATIENCE, wait_until

ROOT = Path(__file__).parents[2]

WRITER = """
import asyncio, sys
from pathlib import Path
from outwait.config.groups import HandlerSettings
from outwait import Envelope
from outwait.tasks.handlers.delivery import Handlers
from outwait.worker.model.jobs import JobState
from tests.destinations import ANYWHERE

async def write(folder, writer, count):
    handlers = Handlers(HandlerSettings(folder=Path(folder)), None, None, destinations=ANYWHERE)
    def sent(number):
        result = f"{writer}-{number}" * (number * 97 % 3000)
        return Envelope(delivery_id=f"{writer}-{number}#0", job_id=f"{writer}-{number}", provider="p", operation="o",
                        state=JobState.SUCCEEDED, created=1.0, result=result)
    await asyncio.gather(*(handlers.deliver("file:deep/all.jsonl", sent(n), 60) for n in range(count)))

asyncio.run(write(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def envelope(**changes: Any) -> Envelope:
    defaults: dict[str, Any] = {
        "delivery_id": "job-1#0",
        "job_id": "job-1",
        "provider": "unless",
        "operation": "query",
        "state": JobState.SUCCEEDED,
        "created": 1.0,
    }
    return Envelope(**(defaults | changes))


@pytest.fixture
def deliver(tmp_path: Path) -> Callable[..., None]:
    """Runs one delivery to a file below `results`."""

    def run(target: str, **changes: Any) -> None:
        async def write() -> None:
            handlers = Handlers(HandlerSettings(folder=tmp_path / "results"), None, None, destinations=ANYWHERE)  # type: ignore[arg-type]
            try:
                await handlers.deliver(target, envelope(**changes), PATIENCE)
            finally:
                handlers.close()

        asyncio.run(write())

    return run


def lines(file: Path) -> list[dict[str, Any]]:
    content = file.read_bytes()
    assert content.endswith(b"\n")
    return [json.loads(line) for line in content.splitlines()]


def writing(folder: Path, writer: str, count: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(folder), writer, str(count)], cwd=ROOT)


def test_a_delivery_is_one_line_and_folders_are_made(tmp_path: Path, deliver: Callable[..., None]) -> None:
    deliver("file:2026/out.jsonl", result={"text": "zwei\nZeilen\u2028 \x00 €"})
    deliver("file://2026/out.jsonl", delivery_id="job-2#0")
    assert lines(tmp_path / "results/2026/out.jsonl") == [
        envelope(result={"text": "zwei\nZeilen\u2028 \x00 €"}).data(),
        envelope(delivery_id="job-2#0").data(),
    ]


def test_a_large_result_is_whole(tmp_path: Path, deliver: Callable[..., None]) -> None:
    deliver("file:out.jsonl", result="x" * 20_000_000)
    assert len(lines(tmp_path / "results/out.jsonl")[0]["result"]) == 20_000_000


def test_lines_of_several_processes_never_mix(tmp_path: Path) -> None:
    writers = [writing(tmp_path, f"writer{number}", 150) for number in range(3)]
    assert [writer.wait(PATIENCE) for writer in writers] == [0, 0, 0]
    written = [line["job_id"] for line in lines(tmp_path / "deep/all.jsonl")]
    assert sorted(written) == sorted(f"writer{each}-{number}" for each in range(3) for number in range(150))


def test_a_killed_writer_leaves_no_torn_line_behind(tmp_path: Path, deliver: Callable[..., None]) -> None:
    file = tmp_path / "results/deep/all.jsonl"
    steady = writing(tmp_path / "results", "steady", 300)
    for number in range(3):
        doomed = writing(tmp_path / "results", f"doomed{number}", 3000)
        _until_written(file, f"doomed{number}".encode())
        doomed.send_signal(signal.SIGKILL)
        doomed.wait()
    assert steady.wait(PATIENCE) == 0
    deliver("file:deep/all.jsonl", job_id="last")
    written = [line["job_id"] for line in lines(file)]
    assert {f"steady-{number}" for number in range(300)} <= set(written)
    assert len(written) == len(set(written))
    assert written[-1] == "last"


@pytest.mark.parametrize("torn", ['{"job_id": "torn', '{"x": "' + "y" * 200_000, "{"])
@pytest.mark.parametrize("before", ["", '{"job_id": "first"}\n'])
def test_a_torn_last_line_is_cut_off(tmp_path: Path, deliver: Callable[..., None], before: str, torn: str) -> None:
    file = tmp_path / "results/out.jsonl"
    file.parent.mkdir()
    file.write_text(before + torn)
    deliver("file:out.jsonl")
    assert [line["job_id"] for line in lines(file)] == ["first"] * bool(before) + ["job-1"]


def test_a_last_line_that_only_lacks_its_end_is_kept(tmp_path: Path, deliver: Callable[..., None]) -> None:
    file = tmp_path / "results/out.jsonl"
    file.parent.mkdir()
    file.write_text('{"job_id": "first"}\n{"job_id": "second"}')
    deliver("file:out.jsonl")
    assert [line["job_id"] for line in lines(file)] == ["first", "second", "job-1"]


def test_a_full_disk_leaves_whole_lines_only(tmp_path: Path) -> None:
    full = """
import resource, sys
from pathlib import Path
from outwait.tasks.handlers import files
files.append(Path(sys.argv[1]), "out.jsonl", b'"' + b"a" * 900 + b'"')
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    files.append(Path(sys.argv[1]), "out.jsonl", b'"' + b"b" * 200 + b'"')
except Exception as error:
    print(type(error).__name__, error)
"""
    ended = subprocess.run(
        [sys.executable, "-c", full, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout == "DeliveryFailed only 97 of 203 bytes could be written: is the disk full?\n"
    assert (tmp_path / "out.jsonl").read_bytes() == b'"' + b"a" * 900 + b'"\n'


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, deliver: Callable[..., None]) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "out.jsonl").touch()
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "file.jsonl").symlink_to(outside / "out.jsonl")
    (folder / "new.jsonl").symlink_to(outside / "new.jsonl")
    (folder / "sub").symlink_to(outside)
    for target in ("file:file.jsonl", "file:new.jsonl", "file:sub/out.jsonl", "file:sub/deep/out.jsonl"):
        with pytest.raises(DeliveryRefused, match="outside of OUTWAIT_HANDLERS__FOLDER"):
            deliver(target)
    assert [(each.name, each.stat().st_size) for each in outside.iterdir()] == [("out.jsonl", 0)]


def test_a_link_within_the_folder_is_followed(tmp_path: Path, deliver: Callable[..., None]) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "latest.jsonl").symlink_to("2026.jsonl")
    deliver("file:latest.jsonl")
    assert lines(folder / "2026.jsonl") == [envelope().data()]


def test_a_file_that_cannot_be_written_fails_the_delivery(tmp_path: Path, deliver: Callable[..., None]) -> None:
    (tmp_path / "results/out.jsonl").mkdir(parents=True)
    with pytest.raises(DeliveryFailed, match="IsADirectoryError"):
        deliver("file:out.jsonl")


def test_another_programs_lock_fails_the_delivery(
    tmp_path: Path, deliver: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LOCK_WITHIN", 0.1)
    file = tmp_path / "results/out.jsonl"
    file.parent.mkdir()
    holder = os.open(file, os.O_RDWR | os.O_CREAT)
    fcntl.flock(holder, fcntl.LOCK_EX)
    with pytest.raises(DeliveryFailed, match=r"another program has held the lock of out\.jsonl"):
        deliver("file:out.jsonl")
    os.close(holder)
    deliver("file:out.jsonl")
    assert len(lines(file)) == 1


def _until_written(file: Path, text: bytes) -> None:
    wait_until(lambda: file.exists() and text in file.read_bytes())
