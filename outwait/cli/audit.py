"""`outwait audit`: what persons did."""

from typing import Annotated

import typer

from outwait.cli.output import print_json, print_table, when
from outwait.cli.session import Json, current
from outwait.worker.model.acts import Act


def audit(
    context: typer.Context,
    job_id: Annotated[
        str | None, typer.Argument(metavar="[JOB]", help="Only acts about this job; by default all acts.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Only acts of this tenant's API keys, or about its jobs.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Maximum number of acts.")] = 50,
    as_json: Json = False,
) -> None:
    """List what persons did, newest first: who, what, when and from where.

    These are decisions about jobs and providers, API keys that were created or revoked, and logins. Each trail (of
    operators, of each tenant, of refused logins) keeps its newest 10,000 acts.
    """
    acts = current(context).ask(lambda client: client.acts(limit, tenant=tenant, job=job_id))
    if as_json:
        print_json({"acts": acts})
        return
    rows = [(when(act.at), act.what, _who(act), act.address, act.job or act.about, act.detail) for act in acts]
    print_table(("when", "what", "who", "from", "about", "detail"), rows, empty="No act of a person is stored.")


def _who(act: Act) -> str:
    return f"{act.who} (key {act.key}, {act.via})" if act.key else f"{act.who} ({act.via})"
