"""A job's timeline for people: its entries, the waits between them, and the phases of the job's life."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from outwait.web.pages import tones
from outwait.worker.model.jobs import Job, JobState, TimelineEntry
from outwait.worker.net.redaction import redact

WAIT = 1.0
"""Seconds from which on the time between two entries is shown as a wait."""

_WORDS = {
    "enqueued": "by its producer",
    "refused": "the request is invalid",
    "submitted": "to the provider",
    "status": "at the provider",
    "retry": "later",
    "uncertain": "the provider may have the job",
    "held": "until a person decides",
    "resolved": "by a person",
    "repolled": "by a person",
    "adopted": "the provider has the job",
    "cancel-asked": "by a person or its producer",
    "callback": "to its handlers",
    "delivery-retry": "later",
    "replay": "by a person",
    "provider-told": "of the cancel",
    "too-late": "changed nothing",
    "dead": "the delivery is given up",
}


class Entry(NamedTuple):
    """One line of a timeline. `wait` is the time before it in seconds, if it is long enough to be shown."""

    at: float
    event: str
    words: str
    detail: str
    tone: str
    since: float
    wait: float | None


class Phase(NamedTuple):
    """A part of a job's life: queued, at the provider, with its handlers. `begin` and `share` are per cent."""

    name: str
    tone: str
    seconds: float
    begin: float
    share: float


def entries(timeline: Sequence[TimelineEntry]) -> list[Entry]:
    """The timeline, oldest first."""
    start = timeline[0].at if timeline else 0.0
    before = [start, *(entry.at for entry in timeline)]
    return [_entry(entry, entry.at - previous, start) for entry, previous in zip(timeline, before, strict=False)]


def _entry(entry: TimelineEntry, gap: float, start: float) -> Entry:
    return Entry(
        at=entry.at,
        event=entry.event,
        words=_WORDS.get(entry.event, ""),
        detail=redact(entry.detail),
        tone=tones.tone(entry.event),
        since=entry.at - start,
        wait=gap if gap >= WAIT else None,
    )


def phases(job: Job, now: float) -> list[Phase]:
    """The phases of the job's life so far."""
    over = job.closed or now
    ended = job.ended or over
    submitted = min(job.submitted or ended, ended)
    moments = [job.created, submitted, max(ended, submitted), max(over, ended)]
    whole = max(moments[-1] - moments[0], 0.001)
    first = ("uncertain", tones.ODD) if job.state is JobState.UNCERTAIN else ("queued", tones.INFO)
    names = (first, ("at the provider", tones.WARN), ("with its handlers", tones.GOOD))
    return [
        Phase(name, tone, end - begin, (begin - job.created) / whole * 100, (end - begin) / whole * 100)
        for (name, tone), (begin, end) in zip(names, pairwise(moments), strict=True)
        if end - begin > 0
    ]
