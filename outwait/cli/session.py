"""What commands share: the data folder, the settings, and a client for one request to the store."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

import msgspec
import typer

from outwait.client.store import StoreClient, local_actor
from outwait.config.settings import Settings, load_settings
from outwait.worker.local.embedded import answers
from outwait.worker.model.acts import Via

RUNNING = "running.json"
"""File in the data folder of a running `outwait up`. It holds the variables through which other commands find it."""

DATA = Path("outwait-data")

T = TypeVar("T")


@dataclass
class Session:
    """The global options of one run of the command line. The root command sets them."""

    data: Path = DATA
    debug: bool = False

    def settings(self) -> Settings:
        """The settings. If they name no Redis, those of the `outwait up` that uses the data folder are added.

        Raises:
            ConfigError: a value is wrong.
        """
        settings = load_settings()
        if "redis_url" in settings.model_fields_set:
            return settings
        running = read_running(self.data)
        if not running:
            return settings
        os.environ.update({name: value for name, value in running.items() if name not in os.environ})
        return load_settings()

    def ask(self, question: Callable[[StoreClient], Awaitable[T]]) -> T:
        """Run one coroutine with a client. Raises what the client raises."""

        async def run() -> T:
            async with StoreClient(self.settings(), actor=local_actor(Via.COMMAND)) as client:
                return await question(client)

        return asyncio.run(run())


def current(context: typer.Context) -> Session:
    """The session of this run."""
    session = context.find_object(Session)
    return session or Session()


def write_running(folder: Path, environment: Mapping[str, str]) -> Path:
    """Write the file through which other commands find this `outwait up`. Only this user can read the file."""
    file = folder / RUNNING
    file.touch(mode=0o600)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(environment)))
    return file


def read_running(folder: Path) -> dict[str, str]:
    """The variables of the `outwait up` that uses this folder; empty if none is running."""
    try:
        variables = msgspec.json.decode((folder / RUNNING).read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError):
        return {}
    url = urlsplit(variables.get("OUTWAIT_REDIS_URL", ""))
    return variables if answers(url.hostname or "", url.port or 0, url.password or "") else {}


Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
JobIdArgument = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]
