"""The processes of the demo: an embedded Redis, the sandbox, web, Flower, a worker."""

import contextlib
import json
import os
import secrets
import shutil
import tempfile
import time
import wave
from pathlib import Path
from typing import Any, Self

import httpx

from outwait.cli.services import command
from outwait.cli.session import write_running
from outwait.config.settings import load_settings
from outwait.sandbox import environment
from outwait.worker.local.embedded import HOST, EmbeddedRedis, free_port
from outwait.worker.local.processes import Child
from outwait.worker.model.errors import OperatorError

READY_WITHIN = 120.0
"""Seconds for the sandbox and the web process to listen: a busy machine takes its time."""

POLL_EVERY = "0.5"
"""Seconds between polls: the sandbox allows it, the real providers ask for up to 30."""

_GRACE = {"worker": 15.0, "web": 5.0, "flower": 3.0, "sandbox": 3.0}
"""Seconds that each process has to end, in the order in which they are ended."""


class Stage:
    """The processes of one demo. A context manager: afterwards nothing of them runs.

    Args:
        results: folder for results and logs; those of an earlier demo are removed.
    """

    def __init__(self, results: Path) -> None:
        self.results = results
        self.folder = Path(tempfile.mkdtemp(prefix="outwait-demo-"))
        self.sandbox = f"http://{HOST}:{free_port()}"
        self.web = f"http://{HOST}:{free_port()}"
        self.flower = f"http://{HOST}:{free_port()}"
        self.recording = self.folder / "recording.wav"
        self._children: dict[str, Child] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def ledger(self) -> dict[str, Any]:
        """What the sandbox counted, by provider."""
        totals: dict[str, Any] = httpx.get(f"{self.sandbox}/_ledger/totals").json()
        return totals

    def troubles(self) -> str:
        """The last log lines of the processes that have ended."""
        ended = {name: child for name, child in self._children.items() if child.code is not None}
        return "\n".join(f"{name} ended with {child.code}:\n{child.tail()}" for name, child in ended.items())

    def _start(self) -> None:
        _empty(self.results)
        _record(self.recording)
        given = {name: value for name, value in os.environ.items() if name.startswith("OUTWAIT_")}
        redis_url = given.get("OUTWAIT_REDIS_URL")
        if redis_url is None:
            redis_url = self._stack.enter_context(EmbeddedRedis(self.folder / "redis")).url
        self._enter_environment(given, {"OUTWAIT_REDIS_URL": redis_url, **self._variables()})
        self._stack.callback(self._stop)
        self._spawn("sandbox", "--quiet", "--port", self.sandbox.rpartition(":")[2])
        self._spawn("web")
        self._spawn("flower")
        self._spawn("worker")
        self._wait_for("sandbox", f"{self.sandbox}/_ledger/totals")
        self._wait_for("web", f"{self.web}/livez")

    def _enter_environment(self, given: dict[str, str], ours: dict[str, str]) -> None:
        # The user's settings, credentials and .env do not reach the demo: it must never spend money.
        for name in given:
            del os.environ[name]
        os.environ.update(ours)
        os.chdir(self.folder)
        write_running(self.folder, ours)
        load_settings()

    def _variables(self) -> dict[str, str]:
        name = f"outwait-demo-{secrets.token_hex(3)}"
        providers = environment(self.sandbox)
        polls = {name.replace("BASE_URL", "POLL_EVERY"): POLL_EVERY for name in providers if name.endswith("BASE_URL")}
        return {
            **providers,
            **polls,
            # With the real limit of ten a minute, the demo would take long.
            "OUTWAIT_PROVIDERS__RINGCENTRAL__RATE_LIMIT": "600",
            "OUTWAIT_PROVIDERS__ELEVATEAI__UPLOAD_FOLDER": str(self.folder),
            "OUTWAIT_NAMESPACE": name,
            "OUTWAIT_INTAKE__QUEUE": name,
            "OUTWAIT_STORE__RETENTION": "3600",
            "OUTWAIT_HANDLERS__MODULES": "outwait.cli.demo.handlers",
            "OUTWAIT_HANDLERS__ROUTES": json.dumps([{"targets": ["file:results.jsonl", "crm"]}]),
            "OUTWAIT_HANDLERS__FOLDER": str(self.results),
            "OUTWAIT_WEB__PORT": self.web.rpartition(":")[2],
            "OUTWAIT_WEB__PUBLIC_URL": self.web,  # ringcentral's webhooks end their jobs
            "OUTWAIT_WEB__FLOWER_URL": self.flower,
            "OUTWAIT_FLOWER__PORT": self.flower.rpartition(":")[2],
            "OUTWAIT_SECRETS_DIR": str(self.folder),
        }

    def _spawn(self, *words: str) -> None:
        log = self.results / "logs" / f"{words[0]}.log"
        env = {**os.environ, "CRM_FILE": str(self.results / "crm.txt")}
        self._children[words[0]] = Child(command(*words), log=log, env=env)

    def _wait_for(self, name: str, url: str) -> None:
        deadline = time.monotonic() + READY_WITHIN
        while time.monotonic() < deadline and self._children[name].code is None:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(url)
                return
            time.sleep(0.05)
        raise OperatorError(f"the demo's {name} did not start:\n{self._children[name].tail()}")

    def _stop(self) -> None:
        for name, grace in _GRACE.items():
            if child := self._children.get(name):
                child.stop(grace=grace)


def _empty(results: Path) -> None:
    for name in ("logs", "results.jsonl", "crm.txt"):
        path = results / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    (results / "logs").mkdir(parents=True)


def _record(path: Path) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(2 * 8000))  # a second of silence
