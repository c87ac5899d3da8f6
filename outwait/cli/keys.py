"""`outwait keys`: who may use the HTTP API and the pages."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from outwait.cli.exits import Exit
from outwait.cli.output import print_json, print_table, say, when
from outwait.cli.session import Json, current
from outwait.config.settings import Settings
from outwait.worker.store.access import Access, ApiKey, Scope
from outwait.worker.store.store import Store

LOCAL = "web.key"
"""File in the data folder of `outwait up`: the text of a key of the person who runs it."""

T = TypeVar("T")

keys = typer.Typer(help="Make, list and revoke API keys: for the HTTP API and for logging in to the pages.")


@keys.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is; shown in timelines.")],
    scope: Annotated[
        list[Scope], typer.Option(help="What it is good for; several times for several. enqueue costs money.")
    ] = [Scope.READ],  # noqa: B006 - typer copies it
    tenant: Annotated[str | None, typer.Option(help="Confine it to the jobs of one tenant.")] = None,
    as_json: Json = False,
) -> None:
    """Make an API key and print it, once: only its hash is stored."""
    made = _ask(current(context).settings(), lambda access: access.create(name, set(scope), tenant))
    if as_json:
        print_json({"key": made.text, **_fields(made.key)})
        return
    typer.echo(made.text)
    say(f"This is the key {name!r} ({_scopes(made.key)}); its id is {made.key.id}.")
    say("It is shown this once and stored nowhere: keep it as you keep a password.")


@keys.command("list")
def every(context: typer.Context, as_json: Json = False) -> None:
    """List the API keys, and when each was last used."""
    found = _ask(current(context).settings(), lambda access: access.all())
    if as_json:
        print_json([_fields(key) for key in found])
        return
    rows = [
        (
            key.id,
            key.name,
            _scopes(key),
            key.tenant or "all",
            when(key.created),
            when(key.used) if key.used else "never",
        )
        for key in found
    ]
    empty = "There are no API keys; `outwait keys create NAME` makes one."
    print_table(("id", "name", "scopes", "tenant", "created", "used"), rows, empty=empty)


@keys.command()
def revoke(
    context: typer.Context,
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, from `outwait keys list`.")],
    as_json: Json = False,
) -> None:
    """Make an API key, and every login with it, useless at once."""
    there = _ask(current(context).settings(), lambda access: access.revoke(key_id))
    if as_json:
        print_json({"id": key_id, "revoked": there})
    elif there:
        say(f"The key {key_id} is revoked.")
    else:
        say(f"Error: no key has the id {key_id!r}; `outwait keys list` lists them.")
    if not there:
        raise typer.Exit(Exit.NOT_FOUND)


def local_key(settings: Settings, folder: Path) -> Path:
    """The file with a key for everything, for the person who runs `outwait up` over this folder; made if need be.

    Only this user can read it, like the password of the embedded Redis beside it, which opens as much.
    """
    file = folder / LOCAL

    async def ensure(access: Access) -> None:
        if file.exists() and await access.find(file.read_text().strip()):
            return
        made = await access.create("local", set(Scope))
        with contextlib.suppress(FileNotFoundError):
            file.unlink()  # whoever may read an old one
        file.touch(mode=0o600, exist_ok=False)
        file.write_text(made.text + "\n")

    _ask(settings, ensure)
    return file


def _ask(settings: Settings, question: Callable[[Access], Awaitable[T]]) -> T:
    async def answer() -> T:
        async with Store.open(settings) as store:
            return await question(store.access)

    return asyncio.run(answer())


def _fields(key: ApiKey) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(key)
    return fields | {"scopes": sorted(key.scopes)}


def _scopes(key: ApiKey) -> str:
    return ", ".join(sorted(key.scopes))
