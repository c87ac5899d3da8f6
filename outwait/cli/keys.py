"""`outwait keys`: API keys for the HTTP API and the pages."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from outwait.cli.output import print_json, print_table, say, when
from outwait.cli.session import Json, current
from outwait.client.store import local_actor
from outwait.config.exits import Exit
from outwait.config.settings import Settings
from outwait.worker.model.acts import ActKind, Via
from outwait.worker.store.access import ApiKey, NewKey, Scope
from outwait.worker.store.store import Store

LOCAL = "web.key"
"""File in the data folder of `outwait up`: an API key for the person who runs it."""

T = TypeVar("T")

keys = typer.Typer(help="Create, list and revoke API keys. They are used for the HTTP API and to log in to the pages.")


@keys.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of its owner; timelines show it.")],
    scope: Annotated[
        list[Scope],
        typer.Option(help="What the key allows; give the option once for each scope. enqueue costs money."),
    ] = [Scope.READ],  # noqa: B006 - typer copies it
    tenant: Annotated[str | None, typer.Option(help="Limit the key to the jobs of one tenant.")] = None,
    as_json: Json = False,
) -> None:
    """Create an API key and print it. It cannot be shown again: only its hash is stored."""

    async def make(store: Store) -> NewKey:
        made = await store.access.create(name, set(scope), tenant)
        await _note(store, ActKind.CREATE_KEY, made.key)
        return made

    created = _ask(current(context).settings(), make)
    if as_json:
        print_json({"key": created.text, **_fields(created.key)})
        return
    typer.echo(created.text)
    say(f"This is the API key {name!r} with the scopes {_scopes(created.key)}; its id is {created.key.id}.")
    say("It is shown only once. Keep it as you keep a password.")


@keys.command("list")
def list_keys(context: typer.Context, as_json: Json = False) -> None:
    """List the API keys, and when each was last used."""
    all_keys = _ask(current(context).settings(), lambda store: store.access.all())
    if as_json:
        print_json([_fields(key) for key in all_keys])
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
        for key in all_keys
    ]
    empty = "There are no API keys. `outwait keys create NAME` creates one."
    print_table(("id", "name", "scopes", "tenant", "created", "used"), rows, empty=empty)


@keys.command()
def revoke(
    context: typer.Context,
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, from `outwait keys list`.")],
    as_json: Json = False,
) -> None:
    """Revoke an API key. The key, and every login with it, stops working at once."""

    async def end(store: Store) -> bool:
        known = next((key for key in await store.access.all() if key.id == key_id), None)
        existed = await store.access.revoke(key_id)
        if existed and known:
            await _note(store, ActKind.REVOKE_KEY, known)
        return existed

    existed = _ask(current(context).settings(), end)
    if as_json:
        print_json({"id": key_id, "revoked": existed})
    elif existed:
        say(f"The key {key_id} is revoked.")
    else:
        say(f"Error: no API key has the id {key_id!r}. `outwait keys list` shows the ids.")
    if not existed:
        raise typer.Exit(Exit.NOT_FOUND)


def local_key(settings: Settings, folder: Path) -> Path:
    """The file with an API key that has all scopes, for the person who runs `outwait up`. Created if it is missing.

    Only this user can read the file. The password of the embedded Redis, beside it, gives the same access.
    """
    file = folder / LOCAL

    async def ensure(store: Store) -> None:
        if file.exists() and await store.access.find(file.read_text().strip()):
            return
        created = await store.access.create("local", set(Scope))
        await _note(store, ActKind.CREATE_KEY, created.key)
        with contextlib.suppress(FileNotFoundError):
            file.unlink()  # an old file may have wider permissions
        file.touch(mode=0o600, exist_ok=False)
        file.write_text(created.text + "\n")

    _ask(settings, ensure)
    return file


def _ask(settings: Settings, question: Callable[[Store], Awaitable[T]]) -> T:
    async def run() -> T:
        async with Store.open(settings) as store:
            return await question(store)

    return asyncio.run(run())


async def _note(store: Store, what: ActKind, key: ApiKey) -> None:
    words = f"{_scopes(key)}; tenant {key.tenant or 'all'}"
    await store.audit.write(local_actor(Via.COMMAND).act(what, about=f"{key.id} {key.name}", detail=words))


def _fields(key: ApiKey) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(key)
    return fields | {"scopes": sorted(key.scopes)}


def _scopes(key: ApiKey) -> str:
    return ", ".join(sorted(key.scopes))
