"""The Compose files as Compose reads them, and a Redis that is started as their service is. It needs no engine."""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import redis
import yaml

from outwait.worker.local.embedded import find_server, free_port
from tests.patience import PATIENCE

ROOT = Path(__file__).parent.parent
FILES = ("docker-compose.yml", "docker-compose.sandbox.yml")
COMPOSE, SANDBOX = (yaml.safe_load((ROOT / name).read_text()) for name in FILES)
SERVICES = COMPOSE["services"]
OURS = ("worker", "web", "flower")
CONTAINERS = {**SERVICES, "sandbox": SANDBOX["services"]["sandbox"]}
"""Every service, those that the second file adds too."""

USERS = ("admin", "worker", "web", "flower", "producer")
"""The users of Redis who have a password."""

REQUIRED = {f"REDIS_{user.upper()}_PASSWORD": f"0aF9{user}" for user in USERS} | {"FLOWER_LOGIN": "me:pass"}
"""What README says to put into .env."""

VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?::([-?])((?:[^{}]|\{[^{}]*\})*))?\})")
ACL = "/redis.acl"
"""Where the container has the users' rules."""


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """What Compose makes of a value: `${NAME}`, `${NAME:-default}`, `${NAME:?message}`, and `$$` for `$`."""

    def value(match: re.Match[str]) -> str:
        dollar, name, kind, rest = match.groups()
        if dollar:
            return "$"
        assert kind or variables.get(name), f"{name} must be set"
        assert kind != "?" or variables.get(name), rest
        return variables.get(name) or interpolate(rest or "", variables)

    return VARIABLE.sub(value, text)


def interpolated(value: Any, **variables: str) -> Any:
    """The same for everything in a part of a file."""
    match value:
        case dict():
            return {key: interpolated(each, **variables) for key, each in value.items()}
        case list():
            return [interpolated(each, **variables) for each in value]
        case str():
            return interpolate(value, REQUIRED | variables)
        case _:
            return value


def environment_of(name: str, files: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The variables of a container, if the operator's files (`.env`, `worker.env` …) have this content."""
    service = CONTAINERS[name]
    given: dict[str, str] = {}
    for file in service.get("env_file", []):
        given |= files.get(file["path"], {})
    shown = interpolated(service.get("environment", {}), **files.get(".env", {}))
    return given | {key: str(value) for key, value in shown.items()}


def redis_options() -> list[list[str]]:
    """The lines of Redis's configuration that stand in the Compose file."""
    script = SERVICES["redis"]["command"][2]
    return [line.split(maxsplit=1) for line in script.partition("<<END\n")[2].partition("\nEND\n")[0].splitlines()]


class Server(NamedTuple):
    """A server on 127.0.0.1, with the users of the Compose file."""

    process: "subprocess.Popen[bytes]"
    port: int

    def client(self, user: str, password_of: str = "") -> redis.Redis:
        """A connection of one user, with the user's password or that of another one."""
        password = REQUIRED[f"REDIS_{(password_of or user).upper()}_PASSWORD"]
        return redis.Redis("127.0.0.1", self.port, username=f"outwait-{user}", password=password, decode_responses=True)

    @property
    def answers(self) -> bool:
        """Whether it has started."""
        try:
            return bool(self.client("admin").ping())
        except redis.ConnectionError:
            return False


@contextmanager
def redis_of_compose(folder: Path, acl: Path = ROOT / "redis.acl") -> Iterator["Server"]:
    """A server that is started by the command of the Compose file, as in its container."""
    shell, option, script = interpolated(SERVICES["redis"]["command"])
    (folder / "redis-server").symlink_to(find_server())
    entrypoint = folder / "docker-entrypoint.sh"
    entrypoint.write_text('#!/bin/sh\nexec "$@"\n')
    entrypoint.chmod(0o755)
    variables = {"PATH": f"{folder}:{os.environ['PATH']}", **interpolated(SERVICES["redis"]["environment"])}
    port = free_port()
    script = script.replace("redis-server -", f"redis-server - --port {port} --bind 127.0.0.1", 1)
    script = script.replace(ACL, str(acl))
    process = subprocess.Popen([shell, option, script], cwd=folder, env=variables, stdout=subprocess.DEVNULL)
    try:
        yield Server(process, port)
    finally:
        process.terminate()
        process.wait(PATIENCE)
