"""Handler functions in a real process."""

import subprocess
import sys
from pathlib import Path

from tests.patience import PATIENCE

ROOT = Path(__file__).parents[2]

HANGING = """
import asyncio, sys, threading, types
from outwait.config.groups import HandlerSettings
from outwait import DeliveryFailed, Envelope, handler
from outwait.tasks.handlers.delivery import Handlers
from outwait.worker.model.jobs import JobState
from tests.destinations import ANYWHERE

users = types.ModuleType("users")
sys.modules["users"] = users

@handler("stuck")
def stuck(): threading.Event().wait()

@handler("stuck-async")
async def stuck_async(): threading.Event().wait()

users.stuck, users.stuck_async = stuck, stuck_async

async def main():
    handlers = Handlers(HandlerSettings(modules=["users"]), None, None, destinations=ANYWHERE)
    sent = Envelope(delivery_id="1#0", job_id="1", provider="p", operation="o", state=JobState.FAILED, created=1.0)
    for name in ("stuck", "stuck-async"):
        try:
            await handlers.deliver(name, sent, 0.1)
        except DeliveryFailed as error:
            print(error)
    handlers.close()

asyncio.run(main())
"""


def test_a_handler_that_hangs_does_not_keep_the_process_from_ending() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HANGING], cwd=ROOT, capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert ended.stdout.splitlines() == [
        "handler stuck did not end within 0.1 s",
        "handler stuck-async did not end within 0.1 s",
    ]
