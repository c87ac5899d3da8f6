"""Reads producers' messages as Celery writes them, and says why one is refused. Changes nothing."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from kombu.transport.virtual.base import Base64
from kombu.utils.json import loads

from outwait.worker.celery.inflating import Uninflatable, inflated
from outwait.worker.model.jobs import JOB_ID_PATTERN

TASK = "tasks.submit"
"""The wire name of the task that producers send: version 1 of the contract."""

JSON = "application/json"
"""The only content type that is read: a pickle could run code here."""

CONTENT_MAX = 4 * 1024 * 1024
"""Bytes of a message's content, where the settings name no limit."""

_AFTER = ("callbacks", "errbacks", "chain", "chord")


class Sent(NamedTuple):
    """A producer's message, decoded.

    `countdown` is in seconds; `refusal` says why the message is refused, or is empty; `trace` is its trace context;
    `expires_in` is the time in seconds by which the job must be due, if the message has an `expires`.
    """

    job_id: str
    request: Any
    countdown: float = 0.0
    refusal: str = ""
    trace: str = ""
    expires_in: float | None = None


class Unusable(Exception):
    """The message has no valid job id, so its error cannot be stored as a job. It is parked for a person."""


def content_max(params_max: int) -> int:
    """Bytes that the content of a message may have: JSON in ASCII is up to three times as long as ours."""
    return 3 * params_max + 65_536


def message_max(params_max: int) -> int:
    """Bytes that a whole message may have: its content in base64, and headers."""
    return 2 * content_max(params_max)


def decode(body: bytes, now: float, limit: int = CONTENT_MAX) -> Sent:
    """Read a message as Celery's producers write it (protocols 1 and 2).

    Args:
        body: the message.
        now: the time by Redis's clock, in seconds since 1970.
        limit: bytes that its content may have, after decompression.

    Raises:
        Unusable: it has no valid job id.
    """
    try:
        envelope = loads(body)
        headers = envelope.get("headers") or {}
        compression = headers.get("compression") or ""
        packed = Base64().decode(envelope["body"])
    except Exception as error:
        raise Unusable(f"this is not a Celery message: {type(error).__name__}: {error}") from error
    if not packed:
        raise Unusable("the message has no content")
    try:
        return _sent(headers, _content(packed, envelope.get("content-type"), compression, limit), now)
    except Unusable:
        raise
    except Uninflatable as error:
        return Sent(_job_id(headers.get("id")), {}, refusal=str(error))
    except Exception as error:  # noqa: BLE001 - json raises several errors
        return Sent(_job_id(headers.get("id")), {}, refusal=f"the message must be JSON ({JSON}): {error}")


def _content(packed: bytes, content_type: Any, compression: Any, limit: int) -> Any:
    """Not through kombu, which inflates without a limit and undoes any codec of Python's. Raises ValueError."""
    if content_type != JSON:
        raise ValueError(f"given {content_type!r:.100}")
    return loads(inflated(packed, compression, limit))


def _sent(headers: Mapping[str, Any], content: Any, now: float) -> Sent:
    if "task" in headers and isinstance(content, list) and len(content) == 3:
        return read(headers, *content, now=now)
    if isinstance(content, dict) and "task" in content:  # protocol 1
        return read(content, content.get("args"), content.get("kwargs"), content, now=now)
    raise Unusable("the message names no task")


def read(fields: Mapping[str, Any], args: Any, kwargs: Any, embed: Any, *, now: float = 0.0) -> Sent:
    """Read the fields of a message.

    Args:
        fields: `task`, `id`, `eta`, `expires` and `traceparent`.
        args: the task's positional arguments.
        kwargs: the task's keyword arguments.
        embed: the tasks that should run after it (callbacks, chains).
        now: seconds since 1970 by Redis's clock, to compare with `eta` and `expires`; this machine's may be wrong.

    Raises:
        Unusable: its id is not a valid job id.
    """
    job_id, request = _job_id(fields.get("id")), _request(args, kwargs)
    try:
        if fields["task"] != TASK:
            raise ValueError(f"task: given {fields['task']!r:.100}; this queue accepts only {TASK}")
        _check_follow_ups(embed)
        countdown, expires_in = _countdown(fields.get("eta"), now), _expires_in(fields.get("expires"), now)
        return Sent(job_id, request, countdown, trace=str(fields.get("traceparent", "")), expires_in=expires_in)
    except ValueError as error:
        return Sent(job_id, request, refusal=str(error))


def _job_id(given: Any) -> str:
    if not isinstance(given, str) or not re.fullmatch(JOB_ID_PATTERN, given):
        raise Unusable(f"the task id {str(given)[:200]!r} is not a valid job id: it must match {JOB_ID_PATTERN}")
    return given


def _request(args: Any, kwargs: Any) -> Any:
    """The kwargs, or a single positional dict. Anything else is refused later, under the job's id."""
    if not args:
        return _with_floats(kwargs) or {}
    if not kwargs and isinstance(args, list | tuple) and len(args) == 1:
        return _with_floats(args[0])
    return {**(kwargs if isinstance(kwargs, dict) else {}), "args": args}


def _with_floats(request: Any) -> Any:
    """The request with floats in place of decimals: to make the integer that 1e99999999 is takes hours."""
    if not isinstance(request, dict):
        return request
    return {name: float(value) if isinstance(value, Decimal) else value for name, value in request.items()}


def _check_follow_ups(embed: Any) -> None:
    """Raises ValueError for tasks that should run after it: jobs do not support them."""
    follow_ups = [name for name in _AFTER if isinstance(embed, dict) and embed.get(name)]
    if follow_ups:
        raise ValueError(
            f"{', '.join(follow_ups)}: not supported for jobs; use a target instead (celery://task?queue=q)"
        )


def _countdown(eta: Any, now: float) -> float:
    """Seconds until the job is due. Raises ValueError if `eta` is no time."""
    return max(0.0, _seconds_until("eta", eta, now)) if eta else 0.0


def _expires_in(expires: Any, now: float) -> float | None:
    """Seconds until the message expires, if it does. Raises ValueError if it has expired, or `expires` is no time."""
    left = _seconds_until("expires", expires, now) if expires else None
    if left is not None and left <= 0:
        raise ValueError(f"expires: the message expired at {expires}, before it was read")
    return left


def _seconds_until(name: str, given: Any, now: float) -> float:
    try:
        at = datetime.fromisoformat(given)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: given {given!r:.100}; must be a time in ISO 8601") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now
