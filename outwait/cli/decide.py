"""Decisions of a person about jobs: cancel, resolve an uncertain job, poll an ended one again, replay deliveries."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, NamedTuple

import typer

from outwait.cli.exits import report_error
from outwait.cli.jobs import Provider, Since
from outwait.cli.output import print_json, print_line, say
from outwait.cli.session import JobIdArgument, Json, current
from outwait.client.store import StoreClient
from outwait.config.exits import Exit
from outwait.worker.model.errors import RequestError
from outwait.worker.model.outcomes import Choice


class _Done(NamedTuple):
    """The result of a command for one job: the JSON fields for scripts, and the text for people."""

    fields: dict[str, Any]
    text: str


def cancel(
    context: typer.Context,
    job_ids: Annotated[list[str], typer.Argument(metavar="JOB", help="The jobs' ids.")],
    reason: Annotated[str, typer.Option(help="The reason; it is passed on to the handlers.")] = "cancelled by a person",
    as_json: Json = False,
) -> None:
    """Cancel jobs. Their handlers are informed, and so is the provider if it supports cancelling."""

    async def cancel_job(client: StoreClient, job_id: str) -> _Done:
        at_once = await client.cancel(job_id, reason)
        text = "is cancelled." if at_once else "is being submitted now: it is cancelled when that request is answered."
        return _Done({"cancelled": at_once}, f"{job_id} {text}")

    _for_each(context, job_ids, cancel_job, as_json=as_json)


def resolve(
    context: typer.Context,
    job_id: JobIdArgument,
    submitted_as: Annotated[
        str | None,
        typer.Option(metavar="ID", help="The provider has the job, with this external id: poll it, submit nothing."),
    ] = None,
    resubmit: Annotated[
        bool, typer.Option("--resubmit", help="The provider does not have the job: submit it again, and pay again.")
    ] = False,
    fail: Annotated[bool, typer.Option("--fail", help="Give the job up: it ends as failed.")] = False,
    as_webhook: Annotated[
        bool,
        typer.Option("--as-webhook", help="End the job as its last webhook says (`outwait webhooks JOB` shows it)."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Decide what happens to an uncertain job: one for which it is not known whether the provider accepted it.

    `outwait held` lists these jobs. Check with the provider first whether it has the job.
    """
    given = {
        Choice.SUBMITTED_AS: submitted_as is not None,
        Choice.RESUBMIT: resubmit,
        Choice.FAIL: fail,
        Choice.AS_WEBHOOK: as_webhook,
    }
    chosen = [choice for choice, is_given in given.items() if is_given]
    if len(chosen) != 1:
        raise typer.BadParameter(
            "give exactly one of these options", param_hint="--submitted-as ID, --resubmit, --fail, --as-webhook"
        )
    (choice,) = chosen

    async def decide(client: StoreClient) -> None:
        await client.resolve(job_id, choice, submitted_as or "")

    current(context).ask(decide)
    if as_json:
        print_json({"job_id": job_id, "resolved": choice})
    else:
        say(f"{job_id} {_describe(choice, submitted_as)}")


def _describe(choice: Choice, external_id: str | None) -> str:
    match choice:
        case Choice.SUBMITTED_AS:
            return f"waits for its result; its external id is {external_id}."
        case Choice.RESUBMIT:
            return "will be submitted again."
        case Choice.FAIL:
            return "failed; its handlers are informed."
        case Choice.AS_WEBHOOK:
            return "ended as its webhook says; its handlers are informed."


def repoll(
    context: typer.Context,
    job_ids: Annotated[list[str], typer.Argument(metavar="JOB", help="The jobs' ids.")],
    as_json: Json = False,
) -> None:
    """Poll jobs again that failed, expired or were cancelled, though the provider has them. Nothing is paid again.

    Each gets as much time again as it had. When it ends, every handler is informed again.
    """

    async def repoll_job(client: StoreClient, job_id: str) -> _Done:
        await client.repoll(job_id)
        return _Done({"repolled": True}, f"{job_id} is polled again.")

    _for_each(context, job_ids, repoll_job, as_json=as_json)


def replay(
    context: typer.Context,
    job_ids: Annotated[list[str] | None, typer.Argument(metavar="JOB", help="The jobs' ids; or use --all.")] = None,
    all_dead: Annotated[bool, typer.Option("--all", help="All dead deliveries that match the filters.")] = False,
    target: Annotated[str | None, typer.Option(help="Only deliveries to this target.")] = None,
    provider: Provider = None,
    since: Since = None,
    as_json: Json = False,
) -> None:
    """Deliver results again. The request to the provider, which costs money, is never repeated.

    Dead deliveries are repeated. With a job's id and --target, a delivery that succeeded is repeated too.

    Some jobs:     outwait replay JOB JOB

    By filter:     outwait replay --all --target crm --since 2h   (`outwait dead` has the same filters)
    """
    if all_dead == bool(job_ids):
        raise typer.BadParameter("give the ids of jobs, or use --all")
    if job_ids and (provider or since):
        raise typer.BadParameter("can only be used with --all", param_hint="--provider, --since")

    async def replay_job(client: StoreClient, job_id: str) -> _Done:
        count = await client.replay(job_id, target)
        return _Done({"deliveries": count}, f"{job_id}: {_repeated(count)}")

    if job_ids:
        _for_each(context, job_ids, replay_job, as_json=as_json)
        return
    after = since.at if since else None
    count = current(context).ask(lambda client: client.replay_all(target=target, provider=provider, since=after))
    if as_json:
        print_json({"deliveries": count})
    else:
        say(_repeated(count))


def _repeated(count: int) -> str:
    return "1 delivery will be repeated." if count == 1 else f"{count} deliveries will be repeated."


def _for_each(
    context: typer.Context,
    job_ids: Sequence[str],
    decide: Callable[[StoreClient, str], Awaitable[_Done]],
    *,
    as_json: bool,
) -> None:
    """Apply a decision to each job. A refused job does not stop the others; the first refusal sets the exit code."""

    async def decide_all(client: StoreClient) -> Exit:
        code = Exit.OK
        for job_id in dict.fromkeys(job_ids):
            try:
                done = await decide(client, job_id)
            except RequestError as error:
                refused = _refused(job_id, error, as_json=as_json)
                code = code or refused
            else:
                _print_done(job_id, done, as_json=as_json)
        return code

    if code := current(context).ask(decide_all):
        raise typer.Exit(code)


def _print_done(job_id: str, done: _Done, *, as_json: bool) -> None:
    if as_json:
        print_line({"job_id": job_id, **done.fields})
    else:
        say(done.text)


def _refused(job_id: str, error: RequestError, *, as_json: bool) -> Exit:
    if as_json:
        print_line({"job_id": job_id, "error": error.code, "message": str(error)})
    return report_error(error)
