"""A job's timeline as people read it: what happened, how long nothing did before it, and the parts of its life."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec

from outwait.web.pages import tones
from outwait.worker.model.jobs import Job, JobError, JobState, TimelineEntry
from outwait.worker.net.redaction import redact

WAIT = 1.0
"""Seconds above which the time between two entries is shown as a wait of its own."""

_WORDS = {
    "enqueued": "by its producer",
    "refused": "as it is",
    "submitted": "to the provider",
    "status": "at the provider",
    "retry": "later",
    "uncertain": "submitted, perhaps",
    "held": "for a person",
    "resolved": "by a person",
    "adopted": "the provider has it",
    "cancel-asked": "by a person or its producer",
    "callback": "to its handlers",
    "delivery-retry": "later",
    "replay": "by a person",
    "provider-told": "of the cancel",
    "too-late": "changed nothing",
    "dead": "the delivery is given up",
}


class Entry(NamedTuple):
    """One line of a timeline. `wait` are the seconds before it, if they are worth a line of their own."""

    at: float
    event: str
    words: str
    detail: str
    tone: str
    since: float
    wait: float | None


class Phase(NamedTuple):
    """A part of a job's life: queued, at the provider, with its handlers. `share` is of a hundred."""

    name: str
    tone: str
    seconds: float
    begin: float
    share: float


def entries(found: Sequence[TimelineEntry]) -> list[Entry]:
    """The timeline, oldest first."""
    start = found[0].at if found else 0.0
    before = [start, *(one.at for one in found)]
    return [_entry(one, one.at - previous, start) for one, previous in zip(found, before, strict=False)]


def _entry(one: TimelineEntry, gap: float, start: float) -> Entry:
    return Entry(
        at=one.at,
        event=one.event,
        words=_WORDS.get(one.event, ""),
        detail=told(one.detail),
        tone=tones.tone(one.event),
        since=one.at - start,
        wait=gap if gap >= WAIT else None,
    )


def told(detail: str) -> str:
    """A detail with the error at its end, if there is one, as `code: message`."""
    head, brace, rest = detail.partition("{")
    if not brace or (head and not head.endswith(" ")):
        return redact(detail)
    try:
        error = msgspec.json.decode(brace + rest, type=JobError)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return redact(detail)  # cut short, or no error
    return redact(f"{head}{error.code}: {error.message}")


def phases(job: Job, now: float) -> list[Phase]:
    """How its time was spent so far."""
    over = job.closed or now
    ended = job.ended or over
    submitted = min(job.submitted or ended, ended)
    moments = [job.created, submitted, max(ended, submitted), max(over, ended)]
    whole = max(moments[-1] - moments[0], 0.001)
    first = ("submitted, perhaps", tones.ODD) if job.state is JobState.UNCERTAIN else ("queued", tones.INFO)
    named = (first, ("at the provider", tones.WARN), ("with its handlers", tones.GOOD))
    return [
        Phase(name, tone, end - begin, (begin - job.created) / whole * 100, (end - begin) / whole * 100)
        for (name, tone), (begin, end) in zip(named, pairwise(moments), strict=True)
        if end - begin > 0
    ]
