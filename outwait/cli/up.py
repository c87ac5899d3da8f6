"""`outwait up`: everything on one machine, supervised: Redis, workers, web, Flower, and optionally the sandbox."""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer

from outwait.cli.keys import local_key
from outwait.cli.output import say
from outwait.cli.services import Service, command, stop
from outwait.cli.session import DATA, current, write_running
from outwait.config.logs import configure
from outwait.config.settings import Settings, load_settings
from outwait.worker.local.embedded import EmbeddedRedis, free_port

log = logging.getLogger(__name__)

CHECK_EVERY = 0.5
"""Seconds between two checks of the processes."""

WEB_GRACE = 15.0
"""Seconds that the web process has to answer open requests."""

MARGIN = 30.0
"""Seconds that a worker gets beyond `OUTWAIT_WORKER__GRACE` before it is killed; its leases end by themselves then."""


def up(
    context: typer.Context,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 1,
    web: Annotated[bool, typer.Option(help="Run the web process: HTTP API, pages, webhooks.")] = True,
    flower: Annotated[bool, typer.Option(help="Run Flower.")] = True,
    sandbox: Annotated[bool, typer.Option("--sandbox", help="Run the sandbox and use it for every provider.")] = False,
    redis_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the embedded Redis; 0 takes a free port.")
    ] = 0,
) -> None:
    """Run everything on this machine until Ctrl-C: Redis (unless OUTWAIT_REDIS_URL names one), workers, web and Flower.

    All data is in the data folder, so that jobs survive a restart.
    """
    data, settings = current(context).data, load_settings()
    configure(settings.log)
    with _signals() as signals, contextlib.ExitStack() as stack:
        ours: dict[str, str] = {}
        redis = None
        if "redis_url" not in settings.model_fields_set:
            redis = stack.enter_context(EmbeddedRedis(data, redis_port))
            ours["OUTWAIT_REDIS_URL"] = redis.url
        helpers, sandbox_environment = _helpers(flower=flower, sandbox=sandbox, env={**os.environ, **ours})
        ours |= sandbox_environment
        stack.enter_context(_announced(data, ours, settings, web=web, flower=flower))
        if flower and settings.web.flower_url is None:
            ours["OUTWAIT_WEB__FLOWER_URL"] = _flower_at(settings)
        crew = _crew(workers, settings, web=web, env={**os.environ, **ours})
        try:
            _supervise([*helpers, *crew], redis, signals)
        finally:
            stop(crew, signals.at_once)  # before what they need
            stop(helpers, signals.at_once)


def _helpers(*, flower: bool, sandbox: bool, env: Mapping[str, str]) -> tuple[list[Service], dict[str, str]]:
    services, ours = [], {}
    if flower:
        services.append(Service("flower", command("flower"), env))
    if sandbox:
        from outwait.sandbox import environment

        port = free_port()
        ours = environment(f"http://127.0.0.1:{port}")
        services.append(Service("sandbox", command("sandbox", "--quiet", "--port", str(port)), env))
    return services, ours


def _crew(workers: int, settings: Settings, *, web: bool, env: Mapping[str, str]) -> list[Service]:
    grace = settings.worker.grace + MARGIN
    crew = [Service(f"worker-{number}", command("worker"), env, grace) for number in range(1, workers + 1)]
    return [Service("web", command("web"), env, WEB_GRACE), *crew] if web else crew


@contextlib.contextmanager
def _announced(data: Path, ours: Mapping[str, str], settings: Settings, *, web: bool, flower: bool) -> Iterator[None]:
    if web:
        say(f"Web:            http://{settings.web.address}:{settings.web.port} ({_log_in(data, ours)})")
    if flower:
        say(f"Flower:         {_flower_at(settings)}")
    if "OUTWAIT_REDIS_URL" not in ours:
        for name, value in ours.items():
            say(f"export {name}='{value}'")
        yield
        return
    file = write_running(data, ours)
    at = "" if data == DATA else f" --data {data}"
    say(f"Data:           {data} (it survives a restart)")
    say(f"Other shells:   outwait{at} status   (finds this Redis through {file})")
    say("Other services: set OUTWAIT_REDIS_URL to the value in that file; with --redis-port it stays the same")
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _flower_at(settings: Settings) -> str:
    return f"http://{settings.flower.address}:{settings.flower.port}"


def _log_in(data: Path, ours: Mapping[str, str]) -> str:
    url = ours.get("OUTWAIT_REDIS_URL")
    if url is None:
        return "log in with an API key: `outwait keys create NAME --scope read --scope operate` creates one"
    return f"log in with the key in {local_key(load_settings(redis_url=url), data)}"


def _supervise(services: list[Service], redis: EmbeddedRedis | None, signals: "_Signals") -> None:
    while not signals.stop.is_set():
        if redis and not redis.alive:
            log.error("redis-ended", extra={"restart_in": 0})
            redis.stop()
            redis.start()
        for service in services:
            service.tend(time.monotonic())
        signals.stop.wait(CHECK_EVERY)


class _Signals:
    """`stop` is set by the first Ctrl-C, SIGTERM or SIGHUP, `at_once` by a second one."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.at_once = threading.Event()

    def __call__(self, number: int, _frame: object) -> None:
        if self.stop.is_set():
            self.at_once.set()
        self.stop.set()
        say(f"{signal.Signals(number).name}: stopping; send it again to stop at once")


@contextlib.contextmanager
def _signals() -> Iterator[_Signals]:
    handler = _Signals()
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield handler
    finally:
        for number, old in before.items():
            signal.signal(number, old)
