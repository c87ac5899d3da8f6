"""Look at providers' webhooks as they were kept, and have them read again."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from outwait.cli.output import print_json, print_table, say, when
from outwait.cli.session import Json, current
from outwait.client.store import StoreClient
from outwait.worker.store.provider_webhooks import Webhook


def webhooks(
    context: typer.Context,
    job_id: Annotated[
        str | None, typer.Argument(metavar="[JOB]", help="A job; without it, the webhooks whose jobs are gone.")
    ] = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="Do again what they say: a reader was mended, or they are trusted now.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Webhooks that came for a job, oldest first: the first twenty are kept, with their bodies (--json shows them)."""
    if replay:
        _replay(context, job_id, as_json=as_json)
        return

    async def look(client: StoreClient) -> list[Webhook]:
        return await (client.webhooks.of(job_id) if job_id else client.webhooks.unknown())

    found = current(context).ask(look)
    if as_json:
        print_json([_shown(one) for one in found])
    else:
        _print(found, empty=f"No webhook came for {job_id}." if job_id else "No webhook came for a job that is gone.")


def _replay(context: typer.Context, job_id: str | None, *, as_json: bool) -> None:
    async def again(client: StoreClient) -> int:
        return await (client.webhooks.replay(job_id) if job_id else client.webhooks.replay_unknown())

    count = current(context).ask(again)
    if as_json:
        print_json({"replayed": count})
    else:
        say(f"{count} replayed; the timeline of each job tells what became of it.")


def _shown(webhook: Webhook) -> dict[str, Any]:
    return {
        "job_id": webhook.job_id,
        "provider": webhook.provider,
        "at": webhook.at,
        "size": webhook.size,
        "told": webhook.summary,
        "problem": webhook.problem or None,
        "body": webhook.body.decode(errors="replace"),
    }


def _print(found: Sequence[Webhook], *, empty: str) -> None:
    rows = [(when(one.at), one.provider, one.job_id, str(one.size), one.summary) for one in found]
    print_table(("at", "provider", "job", "bytes", "says"), rows, empty=empty)
