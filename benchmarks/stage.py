"""What every measurement here stands on: a Redis of its own, the stub, processes to measure, and how CPU is read.

CPU is user and system time of processes as the kernel counts it, between two instants of a steady state; so a busy
neighbour disturbs it far less than it disturbs a clock on the wall.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from uuid import uuid4

import psutil  # type: ignore[import-untyped] # ships no types
from redis import Redis

from outwait.config.settings import Settings
from outwait.worker.local.embedded import EmbeddedRedis

HERE = Path(__file__).parent
ROOT = HERE.parent

JITTER = 1.05
"""A countdown is on average this much longer than the interval (worker/engine/pacing.py)."""


class Used(NamedTuple):
    """CPU seconds used so far by a worker and by Redis, and the polls that the stub had seen."""

    worker: float
    redis: float
    polls: int


class Cost(NamedTuple):
    """What a poll cost between two instants: CPU microseconds of worker and Redis, polls a second."""

    worker: float
    redis: float
    rate: float


class Process:
    """A process to measure; its output goes to a log file."""

    def __init__(self, argv: list[str], log: Path, environment: Mapping[str, str]) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("OUTWAIT_")}
        self.log = log
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                argv, cwd=ROOT, env={**inherited, **environment}, stdout=output, stderr=output
            )
        self._process = psutil.Process(self._popen.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._popen.terminate()
        try:
            self._popen.wait(15)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()

    @property
    def cpu(self) -> float:
        """CPU seconds that it and its children have used."""
        if self._popen.poll() is not None:
            raise RuntimeError(f"it ended with {self._popen.returncode}; its log ends:\n{self.log.read_text()[-3000:]}")
        tree = [self._process, *self._process.children(recursive=True)]
        return sum(sum(process.cpu_times()[:2]) for process in tree)

    @property
    def memory(self) -> int:
        """Bytes of its resident memory."""
        return int(self._process.memory_info().rss)


class Stage:
    """A Redis, a stub, and the processes that are started on them; everything ends with it."""

    def __init__(self, *, latency: float = 0.005) -> None:
        self._latency = latency
        self._ends = ExitStack()

    def __enter__(self) -> Self:
        self.folder = Path(self._ends.enter_context(tempfile.TemporaryDirectory(prefix="outwait-bench-")))
        self.server = self._ends.enter_context(EmbeddedRedis(self.folder / "redis"))
        self.redis = Redis.from_url(self.server.url)
        self._ends.callback(self.redis.close)
        stub = [str(HERE / "stub.py"), "--latency", str(self._latency)]
        self._stub = self.start([sys.executable, *stub], "stub")
        self._ends.enter_context(self._stub)
        self.url = str(wait_for(lambda: self._stub.log.read_text().strip(), "the stub's address"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.close()

    def start(self, argv: list[str], name: str, environment: Mapping[str, str] | None = None) -> Process:
        """Start a process."""
        return Process(argv, self.folder / f"{name}-{uuid4().hex[:6]}.log", environment or {})

    def worker(self, variables: Mapping[str, str]) -> Process:
        """Start `outwait worker`."""
        return self.start([sys.executable, "-m", "outwait", "worker"], "worker", variables)

    def variables(self, namespace: str, **more: str) -> dict[str, str]:
        """Settings of an Outwait worker that polls the stub."""
        unless = {"BASE_URL": self.url, "API_KEY": "k", "USER_EMAIL": "bench@a.example"}
        unless |= {"ACCOUNT_ID": "a", "WEBSITE_ID": "w"}
        return {
            "OUTWAIT_REDIS_URL": self.server.url,
            "OUTWAIT_NAMESPACE": namespace,
            "OUTWAIT_INTAKE__QUEUE": f"{namespace}-in",
            "OUTWAIT_LOG__LEVEL": "WARNING",
            **{f"OUTWAIT_PROVIDERS__UNLESS__{name}": value for name, value in unless.items()},
            **more,
        }

    def stub(self, path: str) -> dict[str, Any]:
        """Read one of the stub's control paths."""
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:  # noqa: S310 - our own stub
            counts: dict[str, Any] = json.loads(answer.read())
            return counts

    @property
    def polls(self) -> int:
        """Polls that the stub has received."""
        return int(self.stub("/count")["polls"])

    def settle(self, process: Process, seconds: float) -> None:
        """Wait for a process's first poll, then these seconds, and for Redis to end rewriting its file."""
        before = self.polls
        wait_for(lambda: process.cpu and self.polls > before, "the first poll", within=180)
        time.sleep(seconds)
        wait_for(lambda: not self._rewriting(), "Redis to have rewritten its file", within=180)

    def _rewriting(self) -> bool:
        info: Any = self.redis.info("persistence")
        return bool(info["aof_rewrite_in_progress"] or info["aof_rewrite_scheduled"])

    def used(self, process: Process) -> Used:
        """What a process has used so far."""
        info: Any = self.redis.info("cpu")
        return Used(process.cpu, info["used_cpu_user"] + info["used_cpu_sys"], self.polls)

    def cost(self, process: Process, seconds: float) -> Cost:
        """What a poll of this process costs over the next seconds."""
        before, began = self.used(process), time.monotonic()
        time.sleep(seconds)
        after, ended = self.used(process), time.monotonic()
        polls = after.polls - before.polls
        if polls < 10:
            raise RuntimeError(f"{polls} polls in {seconds} s; its log ends:\n{process.log.read_text()[-3000:]}")
        micro = 1e6 / polls
        return Cost(
            (after.worker - before.worker) * micro, (after.redis - before.redis) * micro, polls / (ended - began)
        )


def settings(variables: Mapping[str, str]) -> Settings:
    """The settings that a worker with these variables has."""
    nested: dict[str, Any] = {}
    for name, value in variables.items():
        *groups, last = name.removeprefix("OUTWAIT_").lower().split("__")
        place = nested
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value
    return Settings(_env_file=None, **nested)


def wait_for(condition: Callable[[], Any], what: str, *, within: float = 60) -> Any:
    """Wait until the condition has a true value, and return it. Raises TimeoutError."""
    end = time.monotonic() + within
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"not within {within} s: {what}")
        time.sleep(0.02)
    return value
