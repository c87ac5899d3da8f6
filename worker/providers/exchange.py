"""The requests of one step to a provider: sends them, counts them, and turns failures into errors."""

import email.utils
import math
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol

import httpx

from outwait.worker.model import json_text
from outwait.worker.model.counts import result_of
from outwait.worker.model.errors import (
    AnswerLost,
    ExternalIdUnknown,
    NotSent,
    ProviderError,
    RateLimited,
    Rejected,
    ResultTooLarge,
    Unauthorized,
    Unavailable,
    Unreadable,
)
from outwait.worker.model.external_ids import is_external_id
from outwait.worker.net.redaction import redact, redact_bytes

LONGEST_WAIT = 30 * 86400.0
"""Longest wait in seconds that a header can name. Whoever waits has a limit of its own, which is shorter."""

ID_DIGITS = 64
"""Digits of the longest number that is taken for an external id."""


class Count(StrEnum):
    """The line of the job's ledger in which a request is counted."""

    SUBMITS = "submits"
    POLLS = "polls"
    FETCHES = "fetches"  # other requests of a poll: results read, files uploaded
    NONE = ""  # not counted: an access token belongs to no job, and a file's source is not the provider


_WARNINGS = "outwait.warnings"
"""Extension of an answer: the warnings of its exchange, each once."""


class Sender(Protocol):
    """Sends requests: the connections of the process (`outwait.worker.net.http.Http`)."""

    async def send(self, request: httpx.Request, *, timeout: float, fresh: bool = False) -> httpx.Response:
        """Send and read the whole answer. Raises NotSent, AnswerLost or ResultTooLarge."""
        ...

    def stream(self, request: httpx.Request, *, timeout: float) -> AbstractAsyncContextManager[httpx.Response]:
        """Send, and yield the answer before its body is read. Raises NotSent or AnswerLost."""
        ...


class RequestCounts(Protocol):
    """Counts requests for /metrics: the tally of the process."""

    def request(self, provider: str, kind: str, result: str, seconds: float) -> None:
        """Count one request that has ended."""
        ...


class TokenStore(Protocol):
    """Stores the access token that all workers share. One of them renews it."""

    async def token(self, name: str) -> tuple[str, float] | None:
        """The token and the seconds for which it is still valid, or None."""
        ...

    async def put_token(self, name: str, token: str, *, ttl_s: float) -> None:
        """Store a token for `ttl_s` seconds."""
        ...

    async def drop_token(self, name: str, token: str) -> None:
        """Delete this token, unless another one has replaced it."""
        ...

    async def lock_token(self, name: str, *, ttl_s: float) -> bool:
        """Try to become the worker that renews, for at most `ttl_s` seconds. False: another worker is renewing it."""
        ...

    async def unlock_token(self, name: str) -> None:
        """End the renewal."""
        ...


class Exchange:
    """Sends the requests of one step.

    Args:
        sender: the connections of the process.
        tokens: the shared access tokens.
        time_limit: seconds for one request.
        provider: name of the provider, for the tally.
        tally: counts the requests for /metrics; None counts nothing.

    Attributes:
        ledger: requests really sent.
        pause: seconds for which the provider wants no more requests of this rate group, or None. The engine passes it
            on to the governor after the step.
        first_poll_in: seconds that the accepting answer to a submit asks to wait (`Retry-After`), or None.
    """

    __slots__ = (
        "_provider", "_sender", "_tally", "_warnings", "first_poll_in", "ledger", "pause", "time_limit", "tokens",
    )  # fmt: skip

    def __init__(
        self,
        sender: Sender,
        tokens: TokenStore,
        time_limit: float,
        provider: str = "",
        tally: RequestCounts | None = None,
    ) -> None:
        self._sender = sender
        self._provider = provider
        self._tally = tally
        self.tokens = tokens
        self.time_limit = time_limit
        self.ledger: Counter[Count] = Counter()
        self.pause: float | None = None
        self.first_poll_in: float | None = None
        self._warnings: dict[str, None] = {}

    @property
    def warning(self) -> str:
        """What was changed in answers so that they could be read, or nothing."""
        return "; ".join(self._warnings)

    async def send(self, request: httpx.Request, count: Count, *, timeout: float | None = None) -> httpx.Response:
        """Send one request and count it. All but GETs use a new connection: a stale one may lose the answer.

        Raises:
            NotSent: it certainly never left; it is not counted.
            AnswerLost: it may have left, and no answer came.
            ResultTooLarge: the answer is larger than the limit.
        """
        self._count(count, 1)
        began, result = time.monotonic(), "stopped"
        try:
            answer = await self._sender.send(request, timeout=timeout or self.time_limit, fresh=request.method != "GET")
            answer.extensions[_WARNINGS] = self._warnings
            result = result_of(answer.status_code)
            if count is Count.SUBMITS and answer.is_success:
                self.first_poll_in = retry_after(answer)
        except NotSent:
            self._count(count, -1)
            result = "not_sent"
            raise
        except AnswerLost:
            result = "lost"
            raise
        except ResultTooLarge:
            result = "too_large"
            raise
        finally:
            if self._tally is not None:
                self._tally.request(self._provider, count or "other", result, time.monotonic() - began)
        return answer

    def stream(self, request: httpx.Request, *, timeout: float) -> AbstractAsyncContextManager[httpx.Response]:
        """Read something large from another server; it is not counted. Raises NotSent or AnswerLost."""
        return self._sender.stream(request, timeout=timeout)

    def _count(self, count: Count, number: int) -> None:
        if count is not Count.NONE:
            self.ledger[count] += number


