"""The process's connections to providers: httpx's types over aiohttp's connections.

httpx's own pool costs ten times the CPU at 64 requests in flight. The existing httpx transport over aiohttp reports a
connection that broke after the request left as a failed connect. For us that difference can be a second payment, so
aiohttp's errors are classified here.
"""

import socket
import ssl
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import lru_cache
from typing import Any

import aiohttp
import httpx
from aiohttp.abc import AbstractStreamWriter
from pydantic import SecretStr
from yarl import URL

from outwait.worker.model.errors import AddressRefused, AnswerLost, NotSent, ProviderError, ResultTooLarge, Withheld
from outwait.worker.net.departure import DEPARTURE
from outwait.worker.net.outbound import Guard
from outwait.worker.net.redaction import redact

CONNECT_TIMEOUT = 10.0
"""Seconds for DNS, TCP and TLS. A request that is not connected by then certainly never left."""

_AGENT = {"User-Agent": "outwait"}

IDLE_CONNECTION = 30.0
"""Seconds for which an unused connection is kept for the next poll."""


class Http:
    """The connections of one process. Build it inside the event loop that uses it.

    No proxy of the environment is used. The one of the settings gets what `send` sends to an `https` address: it opens
    a tunnel for the request, so it can neither answer in the provider's place nor repeat it. What `stream` asks for
    goes out directly, since the proxy would resolve the host's name behind the guard's back.

    Args:
        body_max: bytes of the largest answer that is read, after decompression.
        verify: how servers' certificates are checked.
        guard: where `stream` may connect to.
        proxy: URL of the proxy for `send`.
    """

    def __init__(
        self,
        *,
        body_max: int,
        verify: ssl.SSLContext | None = None,
        guard: Guard | None = None,
        proxy: SecretStr | None = None,
    ) -> None:
        self._body_max = body_max
        self._proxy = proxy.get_secret_value() if proxy else None
        self._guard = guard or Guard()
        self._kept = _session(verify, keepalive_timeout=IDLE_CONNECTION)
        self._fresh = _session(verify, force_close=True)
        self._guarded = _session(verify, keepalive_timeout=IDLE_CONNECTION, socket_factory=self._socket)

    async def send(self, request: httpx.Request, *, timeout: float, fresh: bool = False) -> httpx.Response:
        """Send a request and read its whole answer.

        Args:
            request: its body is sent as it is; a stream is sent as it comes.
            timeout: seconds for the whole exchange.
            fresh: use a new connection. The server may close a kept one at the moment when we send, and then it is
                unknown whether the request was processed.

        Raises:
            NotSent: it certainly never left.
            Withheld: the same; the step that runs may send nothing more.
            AnswerLost: it may have left, and no complete answer came.
            ResultTooLarge: the answer is larger than the limit.

        An answer that says that the request was refused is one, even if its body cannot be read: it is empty then.
        """
        try:
            proxy = self._proxy if request.url.scheme == "https" else None
            async with _ask(self._fresh if fresh else self._kept, request, timeout, proxy) as answer:
                return _response(answer, await self._content(answer, request), request)
        except _BROKEN as error:
            raise _classified(error, request) from error

    @asynccontextmanager
    async def stream(self, request: httpx.Request, *, timeout: float) -> AsyncIterator[httpx.Response]:
        """Send a request to a URL that a producer gave, and yield the answer before its body is read (`aiter_raw()`).

        However large the body is, only a small part of it is in memory.

        Raises:
            AddressRefused: no address of the host is public or allowed.
            NotSent, AnswerLost: as `send`; also while the body is read.
        """
        session = self._kept if self._guard.allows(_url(request).raw_host or "") else self._guarded
        try:
            async with _ask(session, request, timeout) as answer:
                body = _Unread(answer, request)
                yield httpx.Response(answer.status, headers=_headers(answer), stream=body, request=request)
        except _BROKEN as error:
            raise _classified(error, request) from error

    async def close(self) -> None:
        """Close every connection."""
        for session in (self._kept, self._fresh, self._guarded):
            await session.close()

    def _socket(self, place: aiohttp.AddrInfoType) -> socket.socket:
        """Called directly before each connection, after DNS, with each address. Refuses what the guard refuses."""
        family, kind, protocol, _, address = place
        if not self._guard.permits(str(address[0])):
            raise _NotPublic
        return socket.socket(family, kind, protocol)

    async def _content(self, answer: aiohttp.ClientResponse, request: httpx.Request) -> bytes:
        try:
            return await self._read(answer, request)
        except (*_BROKEN, ResultTooLarge):
            if answer.status < 400:
                raise
            answer.close()
            return b""

    async def _read(self, answer: aiohttp.ClientResponse, request: httpx.Request) -> bytes:
        length = answer.content_length
        if length is not None and length <= self._body_max and "content-encoding" not in answer.headers:
            return await answer.read()
        body = bytearray()
        async for chunk in answer.content.iter_chunked(65536):
            body += chunk
            if len(body) > self._body_max:
                answer.close()
                raise ResultTooLarge(
                    f"{request.url.path} answered with more than {self._body_max} bytes (OUTWAIT_STORE__RESULT_MAX)"
                )
        return bytes(body)


