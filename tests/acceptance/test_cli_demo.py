"""`outwait demo`, whole and interrupted: what it shows, what it leaves and what it does not."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import PATIENCE, wait_until

OUTWAIT = str(Path(sys.executable).parent / "outwait")


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """A user's environment with credentials in it, which must not reach the demo."""
    return {**os.environ, "TMPDIR": str(tmp_path), "OUTWAIT_PROVIDERS__UNLESS__API_KEY": "a-real-key-that-costs-money"}


def left_over(folder: Path) -> list[str]:
    """Folders of a demo that are left, and processes that use them."""
    listed = subprocess.run(
        ["ps", "-ww", "-eo", "args="], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [*map(str, folder.glob("outwait-demo-*")), *(line for line in listed if str(folder) in line)]


def test_the_demo(tmp_path: Path, env: dict[str, str]) -> None:
    done = subprocess.run(
        [OUTWAIT, "demo"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"ok  (3\d) of \1 jobs stand as planned", done.stdout)
    for word in ("succeeded", "failed", "expired", "uncertain", "ringcentral", "elevateai", "unless"):
        assert word in done.stdout
    assert "Flower:   http://127.0.0.1:" in done.stderr
    results = (tmp_path / "demo-results" / "results.jsonl").read_text().splitlines()
    assert len(results) >= 30
    assert not left_over(tmp_path)
    pids = re.findall(r"outwait-(\d+)@", (tmp_path / "demo-results" / "logs" / "worker.log").read_text())
    assert pids
    for pid in set(pids):
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_ctrl_c_leaves_nothing(tmp_path: Path, env: dict[str, str]) -> None:
    demo = subprocess.Popen(
        [OUTWAIT, "demo"], cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert demo.stdout
    with demo:
        while "waiting" not in demo.stdout.readline():
            assert demo.poll() is None
        demo.send_signal(signal.SIGINT)
        demo.stdout.read()
        assert demo.wait(PATIENCE) == 130
    assert not left_over(tmp_path)


def test_a_killed_demo_takes_its_processes_with_it(tmp_path: Path, env: dict[str, str]) -> None:
    demo = subprocess.Popen(
        [OUTWAIT, "demo"], cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert demo.stdout
    with demo:
        while "waiting" not in demo.stdout.readline():
            assert demo.poll() is None
        children = subprocess.run(
            ["ps", "-ww", "-o", "pid=", "--ppid", str(demo.pid)], capture_output=True, text=True, check=True
        )
        pids = [int(pid) for pid in children.stdout.split()]
        assert len(pids) >= 4
        demo.kill()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), what="its processes ended")


def test_a_worker_that_ends_ends_the_demo(tmp_path: Path, env: dict[str, str]) -> None:
    demo = subprocess.Popen(
        [OUTWAIT, "demo"], cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert demo.stdout
    assert demo.stderr
    with demo:
        while "waiting" not in demo.stdout.readline():
            assert demo.poll() is None
        log = (tmp_path / "demo-results" / "logs" / "worker.log").read_text()
        os.kill(int(re.findall(r"outwait-(\d+)@", log)[0]), signal.SIGKILL)
        demo.stdout.read()
        assert demo.wait(PATIENCE) == 1
        assert "worker ended with -9" in demo.stderr.read()
    assert not left_over(tmp_path)