def check(
    response: httpx.Response, *, submit: bool = False, text: Callable[[Any], str] | None = None
) -> httpx.Response:
    """Return a 2xx answer; for any other status raise its error, with the provider's own text if there is one.

    Args:
        response: the answer.
        submit: whether it answers a submit. Then 404 cannot mean an unknown external id; the URL is wrong.
        text: reads the provider's error text from the body (its JSON, or None). None: `error_text`, the usual forms.
    """
    status = response.status_code
    if 200 <= status < 300:
        return response
    kind = _error_class(status, submit=submit)
    words = redact((text or error_text)(decoded(response)))[:300]
    message = f"{response.request.method} {response.request.url.path} answered {status}"
    if words:
        message += f": {words}"
    raise kind(message, retry_after=retry_after(response), detail=_shown(response), status=status)


def _error_class(status: int, *, submit: bool) -> type[ProviderError]:
    if status == 429:
        return RateLimited
    if status in (401, 403):
        return Unauthorized
    if status in (404, 410) and not submit:
        return ExternalIdUnknown
    if status == 408 or status >= 500:
        return Unavailable
    return Rejected if status >= 400 else Unreadable  # no provider documents redirects


def error_text(body: Any) -> str:
    """The provider's own error text in one of the usual forms, shortened and without secrets; "" if there is none."""
    if not isinstance(body, dict):
        return ""
    errors = body.get("errors")
    first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else body
    words = [first.get("errorCode") or first.get("code") or body.get("error")]
    words += [next((first[name] for name in _TEXTS if first.get(name)), body.get("error_description"))]
    return redact(" ".join(word for word in words if isinstance(word, str)))[:300]


_TEXTS = ("message", "errorMessage", "error_description")


def decoded(response: httpx.Response) -> Any:
    """The answer's JSON, or None if it cannot be read. Warnings as in `json_data`."""
    with suppress(ResultTooLarge):
        return json_data(response)
    return None


def json_data(response: httpx.Response) -> Any:
    """The answer's JSON, or None if it is not JSON. What had to be changed in it is a warning of its exchange.

    A byte order mark before it is ignored (RFC 8259 allows that). Raises ResultTooLarge if it is nested too deeply.
    """
    try:
        answer = json_text.parsed(response.content)
    except json_text.TooDeep as error:
        raise ResultTooLarge(f"the answer of {response.request.url.path} cannot be read: {error}") from None
    except ValueError:
        return None
    if answer.warning:
        response.extensions.get(_WARNINGS, {})[answer.warning] = None
    return answer.data


def json_object(response: httpx.Response) -> dict[str, Any]:
    """The answer's JSON object. Raises Unreadable for anything else, HTML pages included, and ResultTooLarge."""
    body = json_data(response)
    if isinstance(body, dict):
        return body
    kind = redact(response.headers.get("content-type", "no content type"), 100)
    raise Unreadable(
        f"{response.request.url.path} answered {response.status_code} with {kind} where a JSON object was expected",
        detail=_shown(response),
        status=response.status_code,
    )


def _shown(response: httpx.Response) -> str | None:
    """The beginning of the body for people. Its charset is not believed: Python knows some that are no texts."""
    return redact_bytes(response.content, 2000)[:500] or None


def external_id(value: Any) -> str | None:
    """The external id that a field of a JSON document names, as text: a text, or a positive whole number, kept exactly.

    Anything else is None: a fraction has lost digits, 0 stands for nothing, and a text must have an id's form.
    """
    match value:
        case str():
            return value if is_external_id(value) else None
        case bool():
            return None
        case int() if 0 < value < 10**ID_DIGITS:
            return str(value)
        case _:
            return None


def retry_after(response: httpx.Response) -> float | None:
    """Seconds to wait according to `Retry-After` (a number or a date), or None. At most LONGEST_WAIT."""
    seconds = header_seconds(response, "retry-after")
    if seconds is not None:
        return seconds
    at = _date(response.headers.get("retry-after", ""))
    if at is None:
        return None
    # Measured by the server's own clock, since ours may be wrong.
    now = _date(response.headers.get("date", ""))
    return _bounded(at - (time.time() if now is None else now))


def seconds_until(response: httpx.Response, when: Any) -> float | None:
    """Seconds from the answer until a time in ISO 8601 that it names, by the server's own clock.

    None if it names none, or one that is past: what the server still knows has not expired.
    """
    try:
        at = datetime.fromisoformat(when)
    except (TypeError, ValueError):
        return None
    now = _date(response.headers.get("date", ""))
    left = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - (time.time() if now is None else now)
    return left if left > 0 else None


def header_seconds(response: httpx.Response, name: str) -> float | None:
    """The seconds that a header names, 0 to LONGEST_WAIT; None if it is missing or no number."""
    return seconds_of(response.headers.get(name))


def seconds_of(value: Any) -> float | None:
    """Seconds as a number or as its text, 0 to LONGEST_WAIT; None for anything else. It never raises."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return _bounded(seconds) if math.isfinite(seconds) else None


def _bounded(seconds: float) -> float:
    return min(max(0.0, seconds), LONGEST_WAIT)


def _date(value: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):  # what Python's parser raises for odd dates
        return None
