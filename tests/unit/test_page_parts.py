"""What the pages are made of: colours that can be read, charts, words for times and timelines, paths and tries."""

import re

import pytest

from outwait.web.pages import charts, notices, rendering, session, timeline
from outwait.worker.model.jobs import Job, JobState, TimelineEntry
from outwait.worker.store.statistics import Minute

TONES = ("good", "bad", "warn", "late", "odd", "info", "quiet")
TEXTS = [
    *((ink, ground) for ink in ("ink", "muted", "accent") for ground in ("ground", "surface", "sunken")),
    *((tone, f"{tone}-ground") for tone in TONES),
    *((tone, "surface") for tone in TONES),
    ("accent-ink", "accent"),
]
SHAPES = [*((f"{tone}-fill", "surface") for tone in TONES if tone != "quiet"), ("edge", "surface"), ("edge", "ground")]


def schemes() -> dict[str, dict[str, str]]:
    light, dark, *_ = rendering.assets()["style.css"].body.decode().split("@media (prefers-color-scheme: dark)")
    pairs = re.compile(r"--([a-z-]+): (#[0-9a-f]{6});")
    return {"light": dict(pairs.findall(light)), "dark": dict(pairs.findall(dark.split("\n}\n")[0]))}


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(ink: str, ground: str) -> float:
    dark, light = sorted((luminance(ink), luminance(ground)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_and_shape_can_be_told_from_its_ground(scheme: str) -> None:
    colours = schemes()[scheme]
    pairs = [(*pair, 4.5) for pair in TEXTS] + [(*pair, 3.0) for pair in SHAPES]
    ratios = {(ink, ground): contrast(colours[ink], colours[ground]) for ink, ground, _ in pairs}
    assert [(ink, ground, ratios[ink, ground]) for ink, ground, least in pairs if ratios[ink, ground] < least] == []


def minute(at: int, succeeded: int = 0, waiting: int | None = None, late: float | None = None) -> Minute:
    ends = dict.fromkeys((state for state in JobState if state.ended), 0) | {JobState.SUCCEEDED: succeeded}
    return Minute(at * 60, ends, 0, 0, 0, late, waiting, waiting, waiting, waiting, 0, 0)


def test_charts_scale_to_round_numbers_and_leave_out_what_nobody_saw() -> None:
    history = [minute(0, succeeded=2), minute(1, waiting=7), minute(2, succeeded=3, waiting=3, late=0.3), minute(3)]
    ended, open_, late = charts.charts(history, 1)
    assert (ended.ticks, ended.summary) == (["4", "2", "0"], "5 jobs ended")
    assert [(bar.x, bar.height) for bar in ended.bars] == [(0, 60), (300, 90)]
    assert open_.ticks == ["10", "5", "0"]
    assert [line.path for line in open_.lines] == ["M200.0 36.0h1L400.0 84.0"] * 2
    assert [line.path for line in late.lines] == ["M400.0 30.0h1"]
    assert late.rows[0] == ("00:00", ["-"])


def test_the_points_of_a_long_chart_are_sums_or_peaks_of_whole_groups() -> None:
    ended, open_, _ = charts.charts([minute(at, succeeded=1, waiting=at) for at in range(31)], 15)
    assert [cells[0] for _, cells in ended.rows] == ["15", "15"]
    assert [cells[0] for _, cells in open_.rows] == ["15", "30"]
    assert ended.times[-1] == "now"


def test_charts_of_nothing_have_plain_axes() -> None:
    ended, open_, late = charts.charts([minute(0)], 1)
    assert (ended.ticks, ended.summary) == (["2", "1", "0"], "0 jobs ended")
    assert (open_.ticks, open_.summary) == (["2", "1", "0"], "at most 0 at once")
    assert (late.ticks, late.summary) == (["1", "0.5", "0"], "no polls")


@pytest.mark.parametrize(("jobs", "end"), [(0, 2), (1, 2), (2, 2), (3, 4), (5, 6), (7, 10), (41, 50), (101, 200)])
def test_an_axis_of_jobs_has_no_half_a_job(jobs: int, end: float) -> None:
    assert charts.axis(jobs, whole=True) == end


@pytest.mark.parametrize(("seconds", "end"), [(0.0, 1), (0.0004, 0.001), (0.3, 0.4), (4.5, 5)])
def test_an_axis_of_seconds_ends_at_a_round_number(seconds: float, end: float) -> None:
    assert charts.axis(seconds, whole=False) == pytest.approx(end)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.02, "20 ms"), (4.24, "4.2 s"), (9.97, "10 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (172_800, "2 d")],
)
def test_spans_have_two_units_at_most(seconds: float, words: str) -> None:
    assert rendering.span(seconds) == words


def test_a_timeline_tells_its_waits_and_no_secret() -> None:
    entries = timeline.entries(
        [
            TimelineEntry(100.0, "enqueued"),
            TimelineEntry(103.5, "dead", "crm delivery_refused: see https://crm.example/s3cret"),
            TimelineEntry(103.6, "closed"),
        ]
    )
    assert [entry.wait for entry in entries] == [None, 3.5, None]
    assert entries[1].detail == "crm delivery_refused: see https://crm.example/…"


def test_the_phases_of_a_job_are_its_whole_life() -> None:
    job = Job("j", "unless", "query", JobState.SUCCEEDED, 100, submitted=110, ended=190, closed=200)
    assert [(phase.name, phase.seconds, phase.share) for phase in timeline.phases(job, 1000)] == [
        ("queued", 10, 10),
        ("at the provider", 80, 80),
        ("with its handlers", 10, 10),
    ]
    held = Job("j", "unless", "query", JobState.UNCERTAIN, 100)
    assert [(phase.name, phase.seconds) for phase in timeline.phases(held, 160)] == [("uncertain", 60)]


@pytest.mark.parametrize(
    "foreign", ["", "jobs", "//evil.example", "https://evil.example/", "javascript:x", "/\\evil", "/a\r\nb", "/login"]
)
def test_after_the_login_only_paths_of_ours_are_gone_to(foreign: str) -> None:
    assert session.safe_path(foreign) == "/"
    assert session.safe_path("/jobs?state=failed&provider=unless") == "/jobs?state=failed&provider=unless"


def test_tries_are_counted_by_address_and_forgotten_with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(session.time, "monotonic", lambda: now)
    tries = session.Tries()
    for _ in range(session.TRIES):
        tries.wrong("10.0.0.1")
    for same in ("10.0.0.1", "10.0.0.1"):
        with pytest.raises(session.TooManyTries):
            tries.wrong(same)
    tries.wrong("10.0.0.2")
    now += session.TRIES_IN + 1
    tries.wrong("10.0.0.1")


def test_tries_of_one_ipv6_network_are_counted_together() -> None:
    tries = session.Tries()
    for number in range(session.TRIES):
        tries.wrong(f"2001:db8::{number}")
    with pytest.raises(session.TooManyTries):
        tries.wrong("2001:db8::ffff")
    tries.wrong("2001:db8:0:1::1")


def test_a_link_cannot_make_the_pages_say_what_it_likes() -> None:
    assert notices.notice("<b>pay here</b>", "1") == ""
    assert notices.notice("replayed", "-1") == notices.notice("replayed", "x") == notices.notice("replayed", "0")
    assert notices.notice("replayed", "1200").startswith("1,200 deliveries")
