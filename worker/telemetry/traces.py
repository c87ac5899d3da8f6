"""Traces: one a job, from its producer's span to its last delivery. Off unless the settings ask for them.

OpenTelemetry is imported by `outwait.worker.telemetry.spans` alone, and that only when traces are on.
"""

from typing import Protocol

from outwait.config.errors import ConfigError
from outwait.config.settings import Settings
from outwait.worker.model.jobs import Claim
from outwait.worker.model.lanes import Lane
from outwait.worker.model.outcomes import Outcome


class Tracer(Protocol):
    """Where spans go."""

    def step(self, lane: Lane, claim: Claim, began: int, now: int, outcome: Outcome) -> None:
        """A step is over that `began` at this nanosecond since 1970, `now` in milliseconds of Redis's clock."""
        ...

    def close(self) -> None:
        """Send what is left."""
        ...


def tracer(settings: Settings) -> Tracer | None:
    """What these settings ask for. Raises ConfigError."""
    if not settings.traces.enabled:
        return None
    try:
        from outwait.worker.telemetry.spans import Spans  # noqa: PLC0415 - an optional extra, and half a second to import
    except ImportError as error:
        raise ConfigError(
            f"OUTWAIT_TRACES__ENABLED is on and a package is missing ({error}): install the extra `outwait[traces]`, "
            "or switch it off"
        ) from error
    try:
        return Spans(settings.namespace)
    except ValueError as error:
        raise ConfigError(f"OpenTelemetry refuses one of its OTEL_* variables: {error}") from error
