import asyncio
import contextvars
import gc
import json
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from outwait import DeliveryFailed, DeliveryRefused, Envelope, handler
from outwait.config.errors import ConfigError
from outwait.config.groups import HandlerSettings, Route
from outwait.tasks.handlers.delivery import Handlers
from outwait.tasks.handlers.isolation import Loop, Threads
from outwait.worker.model.jobs import JobError, JobState
from tests.destinations import ANYWHERE
from tests.patience import PATIENCE, until

LIMIT = PATIENCE


def envelope(**changes: Any) -> Envelope:
    defaults: dict[str, Any] = {
        "delivery_id": "job-1#0",
        "job_id": "job-1",
        "provider": "unless",
        "operation": "query",
        "state": JobState.SUCCEEDED,
        "created": 1.0,
    }
    return Envelope(**(defaults | changes))


class NoStreams:
    async def add(self, key: str, fields: Any, maxlen: int | None) -> str:  # noqa: ARG002 - the writer's contract
        raise AssertionError(f"nothing may be sent to {key}")


def no_task(*args: Any, **options: Any) -> None:
    raise AssertionError("no task may be sent")


def built(**settings: Any) -> Handlers:
    return Handlers(HandlerSettings(**settings), no_task, NoStreams(), destinations=ANYWHERE)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a user's module and gives back its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(source: str) -> str:
        name = f"users_{uuid4().hex}"
        (tmp_path / f"{name}.py").write_text(f"from outwait import DeliveryFailed, DeliveryRefused, handler\n{source}")
        return name

    return write


@asynccontextmanager
async def handling(module: str, **settings: Any) -> AsyncIterator[tuple[Handlers, Any]]:
    handlers = built(modules=[module], **settings)
    try:
        yield handlers, sys.modules[module]
    finally:
        handlers.close()


# The functions of the user


async def test_sync_and_async_functions_receive_the_envelope(module: Callable[[str], str]) -> None:
    source = """
seen = []
@handler("sync")
def first(envelope): seen.append(envelope)
@handler("async")
async def second(envelope): seen.append(envelope)
@handler("none")
def third(): seen.append("called"); return "ignored"
@handler("none-async")
async def fourth(): seen.append("awaited")
"""
    sent = envelope()
    async with handling(module(source)) as (handlers, users):
        for name in ("sync", "async", "none", "none-async"):
            assert handlers.known(name)
            await handlers.deliver(name, sent, LIMIT)
        assert users.seen == [sent, sent, "called", "awaited"]
        assert not handlers.known("first")


@pytest.mark.parametrize("definition", ["def fail(envelope):", "async def fail(envelope):"])
@pytest.mark.parametrize(
    ("raising", "message"),
    [
        ("raise ValueError('no such customer')", "^ValueError: no such customer$"),
        ("raise KeyError", "^KeyError$"),
        ("raise StopIteration", "StopIteration$"),
        ("raise SystemExit(1)", "^SystemExit: 1$"),
        ("raise KeyboardInterrupt", "^KeyboardInterrupt$"),
        ("import asyncio; raise asyncio.CancelledError", "^CancelledError$"),
        ("raise ValueError('x' * 5000)", "^ValueError: x{300}…$"),
        ("raise OSError('GET https://me:pass@crm.example/hook?token=abc')", "^OSError: GET https://crm.example/…$"),
        ("raise DeliveryFailed('crm is down')", "^crm is down$"),
    ],
)
async def test_what_a_handler_raises_fails_the_delivery(
    module: Callable[[str], str], definition: str, raising: str, message: str
) -> None:
    async with handling(module(f"@handler('crm')\n{definition}\n    {raising}\n")) as (handlers, _):
        for _ in range(2):  # and spoils neither its thread nor its loop for the next one
            with pytest.raises(DeliveryFailed, match=message):
                await handlers.deliver("crm", envelope(), LIMIT)


async def test_a_handlers_refusal_is_final(module: Callable[[str], str]) -> None:
    source = "@handler('crm')\ndef crm(envelope): raise DeliveryRefused('customer was deleted')\n"
    async with handling(module(source)) as (handlers, _):
        with pytest.raises(DeliveryRefused, match=r"^customer was deleted$"):
            await handlers.deliver("crm", envelope(), LIMIT)


