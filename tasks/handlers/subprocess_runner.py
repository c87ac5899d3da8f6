"""Runs one handler function in a process of its own, where it can end or block nothing but itself.

A process costs half a second of CPU, so this is for deliveries whose workers were lost again and again.
"""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Mapping

import msgspec

from outwait.tasks.handlers import functions
from outwait.tasks.handlers.envelope import Envelope
from outwait.tasks.handlers.functions import Function
from outwait.tasks.handlers.isolation import failure
from outwait.worker.model.errors import DeliveryFailed, DeliveryRefused, HandlerError

START = 60.0
"""Seconds that the process may take to import the handler's module; the handler's time limit counts from then."""

_PROGRAM = "import sys; sys.path = {path!r}; from {module} import main; main()"
"""Looks for modules where its worker does. Not `-m`: the package has imported this module by then, and Python warns of
a second one."""


class _Verdict(msgspec.Struct, frozen=True):
    """What came of the call."""

    succeeded: bool = True
    refused: bool = False
    message: str = ""
    retry_after: float | None = None


async def run(function: Function, envelope: Envelope, time_limit: float) -> None:
    """Run a handler function.

    Raises:
        DeliveryFailed: it raised, did not end in time, or ended its process.
        DeliveryRefused: it said so itself.
    """
    program = _PROGRAM.format(path=sys.path, module=__name__)
    command = (sys.executable, "-P", "-c", program, function.module, function.name, str(time_limit))
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
    try:
        answer, _ = await process.communicate(envelope.json())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == -signal.SIGALRM:
        raise DeliveryFailed(f"handler {function.name} did not end within {time_limit:g} s")
    if process.returncode or not answer:
        raise DeliveryFailed(f"handler {function.name} ended its process ({_how(process.returncode or 0)})")
    verdict = msgspec.json.decode(answer, type=_Verdict)
    if verdict.refused:
        raise DeliveryRefused(verdict.message)
    if not verdict.succeeded:
        raise DeliveryFailed(verdict.message, retry_after=verdict.retry_after)


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def main() -> None:
    """The process: takes the envelope from standard input, and writes the verdict to standard output."""
    _, module, name, seconds = sys.argv
    signal.setitimer(signal.ITIMER_REAL, START)  # ends it whatever it does, even if its worker is gone
    answer = os.dup(1)
    os.dup2(2, 1)  # what the handler prints goes to the worker's log
    envelope = msgspec.json.decode(sys.stdin.buffer.read(), type=Envelope)
    known = functions.load([module])
    signal.setitimer(signal.ITIMER_REAL, float(seconds))
    os.write(answer, msgspec.json.encode(_verdict(_call(known, name, envelope))))


def _verdict(error: HandlerError | None) -> _Verdict:
    if error is None:
        return _Verdict()
    asked = error.retry_after if isinstance(error, DeliveryFailed) else None
    return _Verdict(succeeded=False, refused=isinstance(error, DeliveryRefused), message=str(error), retry_after=asked)


def _call(known: Mapping[str, Function], name: str, envelope: Envelope) -> HandlerError | None:
    function = known[name]
    arguments = (envelope,) if function.takes_envelope else ()
    try:
        if function.is_async:
            asyncio.run(function.call(*arguments))
        else:
            function.call(*arguments)
    except BaseException as error:  # noqa: BLE001 - sys.exit() in a handler is a failed delivery
        return failure(error)
    return None
