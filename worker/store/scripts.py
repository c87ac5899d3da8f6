"""Puts the Lua scripts together, loads and runs them; survives a Redis that has forgotten them."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

import msgspec
from redis.exceptions import DataError, NoScriptError

from outwait.config.groups import StoreSettings
from outwait.worker.model.jobs import NORMAL
from outwait.worker.model.times import milliseconds
from outwait.worker.store import fields
from outwait.worker.store.codes import EnqueueResult, Recorded
from outwait.worker.store.keys import Keys
from outwait.worker.store.outages import TooFewCopies

_FOLDER = resources.files("outwait.worker.store") / "lua"

_CODES = {code.name: str(code.value) for codes in (EnqueueResult, Recorded) for code in codes} | {
    "NORMAL_PRIORITY": str(NORMAL)
}

_NAME = re.compile(rf"\b(?:(?:{'|'.join(fields.TABLES)})\.\w+|[A-Z][A-Z_]+)\b")
"""What may be the name of a constant in a script: of a field, a key or a code."""

_pack = msgspec.msgpack.Encoder().encode


_PARTS: Mapping[str, Sequence[str]] = {
    "act": ("record/acts",),
    "enqueue": ("submits/lines",),
    "claim": ("submits/lines", "submits/turns"),
    "due_lanes": ("record/admission",),
    "record": (
        "record/acts",
        "record/admission",
        "record/jobs",
        "record/webhooks",
        "record/deliveries",
        "record/repolls",
        "record/governor",
        "record/orphans",
    ),
}
"""Scripts whose text is longer than one file: what stands before it. Each part uses the prelude and parts before it."""

ARGUMENT_MAX = 512 * 1024 * 1024
"""Bytes of one argument at most, Redis's `proto-max-bulk-len`: it answers a larger one by closing the connection."""

NAMES = sorted(
    file.name[:-4] for file in _FOLDER.iterdir() if file.name.endswith(".lua") and file.name != "prelude.lua"
)
"""Every script."""


def text_of(name: str, keys: Keys) -> str:
    """The whole text of a script: the prelude, its parts, and itself, with constants in place of their names."""
    text = "".join(_read(part) for part in ("prelude", *_PARTS.get(name, ()), name))
    return _fold(text, {**keys.lua(), **fields.lua(), **_CODES})


def _fold(text: str, constants: Mapping[str, str]) -> str:
    """Put constants where a script has their names.

    Lua 5.1 has no constants, and no room for so many local variables; with them, each call of a script would take some
    microseconds longer. Raises KeyError for a name like a field's that is none.
    """
    return _NAME.sub(lambda name: constants[name[0]] if "." in name[0] else constants.get(name[0], name[0]), text)


def _read(part: str) -> str:
    return (_FOLDER / f"{part}.lua").read_text()


class Copies(NamedTuple):
    """Where a write must stand before anything is promised on it.

    Args:
        replicas: so many of them have it in memory.
        files: so many append-only files have it on disk, that of the master first.
        within_ms: for this long they are waited for.
    """

    replicas: int = 0
    files: int = 0
    within_ms: int = 0


NO_COPIES = Copies()
"""What Redis itself has written is enough."""


def copies_of(settings: StoreSettings) -> Copies:
    """What the settings ask for. Half of the time that Redis has for an answer is left for the answer."""
    return Copies(settings.replicas, settings.files, milliseconds(settings.timeout / 2))


class Scripts:
    """The scripts of one namespace on one connection pool."""

    def __init__(self, redis: Any, keys: Keys, copies: Copies = NO_COPIES) -> None:
        self._redis = redis
        self._copies = copies
        self._copied = keys("COPIED")
        self._root = keys.root
        self._texts = {name: text_of(name, keys) for name in NAMES}
        self._shas = {name: hashlib.sha1(text.encode()).hexdigest() for name, text in self._texts.items()}  # noqa: S324 - Redis names scripts by it

    async def run(self, name: str, /, *, keys: Sequence[str] = (), promised: bool = False, **arguments: Any) -> Any:
        """Run a script; it reads its arguments by name. `keys` are those that do not carry our hash tag.

        Texts of bytes are given as `codec.blob`: Redis's msgpack knows no binary type.

        Args:
            name: of the script.
            keys: those that do not carry our hash tag.
            promised: whether something is promised on what it writes: it then stands where the settings ask for.
            arguments: the script's.
        """
        packed = _pack(arguments)
        if len(packed) > ARGUMENT_MAX:
            raise DataError(f"{len(packed)} bytes are more than Redis takes in one argument, {ARGUMENT_MAX}")
        given = (1 + len(keys), self._root, *keys, packed)
        call = self._copied_call if promised and (self._copies.replicas or self._copies.files) else self._call
        try:
            return await call("EVALSHA", self._shas[name], *given)
        except NoScriptError:
            return await call("EVAL", self._texts[name], *given)

    async def _call(self, *command: Any) -> Any:
        return await self._redis.execute_command(*command)

    async def _copied_call(self, *command: Any) -> Any:
        """The same, and then wait in the same round trip until it is copied. Raises TooFewCopies.

        Redis waits for the last write of this connection. A script that came twice and wrote nothing the second time
        would be taken for copied at once, so a write of its own follows it.
        """
        replicas, files, within_ms = self._copies
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.execute_command(*command)
            pipe.execute_command("SET", self._copied, 1)
            if replicas:
                pipe.execute_command("WAIT", replicas, within_ms)
            if files:
                pipe.execute_command("WAITAOF", 1, files - 1, within_ms)
            answer, _, *reached = await pipe.execute()
        reached_replicas = reached[0] if replicas else 0
        reached_files = sum(reached[-1]) if files else 0
        if reached_replicas < replicas or reached_files < files:
            copies = f"{reached_replicas} of {replicas} replicas, {reached_files} of {files} append-only files"
            raise TooFewCopies(f"{copies} had it within {within_ms} ms")
        return answer
