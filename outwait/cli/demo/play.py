"""Runs the demo: enqueues the planned jobs, watches them, and checks the results."""

import asyncio
import contextlib
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from outwait.cli.board import board
from outwait.cli.demo.jobs import Planned, planned
from outwait.cli.demo.stage import Stage
from outwait.cli.exits import Exit
from outwait.cli.keys import local_key
from outwait.cli.output import print_table, say, span
from outwait.cli.watch import follow
from outwait.client.store import StoreClient
from outwait.config.settings import load_settings
from outwait.worker.model.errors import OperatorError, OutwaitError
from outwait.worker.model.jobs import Job, JobState, TimelineEntry

PLAY_WITHIN = 180.0
"""Seconds for all jobs together."""

STORY = "busy-provider"
"""The job whose timeline is shown."""


class Check(NamedTuple):
    """A condition that must be true at the end."""

    passed: bool
    text: str


def play(results: Path, *, keep: bool) -> Exit:
    """Run the demo and report the results."""
    began, shown = time.monotonic(), results
    with _interruptible(), Stage(results.resolve()) as stage:
        key = local_key(load_settings(), stage.folder).read_text().strip()
        say(f"Web:      {stage.web}   (log in with {key})")
        say(f"Flower:   {stage.flower}")
        say(f"Sandbox:  {stage.sandbox}/_ledger")
        plan = planned(stage.recording)
        jobs, story = asyncio.run(_run(plan, stage))
        checks = _checks(plan, jobs, stage)
        _report(jobs, story, checks)
        say(f"\nResults:  {shown}/results.jsonl   (a Python handler wrote {shown}/crm.txt)")
        say(f"Logs:     {shown}/logs")
        say(f"Took:     {span(time.monotonic() - began)}")
        _look_around(stage, keep=keep)
    return Exit.OK if all(check.passed for check in checks) else Exit.FAILED


async def _run(plan: Sequence[Planned], stage: Stage) -> tuple[list[Job], list[TimelineEntry]]:
    async with StoreClient(load_settings()) as client:
        for answer in await client.enqueue_many([(job.request, job.id) for job in plan]):
            if isinstance(answer, OutwaitError):
                raise answer
        attending = asyncio.create_task(_attend(stage))
        with board() as shown:
            ids = [job.id for job in plan]
            following = follow(client, ids, shown, timeout=PLAY_WITHIN, interval=0.25, until=_at_rest)
            watching = asyncio.create_task(following)
            await asyncio.wait((watching, attending), return_when=asyncio.FIRST_COMPLETED)
        if not watching.done():
            watching.cancel()
            await attending
        attending.cancel()
        return await watching, await client.timeline(STORY)


async def _attend(stage: Stage) -> None:
    """Wait until a process of the stage ends too early, and raise OperatorError."""
    while not (troubles := stage.troubles()):  # noqa: ASYNC110 - processes set no event
        await asyncio.sleep(0.5)
    raise OperatorError(f"the demo cannot go on: {troubles}")


def _at_rest(job: Job) -> bool:
    return job.closed is not None or job.state is JobState.UNCERTAIN


def _checks(plan: Sequence[Planned], jobs: Sequence[Job], stage: Stage) -> list[Check]:
    by_id = {job.id: job for job in jobs}
    other = [planned_job.id for planned_job in plan if by_id[planned_job.id].state is not planned_job.ends]
    ended = sum(job.state.ended for job in jobs)
    lines = _lines(stage.results / "results.jsonl")
    notes = _lines(stage.results / "crm.txt")
    ledger = stage.ledger()
    return [
        Check(not other, f"{len(plan) - len(other)} of {len(plan)} jobs stand as planned {', '.join(other)}".rstrip()),
        *paid_once(plan, ledger),
        _webhooks(jobs, ledger),
        Check(lines == ended, f"{lines} results in results.jsonl for {ended} jobs that ended"),
        Check(notes == ended, f"{notes} notes by the Python handler"),
    ]


def paid_once(plan: Sequence[Planned], ledger: Mapping[str, Mapping[str, int]]) -> Iterator[Check]:
    """Whether each provider accepted each of its jobs once, as the sandbox counted."""
    for provider, ours in Counter(job.request.provider for job in plan).items():
        totals = ledger.get(provider, {})
        taken, repeated = totals.get("jobs", 0), totals.get("repeated_submits", 0)
        once = taken == ours and repeated == 0
        yield Check(once, f"{provider} took {taken} jobs for {ours} of ours, {repeated} of them twice")


def _webhooks(jobs: Sequence[Job], ledger: Mapping[str, Mapping[str, int]]) -> Check:
    """Whether each webhook that was sent and answered is in our ledger."""
    answered = sum(totals.get("webhooks_acknowledged", 0) for totals in ledger.values())
    ours = sum(job.ledger.webhooks for job in jobs)
    return Check(0 < answered == ours, f"ringcentral sent {answered} webhooks, {ours} are in our ledger")


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def _report(jobs: Sequence[Job], story: Sequence[TimelineEntry], checks: Sequence[Check]) -> None:
    states = [state for state in JobState if any(job.state is state for job in jobs)]
    counts = Counter((job.provider, job.state) for job in jobs)
    sys.stdout.write("\n")
    rows = [
        (provider, *(str(counts[provider, state]) for state in states))
        for provider in sorted({job.provider for job in jobs})
    ]
    print_table(("provider", *states), rows, empty="")
    sys.stdout.write(f"\nThe life of {STORY}:\n")
    start = story[0].at if story else 0
    rows = [(f"  +{span(entry.at - start)}", entry.event, entry.detail) for entry in story]
    print_table(("  after", "what", "detail"), rows, empty="")
    sys.stdout.write("\n")
    for check in checks:
        sys.stdout.write(f"{'ok ' if check.passed else 'NOT'} {check.text}\n")
    sys.stdout.flush()


def _look_around(stage: Stage, *, keep: bool) -> None:
    if not keep:
        say("All its processes have ended. `outwait demo --keep` leaves them running, so that you can look around.")
        return
    outwait = f"outwait --data {stage.folder}"
    say("\nLook around in another shell (Ctrl-C here ends everything):")
    for words in (
        "status",
        "jobs --state failed",
        f"timeline {STORY}",
        "result question-1",
        "held",
        "doctor",
    ):
        say(f"  {outwait} {words}")
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Make SIGTERM and SIGHUP act like Ctrl-C, also in the background: end everything and clean up."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
