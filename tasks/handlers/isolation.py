"""Runs what may hang (users' functions, a broker, a disk) where it holds up neither another handler nor our loop.

A thread cannot be stopped. A call that outlives its time limit therefore fails and is counted as lost, and keeps its
place until it really ends; when every place is lost, calls fail at once instead of queueing behind dead ones.
"""

import asyncio
import inspect
import logging
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from typing import Any

from outwait.worker.model.errors import DeliveryFailed, HandlerError
from outwait.worker.net.redaction import redact

log = logging.getLogger(__name__)

MESSAGE_MAX = 300
"""Characters of an exception's message that a failed delivery keeps."""

Completion = asyncio.Future[BaseException | None]
"""The end of a call, with what it raised."""

Settle = Callable[[BaseException | None], None]


class Isolated(ABC):
    """The calls of one handler. Used from one event loop.

    Args:
        name: of the handler, for messages and threads.
        places: calls that may run at once.
    """

    def __init__(self, name: str, places: int) -> None:
        self.name = name
        self._places = places
        self._free = asyncio.Semaphore(places)
        self._running = 0
        self._lost: set[Completion] = set()

    async def run(self, call: Callable[[], Any], time_limit: float) -> None:
        """Wait for a place, then run the call for at most `time_limit` seconds.

        Raises:
            DeliveryFailed: it raised, or did not end in time, or every place is lost.
            HandlerError: the one that the call raised itself.
        """
        await self._place(time_limit)
        loop = asyncio.get_running_loop()
        completion: Completion = loop.create_future()
        self._running += 1
        completion.add_done_callback(self._ended)
        try:
            give_up = self._begin(call, copy_context(), partial(_settle, loop, completion))
        except RuntimeError as error:  # the system gives us no further thread
            completion.cancel()
            raise failure(error) from error
        try:
            done, _ = await asyncio.wait({completion}, timeout=time_limit)
        except asyncio.CancelledError:
            give_up()
            raise
        if not done:
            give_up()
            raise self._lose(completion, time_limit)
        if raised := completion.result():
            raise failure(raised) from raised

    @abstractmethod
    def close(self) -> None:
        """End the threads that are idle."""

    @abstractmethod
    def _begin(self, call: Callable[[], Any], context: Context, settle: Settle) -> Callable[[], object]:
        """Start the call; what is given back is called when its time is over."""

    async def _place(self, time_limit: float) -> None:
        while True:
            if len(self._lost) >= self._places:
                raise DeliveryFailed(
                    f"{self.name}: all {self._places} calls that may run at once outlived their time limit and still "
                    "hang: mend what they wait for, and restart the worker if they do not end"
                )
            with suppress(TimeoutError):
                async with asyncio.timeout(time_limit):
                    await self._free.acquire()
                return

    def _ended(self, completion: Completion) -> None:
        self._running -= 1
        self._lost.discard(completion)
        self._free.release()

    def _lose(self, completion: Completion, time_limit: float) -> DeliveryFailed:
        self._lost.add(completion)
        log.warning("handler-overran", extra={"handler": self.name, "limit": time_limit, "lost": len(self._lost)})
        return DeliveryFailed(f"{self.name} did not end within {time_limit:g} s")


class Threads(Isolated):
    """Sync calls: each has a thread to itself. Threads are kept and reused, so that what is bound to one pays."""

    def __init__(self, name: str, places: int = 16) -> None:
        super().__init__(name, places)
        self._threads = 0
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Context, Settle] | None] = queue.SimpleQueue()

    def close(self) -> None:
        """End the threads that are idle, and each other one when its call ends."""
        for _ in range(self._threads):
            self._calls.put(None)

    def _begin(self, call: Callable[[], Any], context: Context, settle: Settle) -> Callable[[], object]:
        if self._running > self._threads:
            # A daemon: a call that hangs must not keep the process from ending.
            threading.Thread(target=self._work, name=f"{self.name}-{self._threads}", daemon=True).start()
            self._threads += 1
        self._calls.put((call, context, settle))
        return lambda: None

    def _work(self) -> None:
        while item := self._calls.get():
            call, context, settle = item
            settle(context.run(_called, call))
            del item, call, context, settle  # an idle thread keeps no result in memory


class Loop(Isolated):
    """Async calls: in an event loop and a thread of the handler's own, since one that blocks would stop every loop."""

    def __init__(self, name: str, places: int = 256) -> None:
        super().__init__(name, places)
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[BaseException | None]] = set()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def close(self) -> None:
        """End the loop, and what runs in it."""
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _work(self) -> None:
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):  # it is the user's, and nobody asks for it any more
                self._loop.run_until_complete(task)
        self._loop.close()

    def _begin(self, call: Callable[[], Any], context: Context, settle: Settle) -> Callable[[], object]:
        started: list[asyncio.Task[BaseException | None]] = []

        def start() -> None:
            task = self._loop.create_task(_awaited(call), context=context)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(lambda done: settle(asyncio.CancelledError() if done.cancelled() else done.result()))
            started.append(task)

        def stop() -> None:
            started[0].cancel()

        self._loop.call_soon_threadsafe(start)
        return partial(self._loop.call_soon_threadsafe, stop)


def failure(error: BaseException) -> HandlerError:
    """What an exception means for a delivery: a HandlerError itself, anything else a reason to try again."""
    if isinstance(error, HandlerError):
        return error
    message = redact(str(error), 10 * MESSAGE_MAX)  # it may have megabytes
    if len(message) > MESSAGE_MAX:
        message = message[:MESSAGE_MAX] + "…"
    return DeliveryFailed(f"{type(error).__name__}: {message}" if message else type(error).__name__)


def _called(call: Callable[[], Any]) -> BaseException | None:
    try:
        returned = call()
    except BaseException as error:  # noqa: BLE001 - sys.exit() in a handler is a failed delivery, not our end
        return error
    if not inspect.isawaitable(returned):
        return None
    if inspect.iscoroutine(returned):
        returned.close()
    return TypeError("the handler returned something to be awaited, so nothing ran: declare it with async def")


async def _awaited(call: Callable[[], Any]) -> BaseException | None:
    try:
        await call()
    except BaseException as error:  # noqa: BLE001 - as above; a task that lets SystemExit out ends its loop
        return error
    return None


def _settle(loop: asyncio.AbstractEventLoop, completion: Completion, error: BaseException | None) -> None:
    with suppress(RuntimeError):  # the loop is closed: the worker ended before the call
        loop.call_soon_threadsafe(completion.set_result, error)
