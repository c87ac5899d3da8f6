"""A TCP proxy between one worker and Redis: it stops the worker at an exact point, or loses exactly one reply."""

import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from outwait.worker.store.keys import Keys
from outwait.worker.store.scripts import Scripts


class Point(Enum):
    """Where a command is stopped."""

    BEFORE = "Redis never gets it"
    AFTER = "Redis has done it, and the worker waits for the reply"
    LOST = "Redis has done it, and the connection breaks instead of the reply"


@dataclass
class Stop:
    """One order: `reached` is set when a command with all the marks has come to its point; a loss happens once."""

    point: Point
    marks: tuple[bytes, ...]
    reached: threading.Event = field(default_factory=threading.Event)

    def meets(self, data: bytes) -> bool:
        return all(mark in data for mark in self.marks) and not (self.point is Point.LOST and self.reached.is_set())


class Wire:
    """The proxy. `url` is what the worker gets for Redis's."""

    def __init__(self, redis_url: str, namespace: str) -> None:
        parts = urlsplit(redis_url)
        self._server = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = parts._replace(netloc=parts.netloc.rpartition(":")[0] + f":{port}").geturl()
        self._shas = Scripts(None, Keys(namespace))._shas
        self._stops: list[Stop] = []
        self._closed = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def stop(self, point: Point, script: str, *marks: str | bytes) -> Stop:
        """Stop this script at a point, if its arguments hold all the marks."""
        raw = (mark.encode() if isinstance(mark, str) else mark for mark in marks)
        self._stops.append(Stop(point, (self._shas[script].encode(), *raw)))
        return self._stops[-1]

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(self._server) as server:
            stops: list[Stop] = []
            replies = threading.Thread(target=self._reply, args=[server, client, stops], daemon=True)
            replies.start()
            while data := client.recv(1 << 20):
                stop = next((order for order in self._stops if order.meets(data)), None)
                if stop and stop.point is Point.BEFORE:
                    stop.reached.set()
                    self._closed.wait()
                    break
                if stop:
                    stops.append(stop)
                server.sendall(data)
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            replies.join()

    def _reply(self, server: socket.socket, client: socket.socket, stops: list[Stop]) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 20):
                if not stops:
                    client.sendall(data)
                    continue
                stops[0].reached.set()
                if stops[0].point is Point.AFTER:
                    self._closed.wait()
                break
            client.shutdown(socket.SHUT_RDWR)
