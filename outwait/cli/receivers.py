"""Commands about the receivers of signed webhooks: show a secret, list the disabled receivers, enable one."""

import re
from typing import Annotated

import typer

from outwait.cli.output import print_json, print_table, say, when
from outwait.cli.session import Json, Session, current
from outwait.worker.model import targets
from outwait.worker.model.errors import InvalidRequest
from outwait.worker.model.jobs import TENANT_PATTERN
from outwait.worker.net import signatures

Enable = Annotated[str | None, typer.Option(metavar="URL", help="Enable this receiver: send webhooks to it again.")]
Tenant = Annotated[
    str | None, typer.Option(help="The tenant whose results are sent; without it, jobs without a tenant.")
]


def webhook_secret(
    context: typer.Context,
    url: Annotated[str, typer.Argument(metavar="URL", help="The target: https://shop.example/hook.")],
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Print the secret with which a receiver checks signatures. Each tenant has another one for the same receiver.

    Without a tenant it is the secret for jobs without a tenant, and for receivers that OUTWAIT_WEBHOOKS__SHARED names.
    During a rotation of secrets, all of them are printed, the newest first.
    """
    settings = current(context).settings()
    if not settings.webhooks.secrets:
        raise InvalidRequest("OUTWAIT_WEBHOOKS__SECRETS is empty: `openssl rand -hex 32` makes a secret for it")
    receiver, whose = _receiver(url), _tenant(tenant)
    secrets = [
        signatures.secret(master.get_secret_value(), receiver, whose or "") for master in settings.webhooks.secrets
    ]
    if as_json:
        print_json({"endpoint": receiver, "tenant": whose, "secrets": secrets})
    else:
        typer.echo("\n".join(secrets))


def endpoints(context: typer.Context, enable: Enable = None, tenant: Tenant = None, as_json: Json = False) -> None:
    """List the disabled receivers of webhooks, or enable one. A receiver that answers 410 Gone to a tenant's result is
    disabled for that tenant.
    """
    session, whose = current(context), _tenant(tenant)
    if enable is not None:
        _enable(session, enable, whose, as_json=as_json)
        return
    disabled = session.ask(lambda client: client.disabled_receivers())
    if whose:
        disabled = [receiver for receiver in disabled if receiver.tenant == whose]
    if as_json:
        print_json({"disabled": disabled})
    else:
        rows = [(receiver.url, receiver.tenant or "", when(receiver.since), receiver.why) for receiver in disabled]
        print_table(("disabled", "tenant", "since", "why"), rows, empty="No receiver is disabled.")


def _enable(session: Session, url: str, tenant: str | None, *, as_json: bool) -> None:
    receiver = _receiver(url)
    was_disabled = session.ask(lambda client: client.enable(receiver, tenant))
    if as_json:
        print_json({"url": receiver, "tenant": tenant, "enabled": True, "was_disabled": was_disabled})
        return
    whose = f" for tenant {tenant}" if tenant else ""
    say(f"{receiver} is enabled{whose}." if was_disabled else f"{receiver} was not disabled{whose}.")
    target = targets.canonical(targets.parse(url))
    say(f"`outwait replay --all --target '{target}'` repeats the deliveries that were given up.")


def _tenant(name: str | None) -> str | None:
    """A tenant as it was typed. Raises InvalidRequest: a secret for a name that no tenant can have helps nobody."""
    if name is not None and not re.fullmatch(TENANT_PATTERN, name):
        raise InvalidRequest(f"{name[:100]!r} cannot be a tenant: up to 60 letters, digits and _ . @ -")
    return name


def _receiver(url: str) -> str:
    target = targets.parse(url)
    if not isinstance(target, targets.WebhookTarget):
        raise InvalidRequest(f"{url!r:.200} is not the URL of a receiver, which looks like https://host/path")
    return target.receiver
