"""Commands that read jobs: status, jobs, result, timeline, held, dead, parked."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import typer

from outwait.cli.output import age, print_json, print_table, say, span, when
from outwait.cli.session import JobIdArgument, Json, current
from outwait.cli.since import Moment, moment
from outwait.client.store import StoreClient
from outwait.config.exits import Exit
from outwait.config.printable import printable
from outwait.worker.model.jobs import Delivery, Job, JobState
from outwait.worker.store.inbox import Parked
from outwait.worker.store.listing import Page
from outwait.worker.store.orphans import Orphan
from outwait.worker.store.reads import LaneStatus

Target = Annotated[str | None, typer.Option(help="Only deliveries to this target.")]
Provider = Annotated[str | None, typer.Option(help="Only deliveries of this provider's jobs.")]
Since = Annotated[Moment | None, moment("Only what was given up since then: 30m, 2h, 1d (ago), or 2026-01-31T12:00.")]


def status(
    context: typer.Context,
    job_id: Annotated[
        str | None, typer.Argument(metavar="[JOB]", help="The job's id; without it, an overview of all jobs.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show one job with its deliveries, or the number of jobs in each state and the delay of each lane."""
    if job_id:
        _job_status(context, job_id, as_json=as_json)
    else:
        _overview(context, as_json=as_json)


def _job_status(context: typer.Context, job_id: str, *, as_json: bool) -> None:
    async def read(client: StoreClient) -> tuple[Job, list[Delivery]]:
        return await client.job(job_id), await client.deliveries(job_id)

    job, deliveries = current(context).ask(read)
    if as_json:
        print_json({"job": job, "deliveries": deliveries})
        return
    for name, value in _facts(job).items():
        sys.stdout.write(f"{name:<12} {printable(value)}\n")
    if deliveries:
        sys.stdout.write("\n")
        _print_deliveries(deliveries)


def _facts(job: Job) -> dict[str, str]:
    ledger = ", ".join(f"{count} {name}" for name, count in msgspec.structs.asdict(job.ledger).items() if count)
    facts = {
        "job": job.id,
        "provider": f"{job.provider} {job.operation}",
        "state": job.state + (f" (provider: {job.provider_status})" if job.provider_status else ""),
        "external id": job.external_id,
        "created": when(job.created),
        "took" if job.ended else "age": age(job),
        "next step": when(job.due) if job.due and not job.ended else None,
        "deadline": when(job.deadline) if job.deadline else None,
        "ended": when(job.ended) if job.ended else None,
        "closed": when(job.closed) if job.closed else None,
        "requests": ledger,
        "error": f"{job.error.code}: {job.error.message}" if job.error else None,
    }
    return {name: value for name, value in facts.items() if value}


def _print_deliveries(deliveries: Sequence[Delivery], *, empty: str = "") -> None:
    print_table(
        ("delivery", "job", "target", "state", "attempts", "error"),
        [_delivery_cells(delivery) for delivery in deliveries],
        empty=empty,
    )


def _delivery_cells(delivery: Delivery) -> tuple[str, ...]:
    error = delivery.error.message if delivery.error else ""
    return delivery.id, delivery.job_id, delivery.target, delivery.state, str(delivery.attempts), error


def _overview(context: typer.Context, *, as_json: bool) -> None:
    async def read(client: StoreClient) -> tuple[dict[str, dict[str, int]], list[LaneStatus]]:
        return await client.counts(), await client.lanes()

    counts, lanes = current(context).ask(read)
    if as_json:
        print_json({"jobs": counts, "lanes": [lane._asdict() for lane in lanes]})
        return
    states = [state.value for state in JobState]
    rows = [(provider, *(str(by_state.get(state, 0)) for state in states)) for provider, by_state in counts.items()]
    print_table(
        ("provider", *states), rows, empty="There are no jobs yet. `outwait submit --help` shows how to add one."
    )
    if lanes:
        sys.stdout.write("\n")
        print_table(
            ("lane", "due now", "waiting", "leased", "latest by"),
            [
                (str(lane.lane), str(lane.due_now), str(lane.waiting), str(lane.leased), span(lane.oldest_due_age))
                for lane in lanes
            ],
            empty="",
        )


