"""One step's conversation with a provider: sends its requests, counts them, and sorts what goes wrong."""

import email.utils
import math
import time
from collections import Counter
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Any, Protocol

import httpx
import msgspec

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
from outwait.worker.net.redaction import redact


class Count(StrEnum):
    """Which line of the job's ledger a request adds to."""

    SUBMITS = "submits"
    POLLS = "polls"
    FETCHES = "fetches"  # whatever else a poll needs of the provider: results read, files uploaded
    NONE = ""  # not counted: access tokens belong to no one job, and a file's source is not the provider


class Sender(Protocol):
    """What sends requests: the process's connections (`outwait.worker.net.http.Http`)."""

    async def send(self, request: httpx.Request, *, timeout: float, fresh: bool = False) -> httpx.Response:
        """Send and read the whole answer. Raises NotSent, AnswerLost or ResultTooLarge."""
        ...

    def stream(self, request: httpx.Request, *, timeout: float) -> AbstractAsyncContextManager[httpx.Response]:
        """Send and hand out the answer unread. Raises NotSent or AnswerLost."""
        ...


class RequestCounts(Protocol):
    """Where requests are counted for /metrics: the process's tally."""

    def request(self, provider: str, kind: str, result: str, seconds: float) -> None:
        """One request is over."""
        ...


class TokenStore(Protocol):
    """Where workers share an access token; one of them renews it."""

    async def token(self, name: str) -> tuple[str, float] | None:
        """The token and the seconds for which it is still good, or None."""
        ...

    async def put_token(self, name: str, token: str, *, ttl: float) -> None:
        """Keep a token for `ttl` seconds."""
        ...

    async def drop_token(self, name: str, token: str) -> None:
        """Forget this token, unless another one stands there already."""
        ...

    async def lock_token(self, name: str, *, ttl: float) -> bool:
        """Become the one who renews, for at most `ttl` seconds. False: somebody else is at it."""
        ...

    async def unlock_token(self, name: str) -> None:
        """Done renewing."""
        ...


class Exchange:
    """Sends the requests of one step.

    Args:
        sender: the process's connections.
        tokens: shared access tokens.
        time_limit: seconds for one request.
        provider: whom the requests go to, for the tally.
        tally: counts them for /metrics; None counts nothing.

    Attributes:
        ledger: requests really sent.
        pause: seconds for which the provider wants no request at all of this rate group, or None; the engine reads
            it after the step and tells the governor.
    """

    __slots__ = ("_provider", "_sender", "_tally", "ledger", "pause", "time_limit", "tokens")

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

    async def send(self, request: httpx.Request, count: Count, *, timeout: float | None = None) -> httpx.Response:
        """Send one request and count it. All but GETs use a fresh connection, so that a stale one loses no answer.

        Raises:
            NotSent: it certainly never left (and is not counted).
            AnswerLost: it left, perhaps.
            ResultTooLarge: the answer is over the cap.
        """
        self._count(count, 1)
        began, result = time.monotonic(), "stopped"
        try:
            answer = await self._sender.send(request, timeout=timeout or self.time_limit, fresh=request.method != "GET")
            result = result_of(answer.status_code)
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
        """Read something large that is not the provider's, and is not counted. Raises NotSent or AnswerLost."""
        return self._sender.stream(request, timeout=timeout)

    def _count(self, count: Count, number: int) -> None:
        if count is not Count.NONE:
            self.ledger[count] += number


def check(response: httpx.Response, *, submit: bool = False) -> httpx.Response:
    """Give back a 2xx answer, or raise what its status means, in the provider's own words where it has any.

    Args:
        response: the answer.
        submit: there is no external id yet that could be unknown, so that 404 means a wrong address.
    """
    status = response.status_code
    if 200 <= status < 300:
        return response
    kind = _meaning(status, submit=submit)
    text = error_text(decoded(response))
    message = f"{response.request.method} {response.request.url.path} answered {status}" + (f": {text}" if text else "")
    raise kind(
        message, retry_after=retry_after(response), detail=redact(response.text[:2000])[:500] or None, status=status
    )


def _meaning(status: int, *, submit: bool) -> type[ProviderError]:
    if status == 429:
        return RateLimited
    if status in (401, 403):
        return Unauthorized
    if status in (404, 410) and not submit:
        return ExternalIdUnknown
    if status == 408 or status >= 500:
        return Unavailable
    return Rejected if status >= 400 else Unreadable  # nobody documents a redirect; it leads away from the API


def error_text(body: Any) -> str:
    """The provider's own error text, in any of the shapes that APIs use, shortened and without secrets; or ""."""
    if not isinstance(body, dict):
        return ""
    errors = body.get("errors")
    first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else body
    words = [first.get("errorCode") or first.get("code") or body.get("error")]
    words += [next((first[name] for name in _TEXTS if first.get(name)), body.get("error_description"))]
    return redact(" ".join(word for word in words if isinstance(word, str)))[:300]


_TEXTS = ("message", "errorMessage", "error_description")


def decoded(response: httpx.Response) -> Any:
    """The answer's JSON, or None if it is none."""
    try:
        return msgspec.json.decode(response.content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def json_object(response: httpx.Response) -> dict[str, Any]:
    """The answer's JSON object. Raises Unreadable for anything else, HTML pages included."""
    body = decoded(response)
    if isinstance(body, dict):
        return body
    kind = response.headers.get("content-type", "no content type")
    raise Unreadable(
        f"{response.request.url.path} answered {response.status_code} with {kind} where a JSON object was expected",
        detail=redact(response.text[:2000])[:500] or None,
        status=response.status_code,
    )


def retry_after(response: httpx.Response) -> float | None:
    """Seconds that the answer asks us to wait (`Retry-After` in seconds or as a date), or None."""
    value = response.headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        pass
    else:
        return max(0.0, seconds) if math.isfinite(seconds) else None
    at = _date(value)
    if at is None:
        return None
    # Counted by the clock of who wrote the date: ours may be wrong.
    now = _date(response.headers.get("date", ""))
    return max(0.0, at - (time.time() if now is None else now))


def _date(value: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(value).timestamp()
    except ValueError:
        return None
