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
from outwait.cli.ports import require_free
from outwait.cli.services import Service, command, stop
from outwait.cli.session import DATA, current, write_running
from outwait.config.exits import Exit
from outwait.config.logs import configure
from outwait.config.settings import Settings, load_settings
from outwait.worker.local.embedded import HOST, EmbeddedRedis, free_port, stored_password

log = logging.getLogger(__name__)

CHECK_EVERY = 0.5
"""Seconds between two checks of the processes."""

WEB_GRACE = 15.0
"""Seconds that the web process has to answer open requests."""

FLOWER_LOGIN = "flower.login"
"""File in the data folder with the password for Flower, if Redis is not the embedded one."""

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
    _require_ports(settings, web=web, flower=flower)
    with _signals() as signals, contextlib.ExitStack() as stack:
        ours: dict[str, str] = {}
        redis = None
        if "redis_url" not in settings.model_fields_set:
            if redis_port:
                require_free("the embedded Redis", HOST, redis_port, "--redis-port")
            redis = stack.enter_context(EmbeddedRedis(data, redis_port))
            ours["OUTWAIT_REDIS_URL"] = redis.url
        login = _flower_login(data, ours, settings) if flower else {}
        helpers, sandbox_environment = _helpers(login, flower=flower, sandbox=sandbox, env={**os.environ, **ours})
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


def _require_ports(settings: Settings, *, web: bool, flower: bool) -> None:
    """Raises ConfigError: better than addresses of other programs on the screen, and processes that end again."""
    if web:
        require_free("the web process", settings.web.address, settings.web.port, "OUTWAIT_WEB__PORT")
    if flower:
        require_free("Flower", settings.flower.address, settings.flower.port, "OUTWAIT_FLOWER__PORT")


def _helpers(
    login: Mapping[str, str], *, flower: bool, sandbox: bool, env: Mapping[str, str]
) -> tuple[list[Service], dict[str, str]]:
    services, ours = [], {}
    if flower:
        services.append(Service("flower", command("flower"), {**env, **login}))
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
        say(f"Flower:         {_flower_at(settings)} ({_log_in_to_flower(data, ours, settings)})")
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


def _flower_login(data: Path, ours: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """A login for Flower, which shows and cancels everybody's jobs, unless the settings have one.

    Its password is the local API key, which opens the pages too; with a Redis of others, in which we create no API key,
    it is a password of its own.
    """
    if settings.flower.basic_auth is not None:
        return {}
    url = ours.get("OUTWAIT_REDIS_URL")
    if url is None:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        password = stored_password(data / FLOWER_LOGIN)
    else:
        password = local_key(load_settings(redis_url=url), data).read_text().strip()
    return {"OUTWAIT_FLOWER__BASIC_AUTH": f"outwait:{password}"}


def _log_in_to_flower(data: Path, ours: Mapping[str, str], settings: Settings) -> str:
    if settings.flower.basic_auth is not None:
        return "log in as OUTWAIT_FLOWER__BASIC_AUTH says"
    if "OUTWAIT_REDIS_URL" in ours:
        return "log in as outwait; the password is the same key"
    return f"log in as outwait; the password is in {data / FLOWER_LOGIN}"


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
            code = service.code
            if code is not None and needs_a_person(code, service.starts, own_redis=redis is not None):
                say(f"{service.name} ended with exit code {code}, and would again; its message is above.")
                raise typer.Exit(code)
        signals.stop.wait(CHECK_EVERY)


def needs_a_person(code: int, starts: int, *, own_redis: bool) -> bool:
    """Whether a restart does not help a process that ended: a setting is wrong, or its Redis is not usable.

    An unusable Redis counts at the first start alone, and only if we do not run it: it may only be away later on.
    """
    return code == Exit.CONFIG or (code == Exit.UNAVAILABLE and starts == 1 and not own_redis)


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
