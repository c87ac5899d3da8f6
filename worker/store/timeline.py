"""The lines of a job's timeline, as the scripts write them, made into entries for people."""

import re
from collections.abc import Sequence

import msgspec

from outwait.worker.model.jobs import TimelineEntry

CONFLICT = "conflict"
"""The event of another request under a job's id."""

_CHARACTERS = r'((?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*)'

_ERROR = re.compile(rf'(|.*? )\{{"code":"{_CHARACTERS}","message":"{_CHARACTERS}(.?)', re.DOTALL)
"""A `JobError` at the end of a detail. A long one is cut off somewhere."""


def entry(line: str) -> TimelineEntry:
    """Read one line: milliseconds, the event, and perhaps a detail."""
    at, _, rest = line.partition(" ")
    event, _, detail = rest.partition(" ")
    return TimelineEntry(int(at) / 1000, event, _in_words(detail))


def counted(entries: Sequence[TimelineEntry], conflicts: int) -> list[TimelineEntry]:
    """The entries, with the number of conflicts in the one that stands for all of them."""
    return [
        msgspec.structs.replace(entry, detail=f"{entry.detail}; {conflicts} so far")
        if entry.event == CONFLICT and conflicts > 1
        else entry
        for entry in entries
    ]


def _in_words(detail: str) -> str:
    """The detail, with an error's JSON at its end as `code: message`."""
    error = _ERROR.match(detail)
    if error is None:
        return detail
    head, code, message, end = error.groups()
    try:
        words = f"{head}{_text(code)}: {_text(message)}"
    except msgspec.DecodeError:  # half a surrogate pair, say: it is no error of ours
        return detail
    return words if end == '"' else words.rstrip("…\ufffd") + "…"


def _text(characters: str) -> str:
    return msgspec.json.decode(f'"{characters}"'.encode(), type=str)
