"""Watch jobs until they end."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from outwait.cli.board import Board, board, summary
from outwait.cli.output import say
from outwait.cli.session import Json, current
from outwait.client.store import StoreClient
from outwait.config.exits import Exit
from outwait.worker.model.jobs import Job, JobState

PAGE = 200
"""Jobs of one page, when those that are open are listed."""


def watch(
    context: typer.Context,
    job_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[JOB]...", help="The jobs' ids; by default all jobs that are open.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Stop after this many seconds, with exit code 5.")
    ] = None,
    interval: Annotated[float, typer.Option(min=0.05, help="Seconds between two updates.")] = 0.5,
    as_json: Json = False,
) -> None:
    """Show jobs live until they have ended.

    The exit code is 0 if all jobs succeeded, 1 if one did not, and 5 if one has not ended in time.
    """

    async def follow_jobs(client: StoreClient) -> list[Job]:
        watched = job_ids or await _open(client)
        with board(as_json=as_json) as shown:
            return await follow(client, watched, shown, timeout=timeout, interval=interval)

    jobs = current(context).ask(follow_jobs)
    say(summary(jobs) or "No job is open.")
    if not all(job.state.ended for job in jobs):
        raise typer.Exit(Exit.NOT_ENDED)
    if any(job.state is not JobState.SUCCEEDED for job in jobs):
        raise typer.Exit(Exit.FAILED)


async def _open(client: StoreClient) -> list[str]:
    """All open jobs. One that changes its state meanwhile may be in two listings: it is watched once."""
    ids: list[str] = []
    for state in (state for state in JobState if not state.ended):
        page = await client.jobs(state=state, limit=PAGE)
        ids += [job.id for job in page.jobs]
        while page.cursor:
            page = await client.jobs(state=state, limit=PAGE, cursor=page.cursor)
            ids += [job.id for job in page.jobs]
    return ids


async def follow(
    client: StoreClient,
    job_ids: Sequence[str],
    shown: Board,
    *,
    timeout: float | None = None,
    interval: float = 0.5,
    until: Callable[[Job], bool] = lambda job: job.state.ended,
) -> list[Job]:
    """Show these jobs until `until` is true of each, or the time is over. Returns their last state.

    Args:
        client: reads the jobs.
        job_ids: the jobs.
        shown: where they are shown.
        timeout: seconds; None waits for ever.
        interval: seconds between two updates.
        until: whether a job needs no more waiting.

    Raises:
        JobNotFound: one of the jobs is not stored.
    """
    deadline = time.monotonic() + timeout if timeout is not None else None
    jobs: dict[str, Job] = {}
    pending = list(dict.fromkeys(job_ids))
    while pending:
        jobs.update(zip(pending, await client.named(pending), strict=True))
        shown.show(jobs.values())
        pending = [job_id for job_id in pending if not until(jobs[job_id])]
        if pending and deadline is not None and time.monotonic() >= deadline:
            break
        if pending:
            await asyncio.sleep(interval)
    return list(jobs.values())
