"""What is counted for /metrics: the names of the counts, and the classes of what is measured. Pure."""

REQUEST_BOUNDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds in seconds of the classes of request durations; one more class is above them all."""

LATE_BOUNDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 3600.0)
"""The same for how late steps start."""

_RESULTS = {**{status: f"{status // 100}xx" for status in range(100, 600)}, 429: "429"}

Name = tuple[str | int, ...]
"""What is counted, and its labels."""


def result_of(status: int) -> str:
    """The class of an HTTP status: `2xx`, `429`, `4xx` …"""
    return _RESULTS.get(status, "other")
