"""A handler function in a process of its own: whatever it does there, the delivery has an outcome."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from outwait import DeliveryFailed, DeliveryRefused, Envelope
from outwait.tasks.handlers import functions, subprocess_runner
from outwait.tasks.handlers.functions import Function
from outwait.worker.model.jobs import JobState
from tests.patience import PATIENCE

AMPLE = PATIENCE

HANDLERS = """
import asyncio, os, pathlib, signal, sys, threading
from outwait import DeliveryFailed, DeliveryRefused, handler

@handler("writes")
async def writes(envelope):
    print("not a verdict", flush=True)
    await asyncio.sleep(0)
    pathlib.Path(envelope.metadata["to"]).write_text(envelope.delivery_id)

@handler("refuses")
def refuses():
    raise DeliveryRefused("no such customer")

@handler("asks")
def asks():
    raise DeliveryFailed("later", retry_after=7.5)

@handler("exits")
def exits():
    sys.exit("enough")

@handler("crashes")
def crashes():
    os.kill(os.getpid(), signal.SIGSEGV)

@handler("blocks")
def blocks():
    threading.Event().wait()
"""


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Function]:
    (tmp_path / "alone_handlers.py").write_text(HANDLERS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return functions.load(["alone_handlers"])


def envelope(**metadata: Any) -> Envelope:
    return Envelope(
        delivery_id="j#1",
        job_id="j",
        provider="unless",
        operation="query",
        state=JobState.SUCCEEDED,
        created=1.0,
        metadata=metadata,
    )


async def test_it_gets_the_envelope_and_may_print(known: dict[str, Function], tmp_path: Path) -> None:
    await subprocess_runner.run(known["writes"], envelope(to=str(tmp_path / "written")), AMPLE)
    assert (tmp_path / "written").read_text() == "j#1"


async def test_each_way_to_fail_is_told(known: dict[str, Function]) -> None:
    async def message(name: str) -> str:
        with pytest.raises((DeliveryFailed, DeliveryRefused)) as caught:
            await subprocess_runner.run(known[name], envelope(), 0.5 if name == "blocks" else AMPLE)
        return f"{type(caught.value).__name__}: {caught.value}"

    assert await asyncio.gather(*map(message, ("refuses", "exits", "crashes", "blocks"))) == [
        "DeliveryRefused: no such customer",
        "DeliveryFailed: SystemExit: enough",
        "DeliveryFailed: handler crashes ended its process (SIGSEGV)",
        "DeliveryFailed: handler blocks did not end within 0.5 s",
    ]


async def test_what_it_asks_for_is_heard(known: dict[str, Function]) -> None:
    with pytest.raises(DeliveryFailed, match="later") as caught:
        await subprocess_runner.run(known["asks"], envelope(), AMPLE)
    assert caught.value.retry_after == 7.5
