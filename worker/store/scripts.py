"""Loads the Lua scripts and runs them; survives a Redis that has forgotten them."""

import hashlib
from collections.abc import Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from redis.exceptions import NoScriptError

from outwait.worker.store.keys import Keys

Argument = str | bytes | int | float

_PARTS = {"record": ("jobs", "webhooks", "deliveries", "governor")}
"""Scripts whose text is longer than one file: what stands before it, in this order."""


class Scripts:
    """The scripts of one namespace on one connection pool."""

    def __init__(self, redis: Any, keys: Keys) -> None:
        self._redis = redis
        self._root = keys.root
        folder = resources.files("outwait.worker.store") / "lua"
        head = keys.lua() + (folder / "prelude.lua").read_text()
        bodies = {file.name[:-4]: file.read_text() for file in folder.iterdir() if file.name.endswith(".lua")}
        self._texts = {name: head + _parts(folder, name) + body for name, body in bodies.items() if name != "prelude"}
        self._shas = {name: hashlib.sha1(text.encode()).hexdigest() for name, text in self._texts.items()}  # noqa: S324 - Redis names scripts by it

    async def run(self, name: str, *arguments: Argument, keys: Sequence[str] = ()) -> Any:
        """Run a script. `keys` are those that do not carry our hash tag."""
        command = (self._shas[name], 1 + len(keys), self._root, *keys, *arguments)
        try:
            return await self._redis.evalsha(*command)
        except NoScriptError:
            return await self._redis.eval(self._texts[name], *command[1:])


def _parts(folder: Traversable, name: str) -> str:
    return "".join((folder / name / f"{part}.lua").read_text() for part in _PARTS.get(name, ()))