def jobs(
    context: typer.Context,
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    provider: Annotated[str | None, typer.Option(help="Only jobs of this provider.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only jobs of this tenant.")] = None,
    since: Annotated[
        Moment | None, moment("Only jobs created since then: 30m, 2h, 1d (ago), or 2026-01-31T12:00.")
    ] = None,
    until: Annotated[Moment | None, moment("Only jobs created before then; same format as --since.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number of jobs on one page.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Show the page after the one that printed this cursor.")] = None,
    as_json: Json = False,
) -> None:
    """List jobs, newest first."""

    async def read(client: StoreClient) -> Page:
        return await client.jobs(
            state=state,
            provider=provider,
            tenant=tenant,
            since=since.at if since else None,
            until=until.at if until else None,
            limit=limit,
            cursor=cursor,
        )

    page = current(context).ask(read)
    if as_json:
        print_json({"jobs": page.jobs, "cursor": page.cursor})
        return
    _print_jobs(page.jobs, empty="No job matches.")
    if page.cursor:
        say(f"For the next page, add --cursor {page.cursor}")


def _print_jobs(page: list[Job], *, empty: str) -> None:
    print_table(
        ("job", "provider", "operation", "state", "created", "took", "polls", "error"),
        [
            (
                job.id,
                job.provider,
                job.operation,
                job.state,
                when(job.created),
                age(job),
                str(job.ledger.polls),
                job.error.code if job.error else "",
            )
            for job in page
        ],
        empty=empty,
    )


def held(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number of jobs.")] = 50,
    as_json: Json = False,
) -> None:
    """List the uncertain jobs: those that the provider may have accepted, and about which a person must decide."""
    page = current(context).ask(lambda client: client.jobs(state=JobState.UNCERTAIN, limit=limit))
    if as_json:
        print_json({"jobs": page.jobs, "cursor": page.cursor})
    else:
        _print_jobs(page.jobs, empty="No job is on hold.")


def dead(
    context: typer.Context,
    target: Target = None,
    provider: Provider = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number of deliveries.")] = 50,
    as_json: Json = False,
) -> None:
    """List the dead deliveries: those that were given up, newest first. `outwait replay` repeats them."""
    after = since.at if since else None
    deliveries = current(context).ask(
        lambda client: client.dead(limit, target=target, provider=provider, since=after),
    )
    if as_json:
        print_json({"deliveries": deliveries})
    else:
        _print_deliveries(deliveries, empty="No dead delivery matches.")


def parked(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number of messages, and of answers.")] = 50,
    as_json: Json = False,
) -> None:
    """List the producers' messages that could not become jobs, and paid answers that no job is there for."""

    async def read(client: StoreClient) -> tuple[list[Parked], list[Orphan]]:
        return await client.parked(limit), await client.orphans(limit)

    messages, orphans = current(context).ask(read)
    if as_json:
        print_json({"messages": messages, "orphans": orphans})
        return
    rows = [(when(message.at), message.reason, message.message) for message in messages]
    print_table(("when", "why", "message"), rows, empty="No message is parked.")
    if orphans:
        sys.stdout.write("\n")
        _print_orphans(orphans)


def _print_orphans(orphans: Sequence[Orphan]) -> None:
    rows = [
        (when(one.at), one.job_id, f"{one.provider} {one.operation}", one.external_id, one.outcome, one.reason)
        for one in orphans
    ]
    print_table(("when", "job", "provider", "external id", "answer", "why"), rows, empty="")


def result(
    context: typer.Context,
    job_id: JobIdArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Results are always JSON.", hidden=True)] = False,  # noqa: ARG001 - scripts may pass it to every command
) -> None:
    """Print a job's result as JSON.

    If the job ended without a result, its error is printed and the exit code is 1. If it has not ended, the code is 5.
    """

    async def read(client: StoreClient) -> tuple[Job, Any]:
        job = await client.job(job_id)
        return job, await client.result(job_id) if job.state is JobState.SUCCEEDED else None

    job, value = current(context).ask(read)
    if not job.state.ended:
        say(f"{job.id} has not ended: it is {job.state}. `outwait watch {job.id}` waits for it.")
        raise typer.Exit(Exit.NOT_ENDED)
    if job.state is not JobState.SUCCEEDED:
        say(f"{job.id} {job.state}: {job.error.code}: {job.error.message}" if job.error else f"{job.id} {job.state}")
        raise typer.Exit(Exit.FAILED)
    print_json(value)


def timeline(context: typer.Context, job_id: JobIdArgument, as_json: Json = False) -> None:
    """Print what happened to a job, oldest first."""
    entries = current(context).ask(lambda client: client.timeline(job_id))
    if as_json:
        print_json(entries)
        return
    start = entries[0].at if entries else 0
    print_table(
        ("when", "after", "what", "detail"),
        [(when(entry.at), span(entry.at - start), entry.event, entry.detail) for entry in entries],
        empty="Nothing has happened yet.",
    )