async def test_the_cause_is_kept_for_the_log(module: Callable[[str], str]) -> None:
    async with handling(module("@handler('crm')\ndef crm(envelope): 1 / 0\n")) as (handlers, _):
        with pytest.raises(DeliveryFailed) as failed:
            await handlers.deliver("crm", envelope(), LIMIT)
    assert isinstance(failed.value.__cause__, ZeroDivisionError)


async def test_a_coroutine_that_nobody_awaits_is_no_success(module: Callable[[str], str]) -> None:
    source = """
async def store(envelope): pass
@handler("crm")
def crm(envelope): return store(envelope)
"""
    async with handling(module(source)) as (handlers, _):
        with pytest.raises(DeliveryFailed, match="declare it with async def"):
            await handlers.deliver("crm", envelope(), LIMIT)


async def test_an_unknown_handler_is_refused_with_the_known_ones(module: Callable[[str], str]) -> None:
    async with handling(module("@handler('crm')\ndef crm(): pass\n")) as (handlers, _):
        with pytest.raises(DeliveryRefused, match=r"@handler\('cmr'\).*found there: crm"):
            await handlers.deliver("cmr", envelope(), LIMIT)
        with pytest.raises(DeliveryRefused, match="scheme 'ftp' is unknown"):
            await handlers.deliver("ftp://crm.example", envelope(), LIMIT)


# Loading


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import nothing_of_that_name", "cannot be imported: ModuleNotFoundError: .*nothing_of_that_name"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
        ("def crm(envelope): pass", "no function marked @handler"),
        ("@handler('CRM')\ndef crm(envelope): pass", "ValueError: handler name 'CRM' must match"),
        ("@handler\ndef crm(envelope): pass", 'TypeError: write @handler\\("name"\\)'),
        ("@handler('crm')\ndef crm(envelope, more): pass", "TypeError: handler 'crm' must take one parameter"),
        ("@handler('crm')\ndef crm(*, envelope): pass", "TypeError: handler 'crm' must take one parameter"),
        ("@handler('crm')\n@handler('erp')\ndef both(): pass", "ValueError: this function is handler 'erp' already"),
        ("@handler('crm')\ndef crm(envelope): yield", "TypeError: handler 'crm' is a generator"),
        ("@handler('crm')\nasync def crm(envelope): yield", "TypeError: handler 'crm' is a generator"),
        ("@handler('crm')\ndef a(): pass\n@handler('crm')\ndef b(): pass", "both mark a handler 'crm'"),
    ],
)
def test_a_module_that_cannot_be_used_is_named(module: Callable[[str], str], source: str, problem: str) -> None:
    name = module(source)
    with pytest.raises(ConfigError, match=f"OUTWAIT_HANDLERS__MODULES: .*{problem}") as wrong:
        built(modules=[name])
    assert name in str(wrong.value)


def test_a_missing_module_is_named_with_its_cause() -> None:
    with pytest.raises(ConfigError, match="'not_there' cannot be imported") as wrong:
        built(modules=["not_there"])
    assert isinstance(wrong.value.__cause__, ModuleNotFoundError)


def test_one_function_in_two_modules_is_one_handler(module: Callable[[str], str]) -> None:
    first = module("@handler('crm')\ndef crm(): pass\n")
    second = module(f"from {first} import crm\n@handler('other')\ndef other(): pass\n")
    handlers = built(modules=[first, second])
    assert handlers.known("crm")
    assert handlers.known("other")


def test_a_proxy_in_a_users_module_is_not_touched(module: Callable[[str], str]) -> None:
    source = """
class Proxy:
    def __getattribute__(self, name): raise RuntimeError("working outside of a request")
request = Proxy()
@handler('crm')
def crm(): pass
"""
    assert built(modules=[module(source)]).known("crm")


def test_a_mark_survives_another_decorator(module: Callable[[str], str]) -> None:
    source = """
from functools import wraps
def twice(function):
    @wraps(function)
    def wrapped(envelope): function(envelope); function(envelope)
    return wrapped
@twice
@handler('crm')
def crm(envelope): pass
"""
    assert built(modules=[module(source)]).known("crm")


