"""`Client`: every method of `AsyncClient` for programs without an event loop."""

import asyncio
import os
import select
from collections.abc import Callable, Coroutine
from functools import partial, wraps
from selectors import DefaultSelector
from threading import Thread
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar
from weakref import ref

from outwait.client.asynchronous import AsyncClient

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(
    method: Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["Client", P], T]:
    """The same method, for a caller who waits for it."""

    @wraps(method)
    def call(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(lambda client: method(client, *args, **kwargs))

    return call


class Client:
    """Enqueues jobs, looks at them, waits for them and decides about them. Threads may share it.

    It runs an `AsyncClient`, whose methods it has, in a thread of its own. A process that was forked off gets its own
    connections.

    Args:
        address: `redis://…` (or `rediss://`, `unix://`), or `http://…` (or `https://`) of a web process. Without one
            the store that the OUTWAIT_* settings name. Over Redis the other settings count too: the namespace has
            to be the workers' own.
        key: an API key; for HTTP, and only for HTTP.

    Raises:
        ValueError: an API key is missing, or of no use.
        ConfigError: a setting is wrong.
    """

    def __init__(self, address: str | None = None, *, key: str | None = None) -> None:
        self._make = partial(AsyncClient, address, key=key)
        self._start()
        os.register_at_fork(after_in_child=partial(self._leave_to_parent, ref(self)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections and end the thread."""
        self._run(AsyncClient.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    enqueue = _blocking(AsyncClient.enqueue)
    enqueue_many = _blocking(AsyncClient.enqueue_many)
    job = _blocking(AsyncClient.job)
    jobs = _blocking(AsyncClient.jobs)
    wait = _blocking(AsyncClient.wait)
    result = _blocking(AsyncClient.result)
    timeline = _blocking(AsyncClient.timeline)
    deliveries = _blocking(AsyncClient.deliveries)
    cancel = _blocking(AsyncClient.cancel)
    resolve = _blocking(AsyncClient.resolve)
    repoll = _blocking(AsyncClient.repoll)
    replay = _blocking(AsyncClient.replay)
    dead = _blocking(AsyncClient.dead)
    replay_dead = _blocking(AsyncClient.replay_dead)
    pause = _blocking(AsyncClient.pause)
    resume = _blocking(AsyncClient.resume)

    def _start(self) -> None:
        self._client = self._make()
        self._process = os.getpid()
        self._selector = DefaultSelector()
        self._loop = asyncio.SelectorEventLoop(self._selector)
        self._thread = Thread(target=self._loop.run_forever, name="outwait-client", daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[AsyncClient], Coroutine[Any, Any, T]]) -> T:
        if self._process != os.getpid():
            self._start()  # threads do not survive a fork
        future = asyncio.run_coroutine_threadsafe(work(self._client), self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # Ctrl-C, say: nobody waits any longer

    @staticmethod
    def _leave_to_parent(client: "ref[Client]") -> None:
        """In a process just forked off: what it inherited has no part in the parent's waiting any longer.

        Both have one epoll. When the inherited connections are collected here, they leave it, and the parent would
        never hear of their answers.
        """
        here = client()
        if here is not None and hasattr(select, "epoll"):  # macOS has kqueue, which no process inherits
            with select.epoll() as fresh:
                os.dup2(fresh.fileno(), here._selector.fileno(), inheritable=False)  # noqa: SLF001 - it is one of us
