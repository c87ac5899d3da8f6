"""The real parts, as processes: a Redis, the sandbox, workers, producers. Tests drive them from outside."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote
from uuid import uuid4

from outwait.client.store import StoreClient
from outwait.config.settings import Settings
from outwait.sandbox import environment
from outwait.worker.local.embedded import free_port
from outwait.worker.model.jobs import Job, JobRequest
from tests import forked
from tests.patience import PATIENCE, until, wait_until

ROOT = Path(__file__).parent.parent

OUTWAIT = [*forked.COMMAND, "outwait"]
WORKER = [*OUTWAIT, "worker"]
WEB = [*OUTWAIT, "web"]

LEASES = tuple(f"OUTWAIT_{owner}__LEASE" for owner in ("SUBMIT", "POLL", "CALLBACK", "DELIVER", "INTAKE"))

FAST = {
    "OUTWAIT_STORE__TIMEOUT": "60",  # a busy machine's Redis is no Redis that is away
    **dict.fromkeys(LEASES, "70"),  # ... and its workers are not lost
    "OUTWAIT_WORKER__TICK": "0.05",
    "OUTWAIT_SUBMIT__BACKOFF": "0.1",
    "OUTWAIT_SUBMIT__BACKOFF_MAX": "0.5",
    "OUTWAIT_POLL__BACKOFF": "0.1",
    "OUTWAIT_POLL__BACKOFF_MAX": "0.5",
    "OUTWAIT_DELIVER__BACKOFF": "0.1",
    "OUTWAIT_DELIVER__BACKOFF_MAX": "0.5",
    "OUTWAIT_PROVIDERS__UNLESS__POLL_EVERY": "0.1",
    "OUTWAIT_PROVIDERS__ELEVATEAI__POLL_EVERY": "0.1",
    "OUTWAIT_PROVIDERS__RINGCENTRAL__POLL_EVERY": "0.1",
    "OUTWAIT_PROVIDERS__RINGCENTRAL__RATE_LIMIT": "100000",
    "OUTWAIT_PROVIDERS__UNLESS__BREAKER_WAIT": "0.2",
    "OUTWAIT_PROVIDERS__ELEVATEAI__BREAKER_WAIT": "0.2",
    "OUTWAIT_PROVIDERS__RINGCENTRAL__BREAKER_WAIT": "0.2",
    "OUTWAIT_PROVIDERS__UNLESS__BREAKER_LONGEST": "1",
    "OUTWAIT_PROVIDERS__ELEVATEAI__BREAKER_LONGEST": "1",
    "OUTWAIT_PROVIDERS__RINGCENTRAL__BREAKER_LONGEST": "1",
}
"""Settings that make a job take a second where the vendors' intervals would make it minutes."""


