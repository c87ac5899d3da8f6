"""Before the first step: a producer's message becomes a job (`tasks.submit`), on brokers with real acknowledgements.

On Redis the intake takes the messages; there Celery's consumer can lose what it pops.
"""

import logging
import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from celery.exceptions import Ignore, Reject
from celery.worker import state as worker_state

from outwait.worker.app import StepTask, app
from outwait.worker.celery.submit_request import TIMES, SubmitRequest
from outwait.worker.engine.clock import OUTAGE_PAUSE
from outwait.worker.engine.intake import Intake
from outwait.worker.engine.messages import TASK, Sent, Unusable, read
from outwait.worker.model.errors import StoreUnavailable
from outwait.worker.store.inbox import Taken

log = logging.getLogger(__name__)

HOLD = 600.0
"""Seconds for which a message waits here for the store before its broker has it again. RabbitMQ 4 deletes a message
that came back to a quorum queue 20 times, and breaks off with a consumer that acknowledges none for half an hour."""


class SubmitTask(StepTask):
    """The public task."""

    Request = SubmitRequest

    @cached_property
    def intake(self) -> Intake:
        """What turns messages into jobs."""
        return app.intake(app.runtime.store)

    def take(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Sent:
        """Record the job of the message that runs now. Raises StoreUnavailable or Unusable."""
        headers = vars(self.request)
        named = {"task": TASK, "id": self.request.id, "traceparent": headers.get("traceparent", "")}
        times = {name: headers[name] for name in TIMES if headers.get(name)}
        now = app.runtime.call(self.intake.now()) if times else 0.0
        sent = read(named | times, args, kwargs, headers, now=now)
        app.runtime.call(self.intake.accept(sent))
        return sent

    def take_patiently(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Sent:
        """The same, but wait while the store is away."""
        give_up = time.monotonic() + HOLD
        while True:
            try:
                return self.take(args, kwargs)
            except StoreUnavailable as error:
                # The outage itself has a line.
                log.debug("job-not-recorded", extra={"job": self.request.id, "error": str(error)})
                stops = worker_state.should_stop is not None or worker_state.should_terminate is not None
                if stops or time.monotonic() > give_up:
                    raise
            time.sleep(OUTAGE_PAUSE)


@app.task(name=TASK, base=SubmitTask, bind=True, acks_late=True, ignore_result=True, shared=False)
def submit(self: SubmitTask, *args: Any, **kwargs: Any) -> None:
    """The public contract, on brokers whose acknowledgements are real; on Redis the intake takes the message first."""
    try:
        refusal = self.take_patiently(args, kwargs).refusal
    except Unusable as error:
        message = Taken("", repr((self.request.id, args, kwargs)).encode())
        app.runtime.call(self.intake.park(message, str(error)))
    except Exception as error:
        # Celery would acknowledge a message whose task failed, and the job would be lost.
        if not isinstance(error, StoreUnavailable):
            log.warning("job-not-recorded", extra={"job": self.request.id, "error": str(error)})
            time.sleep(OUTAGE_PAUSE)
        raise Reject(error, requeue=True) from error
    else:
        if refusal:
            raise Ignore(refusal)  # what the message names to run after it must not run
