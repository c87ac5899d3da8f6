"""What a person decides about jobs: cancel them, resolve an uncertain one, replay deliveries."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, NamedTuple

import typer

from outwait.cli.exits import Exit, tell
from outwait.cli.jobs import Provider, Since
from outwait.cli.output import print_json, print_line, say
from outwait.cli.session import JobIdArgument, Json, current
from outwait.client.store import StoreClient
from outwait.worker.model.errors import RequestError
from outwait.worker.model.outcomes import Choice


class _Done(NamedTuple):
    """What became of one job: for scripts, and for people."""

    fields: dict[str, Any]
    text: str


def cancel(
    context: typer.Context,
    job_ids: Annotated[list[str], typer.Argument(metavar="JOB", help="The jobs' ids.")],
    reason: Annotated[str, typer.Option(help="Why; handlers are told.")] = "cancelled by a person",
    as_json: Json = False,
) -> None:
    """Give jobs up. Their handlers hear of it, and so does the provider if it can cancel."""

    async def one(client: StoreClient, job_id: str) -> _Done:
        now = await client.cancel(job_id, reason)
        text = "is cancelled." if now else "is cancelled when the answer to its submit, which is on its way, has come."
        return _Done({"cancelled": now}, f"{job_id} {text}")

    _each(context, job_ids, one, as_json=as_json)


def resolve(
    context: typer.Context,
    job_id: JobIdArgument,
    submitted_as: Annotated[
        str | None, typer.Option(metavar="ID", help="The provider has it, under this external id: it is polled.")
    ] = None,
    resubmit: Annotated[
        bool, typer.Option("--resubmit", help="The provider has it not: it is submitted, and paid, again.")
    ] = False,
    fail: Annotated[bool, typer.Option("--fail", help="Give it up: it fails.")] = False,
    as_webhook: Annotated[
        bool, typer.Option("--as-webhook", help="It ended as its webhook says: `outwait webhooks JOB` shows it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Decide about a job that was submitted, perhaps. `held` lists them; look for it at the provider first."""
    given = {
        Choice.SUBMITTED_AS: submitted_as is not None,
        Choice.RESUBMIT: resubmit,
        Choice.FAIL: fail,
        Choice.AS_WEBHOOK: as_webhook,
    }
    chosen = [choice for choice, wanted in given.items() if wanted]
    if len(chosen) != 1:
        raise typer.BadParameter("give one of them", param_hint="--submitted-as ID, --resubmit, --fail, --as-webhook")
    (choice,) = chosen

    async def decide(client: StoreClient) -> None:
        await client.resolve(job_id, choice, submitted_as or "")

    current(context).ask(decide)
    if as_json:
        print_json({"job_id": job_id, "resolved": choice})
    else:
        say(f"{job_id} {_told(choice, submitted_as)}")


def _told(choice: Choice, external_id: str | None) -> str:
    match choice:
        case Choice.SUBMITTED_AS:
            return f"waits for its result as {external_id}."
        case Choice.RESUBMIT:
            return "is submitted again."
        case Choice.FAIL:
            return "failed; its handlers hear of it."
        case Choice.AS_WEBHOOK:
            return "ended as its webhook says; its handlers hear of it."


def replay(
    context: typer.Context,
    job_ids: Annotated[list[str] | None, typer.Argument(metavar="JOB", help="Jobs; or --all.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every dead delivery, or those that the filters leave.")] = False,
    target: Annotated[str | None, typer.Option(help="Only deliveries to this target.")] = None,
    provider: Provider = None,
    since: Since = None,
    as_json: Json = False,
) -> None:
    """Repeat dead deliveries, or of named jobs also the delivered one to --target. The paid request is never repeated.

    One or many:   outwait replay JOB JOB

    By filter:     outwait replay --all --target crm --since 2h   (`outwait dead` takes the same filters)
    """
    if every == bool(job_ids):
        raise typer.BadParameter("name jobs, or use --all")
    if job_ids and (provider or since):
        raise typer.BadParameter("go with --all", param_hint="--provider, --since")

    async def one(client: StoreClient, job_id: str) -> _Done:
        count = await client.replay(job_id, target)
        return _Done({"deliveries": count}, f"{job_id}: {_again(count)}")

    if job_ids:
        _each(context, job_ids, one, as_json=as_json)
        return
    after = since.at if since else None
    count = current(context).ask(lambda client: client.replay_all(target=target, provider=provider, since=after))
    if as_json:
        print_json({"deliveries": count})
    else:
        say(_again(count))


def _again(count: int) -> str:
    return "1 delivery goes out again." if count == 1 else f"{count} deliveries go out again."


def _each(
    context: typer.Context,
    job_ids: Sequence[str],
    one: Callable[[StoreClient, str], Awaitable[_Done]],
    *,
    as_json: bool,
) -> None:
    """Do it job by job; one that is refused stops no other, and the first refusal gives the exit code."""

    async def every(client: StoreClient) -> Exit:
        code = Exit.OK
        for job_id in dict.fromkeys(job_ids):
            try:
                done = await one(client, job_id)
            except RequestError as error:
                code = code or _refused(job_id, error, as_json=as_json)
            else:
                _print_done(job_id, done, as_json=as_json)
        return code

    if code := current(context).ask(every):
        raise typer.Exit(code)


def _print_done(job_id: str, done: _Done, *, as_json: bool) -> None:
    if as_json:
        print_line({"job_id": job_id, **done.fields})
    else:
        say(done.text)


def _refused(job_id: str, error: RequestError, *, as_json: bool) -> Exit:
    if as_json:
        print_line({"job_id": job_id, "error": error.code, "message": str(error)})
    return tell(error)
