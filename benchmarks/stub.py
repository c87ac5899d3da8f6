"""A provider that costs next to nothing: speaks as much of Unless as a poll needs, in one process, on loopback.

The sandbox checks, counts and remembers each request; that is its use in tests, and too slow to measure others by.
Every answer to a poll says PENDING. Run alone: `python benchmarks/stub.py --latency 0.005`; it prints its address.

| request                       | answer                                                   |
|-------------------------------|----------------------------------------------------------|
| GET …/ai/async/answer         | PENDING, after `latency` seconds                         |
| POST …/ai/async/query         | a question id, after `latency` seconds                   |
| GET /count                    | polls and submits that came so far                       |
| GET /note                     | begins to note when the first poll of each id comes      |
| GET /arrivals                 | what was noted: id -> seconds since 1970; ends the noting |
"""

import argparse
import asyncio
import json
import re
import time
from collections.abc import Callable

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_END = b"\r\n\r\n"
_POLL = b"/ai/async/answer?questionId="


def _answer(document: object) -> bytes:
    body = json.dumps(document).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


PENDING = _answer({"questionId": "q", "status": "PENDING"})


class Counts:
    """What came so far. `arrivals` is None while nothing is noted."""

    def __init__(self, latency: float) -> None:
        self.latency = latency
        self.polls = 0
        self.submits = 0
        self.arrivals: dict[str, float] | None = None

    def poll(self, path: bytes) -> bytes:
        """A poll came."""
        self.polls += 1
        if self.arrivals is not None:
            self.arrivals.setdefault(path.partition(_POLL)[2].decode(), time.time())
        return PENDING

    def submit(self) -> bytes:
        """A submit came."""
        self.submits += 1
        return _answer({"questionId": f"s-{self.submits}"})

    def tell(self) -> bytes:
        """The counts."""
        return _answer({"polls": self.polls, "submits": self.submits})

    def note(self) -> bytes:
        """Record arrivals from now on."""
        self.arrivals = {}
        return self.tell()

    def stop_recording(self) -> bytes:
        """The recorded arrivals. Recording ends."""
        recorded, self.arrivals = self.arrivals, None
        return _answer(recorded or {})


class Connection(asyncio.Protocol):
    """One client's connection: requests one after the other, none in the same segment as the next."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._controls: dict[bytes, Callable[[], bytes]] = {
            b"/count": counts.tell,
            b"/note": counts.note,
            b"/arrivals": counts.stop_recording,
        }
        self._received = b""
        self._transport: asyncio.Transport
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """A part of a request, or a complete one, arrived."""
        request = self._received + data
        if not _whole(request):
            self._received = request
            return
        self._received = b""
        path = request.split(b" ", 2)[1]
        if control := self._controls.get(path):
            self._write(control())
            return
        answer = self._counts.poll(path) if _POLL in path else self._counts.submit()
        self._loop.call_later(self._counts.latency, self._write, answer)

    def _write(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


def _whole(request: bytes) -> bool:
    head, end, body = request.partition(_END)
    if not end:
        return False
    length = None if head.startswith(b"GET ") else _LENGTH.search(head)
    return length is None or len(body) >= int(length[1])


async def serve(port: int, latency: float) -> None:
    counts = Counts(latency)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(counts), "127.0.0.1", port, backlog=4096)
    host, taken = server.sockets[0].getsockname()[:2]
    print(f"http://{host}:{taken}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="0 takes a free port")
    parser.add_argument("--latency", type=float, default=0.005, help="seconds before each answer")
    options = parser.parse_args()
    asyncio.run(serve(options.port, options.latency))