def test_the_mark_changes_nothing_else() -> None:
    def crm(envelope: Envelope) -> str:
        return envelope.job_id

    assert handler("crm")(crm) is crm
    assert crm(envelope()) == "job-1"


def test_a_route_must_lead_somewhere(module: Callable[[str], str]) -> None:
    name = module("@handler('crm')\ndef crm(): pass\n")
    built(modules=[name], routes=[Route(targets=["crm", "file:all.jsonl", "celery://other.task"])])
    with pytest.raises(ConfigError, match=r"OUTWAIT_HANDLERS__ROUTES: no function is marked @handler\('cmr'\)"):
        built(modules=[name], routes=[Route(targets=["cmr"])])
    with pytest.raises(ConfigError, match="OUTWAIT_HANDLERS__ROUTES: invalid target 'ftp://x'"):
        built(routes=[Route(targets=["ftp://x"])])


# What hangs


async def test_a_handler_that_hangs_holds_up_nobody_else(module: Callable[[str], str]) -> None:
    source = """
import threading, time
free = threading.Event()
@handler("stuck")
def stuck(): free.wait()
@handler("stuck-async")
async def stuck_async(): free.wait()
@handler("crm")
def crm(): pass
@handler("crm-async")
async def crm_async(): pass
"""
    async with handling(module(source)) as (handlers, users):
        hanging = [asyncio.create_task(handlers.deliver(name, envelope(), 4)) for name in ("stuck", "stuck-async") * 40]
        await asyncio.gather(*(handlers.deliver(name, envelope(), LIMIT) for name in ("crm", "crm-async") * 40))
        assert not any(task.done() for task in hanging)
        failed = await asyncio.gather(*hanging, return_exceptions=True)
        assert {type(error) for error in failed} == {DeliveryFailed}
        await asyncio.gather(*(handlers.deliver(name, envelope(), LIMIT) for name in ("crm", "crm-async")))
        users.free.set()


async def test_when_every_thread_is_lost_deliveries_fail_at_once_until_one_ends() -> None:
    threads, free = Threads("crm", 2), threading.Event()
    for _ in range(2):
        with pytest.raises(DeliveryFailed, match=r"crm did not end within 0\.05 s"):
            await threads.run(free.wait, 0.05)
    with pytest.raises(DeliveryFailed, match=r"all 2 calls .* still hang"):
        await asyncio.wait_for(threads.run(lambda: None, 10 * LIMIT), LIMIT)
    free.set()
    await _eventually(lambda: not threads._lost)
    await threads.run(lambda: None, LIMIT)
    assert threads._threads == 2
    threads.close()


async def test_waiting_for_a_thread_is_not_part_of_the_time_limit() -> None:
    threads = Threads("crm", 1)
    first, free = asyncio.create_task(threads.run(lambda: free.wait(LIMIT), LIMIT)), threading.Event()
    second = asyncio.create_task(threads.run(lambda: None, 1))
    done, _ = await asyncio.wait({second}, timeout=1.2)
    assert not done
    free.set()
    await asyncio.gather(first, second)
    threads.close()


async def test_those_that_wait_for_a_thread_fail_when_all_are_lost() -> None:
    threads, free = Threads("crm", 1), threading.Event()
    calls = [asyncio.create_task(threads.run(free.wait, 0.1)) for _ in range(3)]
    failed = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), LIMIT)
    assert sorted("still hang" in str(error) for error in failed) == [False, True, True]
    free.set()
    threads.close()


async def test_an_async_handler_is_cancelled_at_its_time_limit() -> None:
    loop, cancelled = Loop("crm"), threading.Event()

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(DeliveryFailed, match="did not end within"):
        await loop.run(slow, 0.05)
    await _eventually(cancelled.is_set)
    await _eventually(lambda: not loop._lost)
    loop.close()


async def test_an_async_handler_that_refuses_to_be_cancelled_is_lost() -> None:
    loop, free = Loop("crm", 1), threading.Event()

    async def deaf() -> None:
        while not free.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue

    with pytest.raises(DeliveryFailed, match="did not end within"):
        await loop.run(deaf, 0.05)
    with pytest.raises(DeliveryFailed, match="still hang"):
        await loop.run(deaf, 0.05)
    free.set()
    await _eventually(lambda: not loop._lost)
    loop.close()


