"""Writes outcomes to the store in small groups, as they come, and never loses one while the process lives."""

import asyncio
import logging
from collections.abc import Callable
from contextvars import Context
from typing import NamedTuple

from outwait.worker.engine.unwritable import external_id_of, substitute
from outwait.worker.model.errors import StoreRefused, StoreUnavailable
from outwait.worker.model.jobs import Claim
from outwait.worker.model.outcomes import End, Outcome, ProviderOutcome
from outwait.worker.store.codes import Recorded
from outwait.worker.store.lanes import Lanes

log = logging.getLogger(__name__)

GROUP = 128
"""Outcomes in one round trip at most."""

GROUP_BYTES = 32 * 1024 * 1024
"""Bytes of results in one round trip at most; a larger result goes alone."""

GATHER = 0.004
"""Seconds in which outcomes are gathered into a group."""

OUTAGE_RETRY = 0.5
"""Seconds between two tries while Redis is away."""


class _Pending(NamedTuple):
    """An outcome that the store does not have yet, the claim that it came of, and whether it stands for another one."""

    outcome: Outcome
    claim: Claim | None = None
    is_substitute: bool = False


class Recorder:
    """The outcomes of one process. An outcome that the store has is out of `pending`.

    Args:
        lanes: the store.
        on_due: called with the lanes that have work due now, so that it is passed on at once.
    """

    def __init__(self, lanes: Lanes, on_due: Callable[[list[str]], None]) -> None:
        self._lanes = lanes
        self._on_due = on_due
        self._pending: list[_Pending] = []
        self._alone = 0  # so many of them are written one by one: Redis refuses one of them for good
        self._writer: asyncio.Task[None] | None = None

    @property
    def pending(self) -> int:
        """Outcomes that the store does not have yet."""
        return len(self._pending)

    def add(self, *outcomes: Outcome, claim: Claim | None = None) -> None:
        """Take outcomes, of a step for `claim` if there is one; they are written within milliseconds."""
        self._pending.extend(_Pending(outcome, claim) for outcome in outcomes)
        if self._writer is None or self._writer.done():
            # In a context of its own: its log lines are not about the job whose outcome came first.
            self._writer = asyncio.get_running_loop().create_task(self._write_all(), context=Context())

    async def flushed(self) -> None:
        """Wait until everything taken so far is written."""
        while self._writer is not None and not self._writer.done():
            await asyncio.wait([self._writer])

    def abandon(self) -> None:
        """The process ends: say which answers the store never got, so that a person finds their external ids."""
        for pending in self._pending:
            if external_id := external_id_of(pending.outcome, pending.claim):
                extra = {"item": _about(pending.outcome), "external_id": external_id}
                log.error("outcome-lost", extra={**extra, "outcome": _kind(pending.outcome)})

    async def _write_all(self) -> None:
        await asyncio.sleep(GATHER)
        while self._pending:
            group = self._group()
            try:
                codes, due = await self._lanes.record([pending.outcome for pending in group])
            except StoreUnavailable:
                await asyncio.sleep(OUTAGE_RETRY)
                continue
            except StoreRefused as error:
                self._refused(group, error)
                continue
            self._alone = max(0, self._alone - len(group))
            del self._pending[: len(group)]
            self._report(group, codes)
            if due:
                self._on_due(due)

    def _group(self) -> list[_Pending]:
        if self._alone:
            return self._pending[:1]
        size, count = 0, 0
        for pending in self._pending[:GROUP]:
            size += len(bytes(pending.outcome.result or b"")) if isinstance(pending.outcome, End) else 0
            if count and size > GROUP_BYTES:
                break
            count += 1
        return self._pending[:count]

    def _refused(self, group: list[_Pending], error: StoreRefused) -> None:
        """Redis will never write one of the group. It stops no other, and the end of its job says so."""
        if len(group) > 1:
            self._alone = len(group)
            return
        (refused,) = group
        instead = None if refused.is_substitute else substitute(refused.outcome, refused.claim, error)
        extra = {"item": _about(refused.outcome), "outcome": _kind(refused.outcome), "error": str(error)}
        external_id = external_id_of(refused.outcome, refused.claim)
        log.error("outcome-unwritable", extra={**extra, "external_id": external_id})
        if instead is None:
            self._alone = max(0, self._alone - 1)
            del self._pending[0]
        else:
            self._pending[0] = _Pending(instead, refused.claim, is_substitute=True)

    def _report(self, group: list[_Pending], codes: list[Recorded]) -> None:
        for pending, code in zip(group, codes, strict=True):
            if code <= 0:
                outcome = pending.outcome
                extra = {"item": _about(outcome), "outcome": _kind(outcome), "why": code.name.lower()}
                log.info("outcome-refused", extra=extra)


def _kind(outcome: Outcome) -> str:
    return type(outcome).__name__.lower()


def _about(outcome: Outcome) -> str:
    """What an outcome is about: a job, a delivery or a provider."""
    return outcome.provider if isinstance(outcome, ProviderOutcome) else outcome.work_id
