"""Where a result goes: what a job or a route may name as a target, and the handler that it means. No I/O.

A target is read once, where it enters; its canonical form names the lane of its handler.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import parse_qsl

from config.groups import Route
from worker.errors import InvalidRequest

NAME = re.compile(r"[a-z][a-z0-9_-]{0,59}")
"""A handler function's name."""

FORMS = "a handler's name (crm), celery://task.name?queue=name, stream://key?maxlen=1000 or file:name.jsonl"

CELERY_QUEUE = "celery"
"""The queue that a Celery app listens to unless it is told otherwise."""

# No braces: they are the hash tag of the store's own keys, which no target may reach. The other characters left out
# would need escapes, and two spellings of one handler would be two lanes.
_WORD = re.compile(r"[A-Za-z0-9_.:@/-]{1,200}")
_FILE_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")
_MAXLEN = re.compile(r"0*[1-9][0-9]{0,11}")


@dataclass(frozen=True, slots=True)
class FunctionTarget:
    """A Python function marked `@handler(name)`."""

    name: str


@dataclass(frozen=True, slots=True)
class CeleryTarget:
    """A task of another Celery app on the same broker."""

    task: str
    queue: str = CELERY_QUEUE


@dataclass(frozen=True, slots=True)
class StreamTarget:
    """A Redis stream, trimmed to about `maxlen` entries if it is given."""

    key: str
    maxlen: int | None = None


@dataclass(frozen=True, slots=True)
class FileTarget:
    """A JSON Lines file; `path` is relative to the folder of the settings."""

    path: str


Target = FunctionTarget | CeleryTarget | StreamTarget | FileTarget


def parse(target: str) -> Target:
    """Read a target.

    Raises:
        InvalidRequest: it is none; the message says what is wrong and which forms there are.
    """
    scheme, colon, rest = target.partition(":")
    try:
        return _by_scheme(scheme.lower(), rest) if colon else FunctionTarget(_name(target))
    except ValueError as error:
        raise InvalidRequest(f"target {target[:200]!r}: {error}. A target is {FORMS}") from None


def canonical(target: Target) -> str:
    """The one way to write a target, and the name of its handler's lane. `parse` reads it back."""
    match target:
        case FunctionTarget(name):
            return name
        case CeleryTarget(task, queue):
            return f"celery://{task}" if queue == CELERY_QUEUE else f"celery://{task}?queue={queue}"
        case StreamTarget(key, maxlen):
            return f"stream://{key}" if maxlen is None else f"stream://{key}?maxlen={maxlen}"
        case FileTarget(path):
            return f"file:{path}"


def route(routes: Sequence[Route], provider: str, operation: str) -> tuple[str, ...]:
    """Targets (in canonical form) of a job that names none: those of the first route that matches, or none at all.

    Raises:
        InvalidRequest: the route names something that is no target.
    """
    for each in routes:
        if each.provider in (None, provider) and each.operation in (None, operation):
            return tuple(dict.fromkeys(canonical(parse(target)) for target in each.targets))
    return ()


def _by_scheme(scheme: str, rest: str) -> Target:
    match scheme:
        case "celery":
            task, options = _address(rest, "queue")
            return CeleryTarget(_word(task, "task name"), _word(options.get("queue", CELERY_QUEUE), "queue"))
        case "stream":
            key, options = _address(rest, "maxlen")
            return StreamTarget(_word(key, "stream key"), _maxlen(options.get("maxlen")))
        case "file":
            return FileTarget(_file(rest.removeprefix("//")))
        case "http" | "https":
            raise ValueError("webhooks to your own URLs are not part of this version; let a handler function send them")
        case _:
            raise ValueError(f"the scheme {scheme[:40]!r} is unknown")


def _address(rest: str, option: str) -> tuple[str, dict[str, str]]:
    """What stands between `//` and `?`, and the options after it, of which only `option` is known."""
    if not rest.startswith("//"):
        raise ValueError("'//' must follow the scheme")
    address, _, query = rest[2:].partition("?")
    pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    if any(name != option for name, _ in pairs) or len(pairs) > 1:
        raise ValueError(f"the only option here is one {option!r}")
    return address, dict(pairs)


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise ValueError("a handler's name has 1 to 60 lower-case letters, digits, '_' or '-' and begins with a letter")
    return text


def _word(text: str, what: str) -> str:
    if not _WORD.fullmatch(text):
        raise ValueError(f"the {what} must have 1 to 200 letters, digits or any of '_.:@/-'")
    return text


def _maxlen(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and _MAXLEN.fullmatch(text)):
        raise ValueError("maxlen must be a whole number from 1 to 999999999999")
    return int(text)


def _file(text: str) -> str:
    if text.startswith("/"):
        raise ValueError("the path must be relative to OUTWAIT_HANDLERS__FOLDER")
    path = PurePosixPath(text)
    if path.suffix != ".jsonl":
        raise ValueError("the file's name must end in .jsonl")
    if not all(_FILE_PART.fullmatch(part) for part in path.parts):
        raise ValueError(
            "each part of the path must have 1 to 100 letters, digits or any of '_.-', and not begin with a dot"
        )
    return str(path)
