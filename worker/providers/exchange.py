"""One step's conversation with a provider: sends its requests, counts them, and sorts what goes wrong."""

import email.utils
import time
from collections import Counter
from enum import StrEnum
from typing import Any, Protocol

import httpx
import msgspec

from worker.errors import (
    ExternalIdUnknown,
    ProviderError,
    RateLimited,
    Rejected,
    Unauthorized,
    Unavailable,
    Unreadable,
)


class Count(StrEnum):
    """Which line of the job's ledger a request adds to."""

    SUBMITS = "submits"
    POLLS = "polls"
    FETCHES = "fetches"
    NONE = ""  # tokens: they belong to no one job


class Sender(Protocol):
    """What sends requests: the process's connections (`worker.http.Http`)."""

    async def send(self, request: httpx.Request, *, timeout: float, fresh: bool = False) -> httpx.Response:
        """Send and read the whole answer. Raises NotSent, AnswerLost or ResultTooLarge."""
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
    """

    __slots__ = ("_sender", "ledger", "time_limit", "tokens")

    def __init__(self, sender: Sender, tokens: TokenStore, time_limit: float) -> None:
        self._sender = sender
        self.tokens = tokens
        self.time_limit = time_limit
        self.ledger: Counter[Count] = Counter()

    async def send(self, request: httpx.Request, count: Count, *, timeout: float | None = None) -> httpx.Response:
        """Send one request and count it. Submits use a fresh connection, so that a stale one loses no answer.

        Raises:
            NotSent: it certainly never left (and is not counted).
            AnswerLost: it left, perhaps.
            ResultTooLarge: the answer is over the cap.
        """
        self.ledger[count] += 1
        fresh = count is Count.SUBMITS
        try:
            return await self._sender.send(request, timeout=timeout or self.time_limit, fresh=fresh)
        except ProviderError as error:
            if error.code == "not_sent":
                self.ledger[count] -= 1
            raise


def check(response: httpx.Response, *, text: str = "") -> httpx.Response:
    """Give back a 2xx answer, or raise what its status means. `text` is the provider's own error text."""
    status = response.status_code
    if 200 <= status < 300:
        return response
    message = f"{response.request.method} {response.request.url.path} answered {status}" + (f": {text}" if text else "")
    wait = retry_after(response)
    detail = response.text[:500]
    if status == 429:
        raise RateLimited(message, retry_after=wait, detail=detail)
    if status in (401, 403):
        raise Unauthorized(message, detail=detail)
    if status == 404:
        raise ExternalIdUnknown(message, detail=detail)
    if status == 408 or status >= 500:
        raise Unavailable(message, retry_after=wait, detail=detail)
    raise Rejected(message, detail=detail)


def json_object(response: httpx.Response) -> dict[str, Any]:
    """The answer's JSON object. Raises Unreadable for anything else, HTML pages included."""
    try:
        body = msgspec.json.decode(response.content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = None
    if isinstance(body, dict):
        return body
    kind = response.headers.get("content-type", "no content type")
    raise Unreadable(
        f"{response.request.url.path} answered {response.status_code} with {kind} where a JSON object was expected",
        detail=response.text[:500],
    )


def retry_after(response: httpx.Response) -> float | None:
    """Seconds that the answer asks us to wait (`Retry-After` in seconds or as a date), or None."""
    value = response.headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