class _NotPublic(PermissionError):
    """The guard refused an address."""

    def __str__(self) -> str:
        return "not a public address"


class _ClosedBefore(aiohttp.ClientError):
    """The other side closed the connection while a request waited to leave."""


_BROKEN = (aiohttp.ClientError, TimeoutError, OSError, ValueError)


class _Unread(httpx.AsyncByteStream):
    """A body that is read as it comes."""

    def __init__(self, answer: aiohttp.ClientResponse, request: httpx.Request) -> None:
        self._answer = answer
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._answer.content.iter_chunked(65536):
                yield chunk
        except _BROKEN as error:
            raise _classified(error, self._request) from error


class _NoTunnel(aiohttp.ClientError):
    """The proxy opened no tunnel, so that the request itself certainly never left."""


_NEVER_LEFT = (
    _NoTunnel,
    _ClosedBefore,
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
)


class _Connector(aiohttp.TCPConnector):
    """Tells what breaks while a tunnel is opened from what breaks in it; aiohttp raises the same errors for both."""

    async def _create_proxy_connection(self, *args: Any, **options: Any) -> Any:
        try:
            return await super()._create_proxy_connection(*args, **options)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ClientError, OSError) as error:
            said = f"{error.status} {error.message}" if isinstance(error, aiohttp.ClientResponseError) else str(error)
            raise _NoTunnel(f"the proxy opened no tunnel: {said}") from error


class _Request(aiohttp.ClientRequest):
    """A request that asks, on a connection that stands, whether it may leave. Connecting may take seconds."""

    async def send(self, conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        """Called by aiohttp when it is connected."""
        if (departure := DEPARTURE.get()) is not None:
            await departure.permit()
        if conn.transport is None or conn.transport.is_closing():
            raise _ClosedBefore("the connection was closed before anything was sent")
        return await super().send(conn)

    async def write_bytes(self, writer: AbstractStreamWriter, conn: aiohttp.connector.Connection, *rest: Any) -> None:
        """Called by aiohttp in a task of its own, with the headers not yet written if there is a body."""
        try:
            if (departure := DEPARTURE.get()) is not None:
                departure.check()
        except Withheld as error:
            if conn.protocol is not None:
                conn.protocol.set_exception(error)
            return
        await super().write_bytes(writer, conn, *rest)


def _session(verify: ssl.SSLContext | None, **options: Any) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=_Connector(limit=0, ssl=verify or True, **options),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=_AGENT,
        middlewares=[_no_repetition],
        request_class=_Request,
    )


async def _no_repetition(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Stop aiohttp from repeating a GET whose connection broke: that poll comes too soon, and is not counted."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientError(str(error)) from error


def _ask(
    session: aiohttp.ClientSession, request: httpx.Request, timeout: float, proxy: str | None = None
) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
    body = _body(request)
    headers = request.headers.multi_items()
    if not isinstance(body, bytes | None):  # aiohttp sets this header itself
        headers = [pair for pair in headers if pair[0] != "transfer-encoding"]
    return session.request(
        request.method,
        _url(request),
        headers=headers,
        data=body,
        timeout=_limits(timeout),
        allow_redirects=False,
        proxy=proxy,
    )


@lru_cache(maxsize=64)
def _limits(timeout: float) -> aiohttp.ClientTimeout:
    # The time-out for connecting is shorter than the total: otherwise a failed connect would look like a lost answer.
    return aiohttp.ClientTimeout(total=timeout, connect=min(CONNECT_TIMEOUT, timeout * 0.8))


def _url(request: httpx.Request) -> URL:
    return URL(str(request.url), encoded=True)


def _body(request: httpx.Request) -> bytes | AsyncIterable[bytes] | None:
    stream = request.stream
    if isinstance(stream, httpx.ByteStream):
        return request.read() or None
    if not isinstance(stream, AsyncIterable):
        raise TypeError("a streamed request body must be asynchronous")
    return stream


def _response(answer: aiohttp.ClientResponse, content: bytes, request: httpx.Request) -> httpx.Response:
    """Like `httpx.Response(content=…)`, but without its decoders, which cost a twentieth of a poll."""
    body = httpx.ByteStream(content)
    response = httpx.Response(answer.status, headers=_headers(answer), stream=body, request=request)
    response._content = content  # noqa: SLF001 - see above
    response.is_closed = response.is_stream_consumed = True
    return response


def _headers(answer: aiohttp.ClientResponse) -> list[tuple[bytes, bytes]]:
    # The body is decompressed already; httpx would try to decompress it again.
    return [pair for pair in answer.raw_headers if pair[0].lower() != b"content-encoding"]


def _classified(error: Exception, request: httpx.Request) -> ProviderError:
    where = f"{request.method} {request.url.host}{request.url.path}"
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, _NotPublic):
        return AddressRefused(
            f"{request.url.host} has no public address; the operator can allow it in OUTWAIT_OUTBOUND__ALLOW"
        )
    cause = redact(" ".join(str(error).split())) or type(error).__name__
    if isinstance(error, _NEVER_LEFT):
        return NotSent(f"{where} was not sent: {cause}")
    return AnswerLost(f"{where} got no complete answer: {cause}")
