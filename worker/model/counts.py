"""Counts for /metrics: their names, and the bounds of the histograms' classes. Pure."""

REQUEST_BOUNDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds, in seconds, of the classes of request durations. One more class is above the last bound."""

LATE_BOUNDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 3600.0)
"""Upper bounds, in seconds, of the classes of the delay with which steps start."""

_RESULTS = {**{status: f"{status // 100}xx" for status in range(100, 600)}, 429: "429"}

Name = tuple[str | int, ...]
"""The name of a count, and its labels."""


def result_of(status: int) -> str:
    """The class of an HTTP status: `2xx`, `429`, `4xx` …"""
    return _RESULTS.get(status, "other")