class Stack:
    """One namespace with its sandbox and workers; everything ends with it.

    Args:
        redis_url: a running server.
        folder: for logs and results.
        options: of the sandbox.
        variables: settings on top of `FAST`.
    """

    def __init__(
        self,
        redis_url: str,
        folder: Path,
        *,
        options: Mapping[str, Any] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        namespace = f"s-{uuid4().hex[:8]}"
        self.folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self.variables = {
            "OUTWAIT_REDIS_URL": redis_url,
            "OUTWAIT_NAMESPACE": namespace,
            "OUTWAIT_INTAKE__QUEUE": f"{namespace}-in",
            "OUTWAIT_HANDLERS__FOLDER": str(folder / "results"),
            **FAST,
            **(variables or {}),
        }
        self.sandbox_url = self._start_sandbox(options or {})
        self.web_url = ""
        self.variables = {**environment(self.sandbox_url), **self.variables}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if kind is not None:
            for log in sorted(self.folder.glob("*.log")):
                sys.stdout.write(f"--- {log.name}\n{log.read_text()[-6000:]}\n")

    @property
    def settings(self) -> Settings:
        """The settings that the workers have."""
        nested: dict[str, Any] = {}
        for name, value in self.variables.items():
            if not value:
                continue  # as in an environment: nobody set it
            *groups, last = name.removeprefix("OUTWAIT_").lower().split("__")
            place = nested
            for group in groups:
                place = place.setdefault(group, {})
            place[last] = _decoded(value)
        return Settings(_env_file=None, **nested)

    @property
    def environment(self) -> dict[str, str]:
        """The whole environment of our processes."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("OUTWAIT_")}
        return {**inherited, **self.variables, "PYTHONPATH": str(self.folder), "PYTHONUNBUFFERED": "1"}

    def client(self) -> StoreClient:
        """A client of this namespace."""
        return StoreClient(self.settings)

    def worker(self, **variables: str) -> subprocess.Popen[bytes]:
        """Start a worker process; it is ready when it has its first job."""
        return self.start(WORKER, "worker", **variables)

    def web(self, **variables: str) -> subprocess.Popen[bytes]:
        """Start a web process, at `web_url`; it answers when this returns. Workers started later ask for webhooks."""
        if not self.web_url:
            port = free_port()
            self.web_url = f"http://127.0.0.1:{port}"
            self.variables |= {"OUTWAIT_WEB__PORT": str(port), "OUTWAIT_WEB__PUBLIC_URL": self.web_url}
        process = self.start(WEB, "web", **variables)

        def answers() -> bool:
            assert process.poll() is None, "the web process ended"
            return _answers(self.web_url)

        wait_until(answers, what="the web process answers")
        return process

    def start(self, command: list[str], name: str, *, code: Path = ROOT, **variables: str) -> subprocess.Popen[bytes]:
        """Start any process of ours, its output in a log file; `code` is where it is imported from."""
        log = self.folder / f"{name}-{len(self._processes)}.log"
        environment = {**self.environment, **variables}
        with log.open("wb") as output:
            if command[:3] == OUTWAIT and code == ROOT and not (self.folder / "sitecustomize.py").exists():
                process = forked.start(command[2:], code, environment, output, output)
            else:
                process = subprocess.Popen(command, cwd=code, env=environment, stdout=output, stderr=output)
        self._processes.append(process)
        return process

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run one of our commands to its end."""
        return forked.run(["outwait", *words], ROOT, self.environment)

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """End a process with kill -9."""
        process.kill()
        process.wait()

    @contextmanager
    def frozen(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """A process that stands still, and wakes up afterwards."""
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def seen(self, text: str) -> list[dict[str, Any]]:
        """The jobs that the sandbox took with this in their text."""
        jobs: list[dict[str, Any]] = self.sandbox("GET", f"/_ledger?text={quote(text)}")["jobs"]
        return jobs

    def ledger(self) -> dict[str, Any]:
        """What the sandbox saw."""
        return self.sandbox("GET", "/_ledger")

    def order(self, **behaviour: Any) -> None:
        """Order a behaviour of the sandbox from now on."""
        self.sandbox("POST", "/_control/behaviour", behaviour)

    def sandbox(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """A request to the sandbox's own endpoints."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.sandbox_url + path, data, method=method)
        request.add_header("content-type", "application/json")
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            document: dict[str, Any] = json.loads(answer.read() or b"{}")
            return document

    def logs(self, name: str = "worker") -> str:
        """What processes of this name wrote."""
        return "".join(log.read_text() for log in sorted(self.folder.glob(f"{name}-*.log")))

    def _start_sandbox(self, options: Mapping[str, Any]) -> str:
        words = ["outwait.sandbox", "--port", "0", "--options", json.dumps(dict(options))]
        ours, theirs = os.pipe()
        with (
            os.fdopen(ours) as said,
            os.fdopen(theirs, "w") as output,
            (self.folder / "sandbox.log").open("wb") as errors,
        ):
            self._processes.append(forked.start(words, ROOT, os.environ, output, errors))
            output.close()
            url = said.readline().strip()
        assert url.startswith("http"), "the sandbox did not start"
        return url


def _decoded(value: str) -> Any:
    """As in an environment: lists and objects are JSON."""
    with suppress(ValueError):
        return json.loads(value) if value.startswith(("[", "{")) else value
    return value


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url + "/livez", timeout=PATIENCE).close()
    except OSError:
        return False
    return True


def query(text: str = "why?", **fields: Any) -> JobRequest:
    """A small job for Unless."""
    params = {"query": text, "sessionId": "s-1", "visitorId": "v-1"}
    return JobRequest(provider="unless", operation="query", params=params, **fields)


async def ended(client: StoreClient, job_id: str) -> Job:
    """Wait until a job has ended."""

    async def look() -> Job | None:
        job = await client.job(job_id)
        return job if job.state.ended else None

    job: Job = await until(look, what=f"job {job_id} ended")
    return job


async def closed(client: StoreClient, job_id: str) -> Job:
    """Wait until a job is closed: each of its deliveries is settled."""

    async def look() -> Job | None:
        job = await client.job(job_id)
        return job if job.closed else None

    job: Job = await until(look, what=f"job {job_id} closed")
    return job
