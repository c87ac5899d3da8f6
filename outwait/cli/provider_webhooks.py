"""`outwait webhooks`: shows the stored webhooks of providers, and processes them again."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from outwait.cli.output import print_json, print_table, say, when
from outwait.cli.session import Json, current
from outwait.client.store import StoreClient
from outwait.worker.model.acts import ActKind
from outwait.worker.store.provider_webhooks import Webhook


def webhooks(
    context: typer.Context,
    job_id: Annotated[
        str | None,
        typer.Argument(metavar="[JOB]", help="The job's id; without it, the webhooks for jobs that are not stored."),
    ] = None,
    replay: Annotated[
        bool,
        typer.Option("--replay", help="Process them again, for example after a fix or once they are trusted."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the webhooks that a provider sent for a job, oldest first.

    The first twenty are stored with their bodies; --json shows the bodies.
    """
    if replay:
        _replay(context, job_id, as_json=as_json)
        return

    async def read(client: StoreClient) -> list[Webhook]:
        return await (client.webhooks.of(job_id) if job_id else client.webhooks.unknown())

    received = current(context).ask(read)
    if as_json:
        print_json([_fields(webhook) for webhook in received])
        return
    empty = f"No webhook came for {job_id}." if job_id else "No webhook came for a job that is not stored."
    _print(received, empty=empty)


def _replay(context: typer.Context, job_id: str | None, *, as_json: bool) -> None:
    async def process(client: StoreClient) -> int:
        count = await (client.webhooks.replay(job_id) if job_id else client.webhooks.replay_unknown())
        await client.note(ActKind.REPLAY_WEBHOOKS, about=job_id or "of jobs that were not stored", detail=f"{count}")
        return count

    count = current(context).ask(process)
    if as_json:
        print_json({"replayed": count})
    else:
        say(f"{count} processed again. `outwait timeline JOB` shows the effect.")


def _fields(webhook: Webhook) -> dict[str, Any]:
    return {
        "job_id": webhook.job_id,
        "provider": webhook.provider,
        "at": webhook.at,
        "size": webhook.size,
        "told": webhook.summary,
        "problem": webhook.problem or None,
        "body": webhook.body.decode(errors="replace"),
    }


def _print(received: Sequence[Webhook], *, empty: str) -> None:
    rows = [(when(hook.at), hook.provider, hook.job_id, str(hook.size), hook.summary) for hook in received]
    print_table(("at", "provider", "job", "bytes", "says"), rows, empty=empty)
