"""Traces: one for each job, from its producer's span to its last delivery. They are off by default.

Only `outwait.worker.telemetry.spans` imports OpenTelemetry, and it is imported only when traces are on.
"""

from typing import Protocol

from outwait.config.errors import ConfigError
from outwait.config.settings import Settings
from outwait.worker.model.jobs import Claim
from outwait.worker.model.lanes import Lane
from outwait.worker.model.outcomes import Outcome


class Tracer(Protocol):
    """Records spans."""

    def step(self, lane: Lane, claim: Claim, began: int, now_ms: int, outcome: Outcome) -> None:
        """A step is over that `began` at this nanosecond since 1970, `now_ms` in milliseconds of Redis's clock."""
        ...

    def close(self) -> None:
        """Send the remaining spans."""
        ...


def tracer(settings: Settings) -> Tracer | None:
    """The tracer, or None if traces are off. Raises ConfigError."""
    if not settings.traces.enabled:
        return None
    try:
        from outwait.worker.telemetry.spans import Spans  # noqa: PLC0415 - an optional extra, and half a second to import
    except ImportError as error:
        raise ConfigError(
            f"OUTWAIT_TRACES__ENABLED is on, but a package is missing ({error}): install the extra `outwait[traces]`, "
            "or turn the setting off"
        ) from error
    try:
        return Spans(settings.namespace)
    except ValueError as error:
        raise ConfigError(f"an OTEL_* variable is invalid: {error}") from error
