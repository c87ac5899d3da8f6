"""Charts for the templates: an SVG with a fixed grid that the page stretches, its labels, and its table.

Labels are text beside the SVG, not inside it, so that they stay readable on a phone.
"""

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import NamedTuple

from outwait.web.pages import tones
from outwait.worker.model.jobs import JobState
from outwait.worker.store.statistics import Minute

WIDTH, HEIGHT = 600, 120
"""Units of the grid; the page stretches it."""

WINDOWS = {60: 1, 360: 5, 1440: 15}
"""Minutes that a chart can show, and the minutes of one point."""

LABELS = 5
"""Number of times of day under a chart."""

Value = float | None


class Series(NamedTuple):
    """One line, or one layer of the bars. None means that nothing was measured."""

    name: str
    tone: str
    values: Sequence[Value]


class Bar(NamedTuple):
    """A rectangle of the grid."""

    tone: str
    x: float
    y: float
    width: float
    height: float


class Line(NamedTuple):
    """A path of the grid."""

    tone: str
    path: str


class Chart(NamedTuple):
    """One chart. `ticks` are its labels from top to bottom, `rows` are its table."""

    id: str
    title: str
    unit: str
    summary: str
    legend: Sequence[tuple[str, str]]
    ticks: Sequence[str]
    times: Sequence[str]
    bars: Sequence[Bar]
    lines: Sequence[Line]
    rows: Sequence[tuple[str, Sequence[str]]]


class _Bucket(NamedTuple):
    at: int
    minutes: Sequence[Minute]

    def total(self, of: Callable[[Minute], int]) -> float:
        return sum(of(minute) for minute in self.minutes)

    def peak(self, of: Callable[[Minute], Value]) -> Value:
        return max((value for minute in self.minutes if (value := of(minute)) is not None), default=None)


def charts(history: Sequence[Minute], step: int) -> list[Chart]:
    """The overview's charts; each point covers `step` minutes."""
    buckets = [_Bucket(minutes[0].at, minutes) for minutes in _grouped(history, step)]
    per = "minute" if step == 1 else f"{step} minutes"
    return [_throughput(buckets, per), _waiting(buckets), _lateness(buckets)]


def _throughput(buckets: Sequence[_Bucket], per: str) -> Chart:
    def ended(state: JobState) -> Series:
        return Series(
            state, tones.tone(state), [bucket.total(lambda minute: minute.ended[state]) for bucket in buckets]
        )

    series = [ended(state) for state in JobState if state.ended]
    total = sum(value or 0 for layer in series for value in layer.values)
    return _chart("throughput", "Jobs ended", f"per {per}", f"{total:,.0f} jobs ended", buckets, series, stacked=True)


def _waiting(buckets: Sequence[_Bucket]) -> Chart:
    series = [
        Series("waiting at providers", tones.WARN, [bucket.peak(lambda minute: minute.waiting) for bucket in buckets]),
        Series("queued", tones.INFO, [bucket.peak(lambda minute: minute.queued) for bucket in buckets]),
    ]
    return _chart("waiting", "Open jobs", "jobs", f"at most {_top(series) or 0:,.0f} at once", buckets, series)


def _lateness(buckets: Sequence[_Bucket]) -> Chart:
    series = [
        Series("95 % of polls start within", tones.ODD, [bucket.peak(lambda minute: minute.late) for bucket in buckets])
    ]
    top = _top(series)
    summary = "no polls" if top is None else f"at most {top:.3g} s"
    return _chart("lateness", "Delay of polls", "seconds", summary, buckets, series, whole=False)


def _chart(  # noqa: PLR0913 - the parts of a chart
    name: str,
    title: str,
    unit: str,
    summary: str,
    buckets: Sequence[_Bucket],
    series: Sequence[Series],
    *,
    stacked: bool = False,
    whole: bool = True,
) -> Chart:
    heights = [sum(layer.values[at] or 0 for layer in series) for at in range(len(buckets))] if stacked else []
    top = axis(max(heights, default=0) if stacked else _top(series) or 0, whole=whole)
    return Chart(
        id=name,
        title=title,
        unit=unit,
        summary=summary,
        legend=[(line.name, line.tone) for line in series],
        ticks=[f"{top:,g}", f"{top / 2:,g}", "0"],
        times=_times(buckets),
        bars=_bars(series, top) if stacked else [],
        lines=[] if stacked else [Line(line.tone, _path(line.values, top)) for line in series],
        rows=[(_moment(bucket.at), [_cell(line.values[at]) for line in series]) for at, bucket in enumerate(buckets)],
    )


def axis(value: float, *, whole: bool) -> float:
    """The end of an axis: the smallest round number that is not below a value, or 1 without any.

    With `whole`, its middle is a whole number too: there is no half a job.
    """
    top = _round(value) if value else 1
    return top if not whole or top % 2 == 0 else math.floor(top) + 1


def _round(value: float) -> float:
    step = 0.001
    while True:
        for factor in (1, 2, 4, 5):
            if value <= step * factor:
                return step * factor
        step *= 10


def _bars(series: Sequence[Series], top: float) -> list[Bar]:
    count = len(series[0].values)
    width, bars = WIDTH / max(count, 1), []
    for at in range(count):
        floor = float(HEIGHT)
        for layer in series:
            height = (layer.values[at] or 0) / top * HEIGHT
            if height:
                floor -= height
                bars.append(Bar(layer.tone, at * width, floor, width * 0.8, height))
    return bars


def _path(values: Sequence[Value], top: float) -> str:
    """Straight lines between neighbours, a dash for a single value, and a gap where nothing was measured."""
    step = WIDTH / max(len(values) - 1, 1)
    points = [None if value is None else (at * step, HEIGHT - value / top * HEIGHT) for at, value in enumerate(values)]
    parts = []
    for before, point in pairwise([None, *points]):
        if point is None:
            continue
        x, y = point
        parts.append(f"L{x:.1f} {y:.1f}" if before else f"M{x:.1f} {y:.1f}h1")
    return "".join(parts)


def _top(series: Sequence[Series]) -> Value:
    return max((value for line in series for value in line.values if value is not None), default=None)


def _times(buckets: Sequence[_Bucket]) -> list[str]:
    if not buckets:
        return []
    places = [round(at * (len(buckets) - 1) / (LABELS - 1)) for at in range(LABELS)]
    return [_moment(buckets[at].at) for at in places[:-1]] + ["now"]


def _moment(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M")


def _cell(value: Value) -> str:
    return "-" if value is None else f"{value:,.3g}" if value != int(value) else f"{value:,.0f}"


def _grouped(history: Sequence[Minute], step: int) -> list[Sequence[Minute]]:
    """Groups of `step` minutes, the last of which ends with the newest minute."""
    first = len(history) % step
    starts = range(first, len(history), step)
    return [history[start : start + step] for start in starts]
