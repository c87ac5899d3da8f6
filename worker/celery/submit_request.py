"""Producers' messages on a broker with real acknowledgements: each one runs, and at once.

Celery would acknowledge a message that expired or was revoked without a trace of it, reject one with a wrong time, and
hold one with an `eta` in memory until the broker's patience ends. Here the message becomes a job, which says it.
"""

from typing import Any

from celery.worker.request import Request

TIMES = ("eta", "expires")
"""The headers that the intake reads instead of Celery."""


class SubmitRequest(Request):  # type: ignore[misc] # Celery has no types
    """What Celery's worker makes of such a message."""

    def __init__(self, message: Any, *args: Any, headers: dict[str, Any] | None = None, **options: Any) -> None:
        given = message.headers if headers is None else headers
        super().__init__(message, *args, headers={**given, **dict.fromkeys(TIMES)}, **options)
        self._request_dict |= {name: given.get(name) for name in TIMES}  # for the task

    def revoked(self) -> bool:
        """Celery drops what is revoked; a revoked job is cancelled by the store instead."""
        return False