async def test_a_delivery_cancelled_at_shutdown_stops_its_async_handler() -> None:
    loop, begun, cancelled = Loop("crm"), threading.Event(), threading.Event()

    async def slow() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    running = asyncio.create_task(loop.run(slow, LIMIT))
    await _eventually(begun.is_set)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await _eventually(cancelled.is_set)
    loop.close()


async def test_a_threads_number_is_bounded_and_idle_ones_are_reused() -> None:
    threads, peak, lock = Threads("crm", 3), [0, 0], threading.Lock()

    def count() -> None:
        with lock:
            peak[0] += 1
            peak[1] = max(peak)
        threading.Event().wait(0.002)
        with lock:
            peak[0] -= 1

    await asyncio.gather(*(threads.run(count, LIMIT) for _ in range(50)))
    assert peak[1] <= 3
    assert threads._threads <= 3
    threads.close()


async def test_an_idle_thread_keeps_no_envelope() -> None:
    threads = Threads("crm", 1)

    class Result:
        pass

    result = Result()
    kept = weakref.ref(result)
    await threads.run(partial(id, result), LIMIT)
    del result
    await _eventually(lambda: gc.collect() >= 0 and kept() is None)
    threads.close()


async def test_what_is_bound_to_the_log_is_seen_in_the_handler() -> None:
    job = contextvars.ContextVar("job", default="")
    seen = []
    job.set("job-1")
    threads, loop = Threads("crm"), Loop("crm")

    async def look() -> None:
        seen.append(job.get())

    await threads.run(lambda: seen.append(job.get()), LIMIT)
    await loop.run(look, LIMIT)
    assert seen == ["job-1", "job-1"]
    threads.close()
    loop.close()


async def test_one_async_handler_has_one_loop(module: Callable[[str], str]) -> None:
    source = """
import asyncio
loops = set()
@handler("crm")
async def crm(): loops.add(asyncio.get_running_loop())
"""
    async with handling(module(source)) as (handlers, users):
        await asyncio.gather(*(handlers.deliver("crm", envelope(), LIMIT) for _ in range(10)))
        assert len(users.loops) == 1
        assert asyncio.get_running_loop() not in users.loops


async def _eventually(condition: Callable[[], bool]) -> None:
    async def holds() -> bool:
        return condition()

    await until(holds)


# The contract with receivers


def test_the_envelope_is_plain_json() -> None:
    failed = envelope(
        state=JobState.FAILED, error=JobError("rejected", "too long"), metadata={"customer": 7}, ended=2.5, attempt=3
    )
    assert json.loads(failed.json()) == failed.data()
    assert failed.data() == {
        "delivery_id": "job-1#0",
        "job_id": "job-1",
        "provider": "unless",
        "operation": "query",
        "state": "failed",
        "result": None,
        "error": {"code": "rejected", "message": "too long"},
        "external_id": None,
        "metadata": {"customer": 7},
        "created": 1.0,
        "ended": 2.5,
        "attempt": 3,
        "version": 1,
        "tenant": None,
    }
    assert b"\n" not in envelope(result="two\nlines").json()


def test_the_envelopes_of_the_documentation_are_envelopes() -> None:
    page = Path(__file__).parents[2] / "docs" / "handlers.md"
    examples = [part.partition("```")[0] for part in page.read_text().split("```json\n")[1:]]
    shown = [msgspec.json.decode(text, type=Envelope) for text in examples]
    assert {each.state for each in shown} == {state for state in JobState if state.ended}
    for text, each in zip(examples, shown, strict=True):
        assert json.loads(text) == each.data()


def test_the_handlers_of_the_documentation_are_handlers(module: Callable[[str], str]) -> None:
    page = Path(__file__).parents[2] / "docs" / "handlers.md"
    examples = [part.partition("```")[0] for part in page.read_text().split("```python\n")[1:]]
    marked = [text for text in examples if "@handler" in text]
    assert marked
    assert built(modules=[module(text) for text in marked])
