"""Receivers of signed webhooks: their secrets, and those that are disabled."""

from typing import Annotated

import typer

from outwait.cli.output import print_json, print_table, say, when
from outwait.cli.session import Json, current
from outwait.worker.model import targets
from outwait.worker.model.errors import InvalidRequest
from outwait.worker.net import signatures

Enable = Annotated[str | None, typer.Option(metavar="URL", help="Let this receiver be sent to again.")]


def webhook_secret(
    context: typer.Context,
    url: Annotated[str, typer.Argument(metavar="URL", help="The target: https://shop.example/hook.")],
    as_json: Json = False,
) -> None:
    """Print the secret with which a receiver checks signatures; while secrets rotate two, the newest first."""
    settings = current(context).settings()
    if not settings.webhooks.secrets:
        raise InvalidRequest("OUTWAIT_WEBHOOKS__SECRETS names no secret: `openssl rand -hex 32` makes one")
    endpoint = _endpoint(url)
    secrets = [signatures.secret(master.get_secret_value(), endpoint) for master in settings.webhooks.secrets]
    if as_json:
        print_json({"endpoint": endpoint, "secrets": secrets})
    else:
        typer.echo("\n".join(secrets))


def endpoints(context: typer.Context, enable: Enable = None, as_json: Json = False) -> None:
    """Show the receivers of webhooks that are disabled since they answered 410 Gone, or enable one."""
    session = current(context)
    if enable is not None:
        endpoint = _endpoint(enable)
        was_disabled = session.ask(lambda client: client.enable(endpoint))
        if as_json:
            print_json({"url": endpoint, "enabled": True, "was_disabled": was_disabled})
            return
        say(f"{endpoint} is sent to again." if was_disabled else f"{endpoint} was not disabled.")
        say(
            f"`outwait replay --all --target '{targets.canonical(targets.parse(enable))}'` repeats what died meanwhile."
        )
        return
    found = session.ask(lambda client: client.disabled_endpoints())
    if as_json:
        print_json({"disabled": found})
    else:
        rows = [(one.url, when(one.since), one.why) for one in found]
        print_table(("disabled", "since", "why"), rows, empty="No receiver is disabled.")


def _endpoint(url: str) -> str:
    target = targets.parse(url)
    if not isinstance(target, targets.WebhookTarget):
        raise InvalidRequest(f"{url!r:.200} is no URL of a receiver: https://host/path")
    return target.endpoint
