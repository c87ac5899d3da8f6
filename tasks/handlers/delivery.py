"""Runs one delivery, whatever kind of handler it is for."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Protocol, assert_never

from outwait.config.errors import ConfigError
from outwait.config.groups import HandlerSettings
from outwait.tasks.handlers import files, functions, subprocess_runner
from outwait.tasks.handlers.envelope import TENANT_HEADER, Envelope
from outwait.tasks.handlers.isolation import Isolated, Loop, Threads, failure
from outwait.tasks.handlers.signed_webhooks import Webhooks
from outwait.worker.model.destinations import Destinations
from outwait.worker.model.errors import DeliveryFailed, DeliveryRefused, InvalidRequest
from outwait.worker.model.owners import Owners
from outwait.worker.model.targets import (
    CeleryTarget,
    FileTarget,
    FunctionTarget,
    StreamTarget,
    Target,
    WebhookTarget,
    parse,
)

PROCESSES = 2
"""Handler functions that run in separate processes at once: each costs as much CPU as dozens of other calls."""


class StreamWriter(Protocol):
    """What appends to Redis streams: the store."""

    async def add(self, key: str, fields: Mapping[str, str | bytes], maxlen: int | None) -> str:
        """Append an entry and give back its id; `maxlen` trims the stream to about that many."""
        ...


class Handlers:
    """The handlers of one process. Used from one event loop.

    Args:
        settings: the modules with handler functions, the routes, the folder of files, and to which tenants targets
            belong.
        send_task: Celery's `app.send_task`.
        streams: what appends to Redis streams.
        webhooks: what sends signed webhooks, if anything does.
        destinations: the streams and queues that targets may name.

    Raises:
        ConfigError: a module cannot be imported, two functions have one name, or a route leads nowhere.
    """

    def __init__(
        self,
        settings: HandlerSettings,
        send_task: Callable[..., object],
        streams: StreamWriter,
        webhooks: Webhooks | None = None,
        *,
        destinations: Destinations,
    ) -> None:
        self._folder = settings.folder
        self._send_task = send_task
        self._streams = streams
        self._webhooks = webhooks
        self._destinations = destinations
        self._owners = Owners(settings.tenants)
        self._functions = functions.load(settings.modules)
        self._check_routes(settings)
        self._lanes: dict[str, Isolated] = {}
        self._processes = asyncio.Semaphore(PROCESSES)

    @property
    def names(self) -> Iterable[str]:
        """The names with which functions are marked."""
        return self._functions

    def known(self, name: str) -> bool:
        """Whether a function is marked with this name."""
        return name in self._functions

    def serves(self, target: str) -> bool:
        """Whether this process can deliver to a target: another one may have the function, or the secrets."""
        try:
            parsed = parse(target)
        except InvalidRequest:
            return True  # it is refused, and its dead letter says why
        match parsed:
            case FunctionTarget(name):
                return self.known(name)
            case WebhookTarget():
                return self._webhooks is not None and self._webhooks.signs
            case _:
                return True

    def equipment(self) -> list[str]:
        """What this process has and another one may lack, in words for people."""
        signs = self._webhooks is not None and self._webhooks.signs
        return [*(f"handler {name}" for name in self._functions), *(["a secret for webhooks"] if signs else [])]

    async def deliver(
        self, target: str, envelope: Envelope, time_limit: float, *, in_subprocess: bool = False, trace: str = ""
    ) -> str:
        """Run one delivery for at most `time_limit` seconds, once a call of its handler may begin.

        `in_subprocess` runs a function in a separate process, because it may have ended workers. `trace` is the trace
        context that webhooks and tasks carry, if any.

        Returns:
            What a receiver of webhooks answered, short; nothing for other kinds of handlers.

        Raises:
            DeliveryFailed: another attempt may succeed.
            DeliveryRefused: no attempt will succeed: the handler is unknown or not allowed, or it refused the delivery.
        """
        match self._permitted(target, envelope.tenant):
            case FunctionTarget(name):
                await self._run(name, envelope, time_limit, in_subprocess=in_subprocess)
            case CeleryTarget() as task:
                await self._lane("celery", Threads).run(partial(self._publish, task, envelope, trace), time_limit)
            case StreamTarget() as stream:
                await self._add(stream, envelope, time_limit)
            case FileTarget(path):
                await self._lane("file", Threads).run(partial(self._append, path, envelope), time_limit)
            case WebhookTarget() as receiver:
                return await self._send(receiver, envelope, trace)
            case other:
                assert_never(other)
        return ""

    def close(self) -> None:
        """End the handlers' threads and loops, except those that hang."""
        for lane in self._lanes.values():
            lane.close()

    def _permitted(self, target: str, tenant: str | None) -> Target:
        """The target, if it is allowed here: it may have been stored under other settings. Raises DeliveryRefused."""
        try:
            parsed = parse(target)
        except InvalidRequest as error:
            raise DeliveryRefused(str(error)) from None
        if why := self._destinations.refusal(parsed) or self._owners.refusal(parsed, tenant):
            raise DeliveryRefused(why)
        return parsed

    async def _run(self, name: str, envelope: Envelope, time_limit: float, *, in_subprocess: bool) -> None:
        function = self._functions.get(name)
        if function is None:
            raise DeliveryRefused(_unknown(name, self._functions))
        if in_subprocess:
            async with self._processes:
                await subprocess_runner.run(function, envelope, time_limit)
            return
        call = partial(function.call, envelope) if function.takes_envelope else function.call
        await self._lane(f"handler {name}", Loop if function.is_async else Threads).run(call, time_limit)

    async def _send(self, receiver: WebhookTarget, envelope: Envelope, trace: str) -> str:
        if self._webhooks is None:
            raise DeliveryRefused(f"no webhook is sent to {receiver.host} from here")
        return await self._webhooks.deliver(receiver, envelope, trace)

    async def _add(self, stream: StreamTarget, envelope: Envelope, time_limit: float) -> None:
        fields: dict[str, str | bytes] = {
            "delivery_id": envelope.delivery_id,
            "job_id": envelope.job_id,
            "envelope": envelope.json(),
            **({"tenant": envelope.tenant} if envelope.tenant else {}),
        }
        try:
            async with asyncio.timeout(time_limit):
                await self._streams.add(stream.key, fields, stream.maxlen)
        except TimeoutError:
            raise DeliveryFailed(f"stream {stream.key} took nothing within {time_limit:g} s") from None
        except Exception as error:
            raise failure(error) from error

    def _publish(self, target: CeleryTarget, envelope: Envelope, trace: str) -> None:
        self._send_task(
            target.task,
            args=(envelope.data(),),
            task_id=envelope.delivery_id,
            queue=target.queue,
            ignore_result=True,  # else Celery subscribes to a result that nobody here waits for
            argsrepr=f"(<delivery {envelope.delivery_id}>,)",  # results belong neither in logs nor in Flower
            kwargsrepr="{}",
            headers=_headers(envelope, trace) or None,
        )

    def _append(self, path: str, envelope: Envelope) -> None:
        files.append(self._folder, path, envelope.json())

    def _lane(self, name: str, kind: type[Threads | Loop]) -> Isolated:
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = kind(name)
        return lane

    def _check_routes(self, settings: HandlerSettings) -> None:
        for route in settings.routes:
            for target in route.targets:
                try:
                    parsed = parse(target)
                except InvalidRequest as error:
                    raise ConfigError(f"OUTWAIT_HANDLERS__ROUTES: {error}") from None
                if isinstance(parsed, FunctionTarget) and not self.known(parsed.name):
                    raise ConfigError(f"OUTWAIT_HANDLERS__ROUTES: {_unknown(parsed.name, self._functions)}")
                if why := self._destinations.refusal(parsed):
                    raise ConfigError(f"OUTWAIT_HANDLERS__ROUTES: {why}")
                if isinstance(parsed, WebhookTarget) and self._webhooks and (why := self._webhooks.refusal(parsed)):
                    raise ConfigError(f"OUTWAIT_HANDLERS__ROUTES: {why}")


def _headers(envelope: Envelope, trace: str) -> dict[str, str]:
    """What a message to another Celery app says beside the envelope."""
    given = {"traceparent": trace, TENANT_HEADER: envelope.tenant or ""}
    return {name: value for name, value in given.items() if value}


def _unknown(name: str, known: Mapping[str, object]) -> str:
    names = ", ".join(sorted(known)) or "none"
    return (
        f"no function is marked @handler({name!r}) in the modules of OUTWAIT_HANDLERS__MODULES (found there: {names}); "
        "correct the name or list its module"
    )
