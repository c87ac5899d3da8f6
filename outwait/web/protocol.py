"""What a caller may send and how slowly: limits of uvicorn's own protocol, which has none for heads and slow callers.

uvicorn's options bound the time between two requests (`timeout_keep_alive`, which we set) and the number of connections
(`limit_concurrency`, which answers 503 to everybody, and only after a whole head). The size of heads is bounded for its
slower parser only. All three are https://github.com/Kludex/uvicorn/issues/157.
"""

from enum import Enum, auto
from typing import Any

import uvicorn
from starlette.responses import Response
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from outwait.config.http_groups import WebSettings
from outwait.web.connections import Connections, affordable
from outwait.web.front import HEADERS
from outwait.web.limits import HEAD_FIELDS, HEAD_MAX, PIPELINED, SPEED
from outwait.web.problems import problem

PART = 16_384
"""Bytes that the parser gets at a time: what it keeps of an unfinished field is counted after each part."""


class _Phase(Enum):
    """What comes next from the caller."""

    REQUEST = auto()  # nothing yet
    HEAD = auto()  # the rest of a head
    BODY = auto()  # the rest of a body
    REST = auto()  # the rest of a body whose request is answered already


class Config(uvicorn.Config):
    """uvicorn's configuration, and our limits.

    Args:
        app: what answers the requests.
        web: the limits.
        options: uvicorn's.
    """

    def __init__(self, app: ASGIApp, web: WebSettings, **options: Any) -> None:
        super().__init__(app, http=Caller, **options)
        self.connections = Connections(web, affordable(web.connections))
        self.read_time = web.read_time


class Caller(HttpToolsProtocol):
    """One connection."""

    def __init__(self, config: Config, *rest: Any, **options: Any) -> None:
        super().__init__(config, *rest, **options)
        self._book = config.connections
        self._patience = config.read_time
        self._phase = _Phase.REQUEST
        self._since = self._moved = self._sent = self.loop.time()
        self._body = self._unsent = 0
        self._raw = self._head = self._fields = 0
        self._refusal: Response | None = None

    def connection_made(self, transport: Any) -> None:
        """Count the connection, or refuse it."""
        super().connection_made(transport)
        if not self._book.admit(self, self.client[0] if self.client else ""):
            self._refuse(_refusal(503, "too_many_connections", "Too many connections", "try again later"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Make room."""
        self._book.leave(self)
        super().connection_lost(exc)

    def make_room(self) -> None:
        """Close at once, for another connection."""
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse what comes. Whatever is neither a body nor ends a request has the size of a head at most."""
        self._moved = self.loop.time()
        for start in range(0, len(data), PART):
            if self.transport.is_closing():
                return
            part = data[start : start + PART]
            self._raw += len(part)
            super().data_received(part)
            if self._raw > HEAD_MAX + PART and not self.transport.is_closing():
                self._refuse(_TOO_LARGE)

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._enter(_Phase.HEAD)
        self._raw = self._head = self._fields = 0

    def on_url(self, url: bytes) -> None:
        """Count it."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count it, also if it comes after a body."""
        self._fields += 1
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin a request. A few may wait behind one that is not answered yet."""
        super().on_headers_complete()
        self._enter(_Phase.BODY)
        if len(self.pipeline) > PIPELINED:
            raise ValueError("too many requests wait for the answer of the first")

    def on_body(self, body: bytes) -> None:
        """Count it."""
        self._raw = 0
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """It is our turn, or the next request's."""
        super().on_message_complete()
        self._enter(_Phase.REQUEST)
        self._settle()

    def on_response_complete(self) -> None:
        """It is the caller's turn, or the turn of a request that waits."""
        super().on_response_complete()
        answered_early = self._phase is _Phase.BODY and self.cycle.response_complete
        self._enter(_Phase.REST if answered_early else self._phase)
        self._settle()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, or too much of it."""
        self._refuse(self._refusal or _refusal(400, "bad_request", "Bad Request", msg))

    def check(self) -> None:
        """Close the connection if its caller takes too long. To be called about once a second."""
        now = self.loop.time()
        if self._stalls(now):
            self.transport.abort()
        elif self.flow.read_paused:
            self._enter(self._phase)  # we do not read: its time begins when we do
        elif not self._works() and now > self._deadline():
            late = self._phase in {_Phase.HEAD, _Phase.BODY}
            self._refuse(_TOO_SLOW if late else None)

    def _deadline(self) -> float:
        match self._phase:
            case _Phase.REQUEST:
                return self._since + max(self._patience, self.timeout_keep_alive)
            case _Phase.HEAD:
                return self._since + self._patience
            case _Phase.BODY:
                return min(self._moved, self._since + self._body / SPEED) + self._patience
            case _Phase.REST:
                return self._since + 3 * self._patience

    def _enter(self, phase: _Phase) -> None:
        self._phase, self._body = phase, 0
        self._since = self._moved = self.loop.time()

    def _works(self) -> bool:
        """Whether a request has arrived as a whole and is not answered yet."""
        running = bool(self.pipeline) or (self.cycle is not None and not self.cycle.response_complete)
        return running and (self._phase is not _Phase.BODY or bool(self.pipeline))

    def _settle(self) -> None:
        if self._works():
            self._book.works(self)
        else:
            self._book.waits(self)

    def _stalls(self, now: float) -> bool:
        """Whether the caller has read nothing of an answer for too long, while nothing is added to it."""
        size = self.transport.get_write_buffer_size()
        if size < self._unsent or not size or not (self.flow.write_paused or self.transport.is_closing()):
            self._sent = now
        self._unsent = size
        return now > self._sent + 3 * self._patience

    def _count(self, size: int) -> None:
        self._head += size
        if self._head > HEAD_MAX or self._fields > HEAD_FIELDS:
            self._refusal = _TOO_LARGE
            raise ValueError("the head is too large")

    def _refuse(self, refusal: Response | None) -> None:
        """Close the connection, with an answer if it is the turn of one."""
        answered = self._phase is _Phase.REST or (self._phase is _Phase.BODY and self.cycle.response_started)
        if refusal and not (answered or self._works() or self.transport.is_closing()):
            headers = [*self.server_state.default_headers, *refusal.raw_headers]
            lines = [STATUS_LINE[refusal.status_code], *(b"%b: %b\r\n" % header for header in headers), b"\r\n"]
            self.transport.write(b"".join(lines) + refusal.body)
        self.transport.close()


def _refusal(status: int, code: str, title: str, detail: str) -> Response:
    retry = {"Retry-After": "1"} if status == 503 else {}
    return problem(status, code, title, detail, {**HEADERS, **retry, "Connection": "close"})


_TOO_LARGE = _refusal(
    431,
    "request_header_fields_too_large",
    "Request Header Fields Too Large",
    f"the head of a request may have {HEAD_MAX} bytes and {HEAD_FIELDS} fields",
)
_TOO_SLOW = _refusal(408, "request_timeout", "Request Timeout", "the request did not arrive in time")
