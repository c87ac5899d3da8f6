"""Commands about the receivers of signed webhooks: show a secret, list the disabled receivers, enable one."""

from typing import Annotated

import typer

from outwait.cli.output import print_json, print_table, say, when
from outwait.cli.session import Json, Session, current
from outwait.worker.model import targets
from outwait.worker.model.errors import InvalidRequest
from outwait.worker.net import signatures

Enable = Annotated[str | None, typer.Option(metavar="URL", help="Enable this receiver: send webhooks to it again.")]


def webhook_secret(
    context: typer.Context,
    url: Annotated[str, typer.Argument(metavar="URL", help="The target: https://shop.example/hook.")],
    as_json: Json = False,
) -> None:
    """Print the secret with which a receiver checks signatures.

    During a rotation of secrets, all of them are printed, the newest first.
    """
    settings = current(context).settings()
    if not settings.webhooks.secrets:
        raise InvalidRequest("OUTWAIT_WEBHOOKS__SECRETS is empty: `openssl rand -hex 32` makes a secret for it")
    receiver = _receiver(url)
    secrets = [signatures.secret(master.get_secret_value(), receiver) for master in settings.webhooks.secrets]
    if as_json:
        print_json({"endpoint": receiver, "secrets": secrets})
    else:
        typer.echo("\n".join(secrets))


def endpoints(context: typer.Context, enable: Enable = None, as_json: Json = False) -> None:
    """List the disabled receivers of webhooks, or enable one. A receiver is disabled when it answers 410 Gone."""
    session = current(context)
    if enable is not None:
        _enable(session, enable, as_json=as_json)
        return
    disabled = session.ask(lambda client: client.disabled_receivers())
    if as_json:
        print_json({"disabled": disabled})
    else:
        rows = [(receiver.url, when(receiver.since), receiver.why) for receiver in disabled]
        print_table(("disabled", "since", "why"), rows, empty="No receiver is disabled.")


def _enable(session: Session, url: str, *, as_json: bool) -> None:
    receiver = _receiver(url)
    was_disabled = session.ask(lambda client: client.enable(receiver))
    if as_json:
        print_json({"url": receiver, "enabled": True, "was_disabled": was_disabled})
        return
    say(f"{receiver} is enabled." if was_disabled else f"{receiver} was not disabled.")
    target = targets.canonical(targets.parse(url))
    say(f"`outwait replay --all --target '{target}'` repeats the deliveries that were given up.")


def _receiver(url: str) -> str:
    target = targets.parse(url)
    if not isinstance(target, targets.WebhookTarget):
        raise InvalidRequest(f"{url!r:.200} is not the URL of a receiver, which looks like https://host/path")
    return target.receiver
