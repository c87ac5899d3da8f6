"""Writes outcomes to the store in small groups, as they come, and never loses one while the process lives."""

import asyncio
import logging
from collections.abc import Callable
from contextvars import Context

from outwait.worker.model.errors import StoreRefused, StoreUnavailable
from outwait.worker.model.outcomes import Outcome, ProviderOutcome
from outwait.worker.store.codes import Recorded
from outwait.worker.store.lanes import Lanes

log = logging.getLogger(__name__)

GROUP = 128
"""Outcomes in one round trip at most."""

GATHER = 0.004
"""Seconds in which outcomes are gathered into a group."""

OUTAGE_RETRY = 0.5
"""Seconds between two tries while Redis is away."""


class Recorder:
    """The outcomes of one process. An outcome that the store has is out of `pending`.

    Args:
        lanes: the store.
        on_due: called with the lanes that have work due now, so that it is passed on at once.
    """

    def __init__(self, lanes: Lanes, on_due: Callable[[list[str]], None]) -> None:
        self._lanes = lanes
        self._on_due = on_due
        self._pending: list[Outcome] = []
        self._writer: asyncio.Task[None] | None = None

    @property
    def pending(self) -> int:
        """Outcomes that the store does not have yet."""
        return len(self._pending)

    def add(self, *outcomes: Outcome) -> None:
        """Take outcomes; they are written within milliseconds."""
        self._pending.extend(outcomes)
        if self._writer is None or self._writer.done():
            # In a context of its own: its log lines are not about the job whose outcome came first.
            self._writer = asyncio.get_running_loop().create_task(self._write_all(), context=Context())

    async def flushed(self) -> None:
        """Wait until everything taken so far is written."""
        while self._writer is not None and not self._writer.done():
            await asyncio.wait([self._writer])

    async def _write_all(self) -> None:
        await asyncio.sleep(GATHER)
        down = False
        while self._pending:
            group = self._pending[:GROUP]
            try:
                codes, due = await self._write(group)
            except StoreUnavailable as error:
                if not down:
                    log.error("store-unavailable", extra={"outcomes": len(self._pending), "error": str(error)})  # noqa: TRY400 - one line, no traceback
                down = True
                await asyncio.sleep(OUTAGE_RETRY)
                continue
            if down:
                log.warning("store-back", extra={"outcomes": len(self._pending)})
                down = False
            del self._pending[: len(group)]
            self._report(group, codes)
            if due:
                self._on_due(due)

    async def _write(self, group: list[Outcome]) -> tuple[list[Recorded], list[str]]:
        try:
            return await self._lanes.record(group)
        except StoreRefused:
            if len(group) == 1:
                # Redis refuses this one for good (too large, say): dropped, so that it stops no other. Its lease ends.
                log.exception("outcome-unwritable", extra={"item": _about(group[0])})
                return [Recorded.REFUSED], []
        codes: list[Recorded] = []
        due: list[str] = []
        for outcome in group:
            ((code,), lanes) = await self._write([outcome])
            codes.append(code)
            due += lanes
        return codes, due

    def _report(self, group: list[Outcome], codes: list[Recorded]) -> None:
        for outcome, code in zip(group, codes, strict=True):
            if code <= 0:
                name = type(outcome).__name__.lower()
                log.info("outcome-refused", extra={"item": _about(outcome), "outcome": name, "why": code.name.lower()})


def _about(outcome: Outcome) -> str:
    """What an outcome is about: a job, a delivery or a provider."""
    return outcome.provider if isinstance(outcome, ProviderOutcome) else outcome.work_id
