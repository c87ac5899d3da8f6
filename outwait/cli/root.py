"""The root command: its options and its commands. It turns every error into a message and an exit code."""

import sys
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from outwait.cli import (
    audit,
    decide,
    demo,
    doctor,
    jobs,
    keys,
    provider_webhooks,
    providers,
    receivers,
    serve,
    submit,
    up,
    watch,
)
from outwait.cli.exits import report_error
from outwait.cli.output import say
from outwait.cli.session import DATA, Session, current
from outwait.config.exits import Exit

_EXIT_CODES = "Exit codes: " + ", ".join(f"{code.value} {code.name.lower().replace('_', ' ')}" for code in Exit) + "."

app = typer.Typer(
    name="outwait",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Outwait runs jobs on slow, asynchronous AI APIs: it submits each job once, waits for it however long it "
    "takes, and hands the result to every handler.",
    epilog=_EXIT_CODES + " docs/command-line.md explains them.",
)


def _print_version(requested: bool) -> None:
    if requested:
        sys.stdout.write(f"outwait {version('outwait')}\n")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    data: Annotated[
        Path,
        typer.Option(help="Folder in which `outwait up` keeps its data; other commands find a running one through it."),
    ] = DATA,
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    session = current(context)
    session.data, session.debug = data, debug


for _panel, _commands in {
    "Start": (demo.demo, up.up, serve.worker, serve.web, serve.flower, serve.sandbox),
    "Jobs": (
        submit.submit,
        jobs.status,
        watch.watch,
        jobs.jobs,
        jobs.result,
        jobs.timeline,
        decide.cancel,
        jobs.held,
        decide.resolve,
        decide.repoll,
        provider_webhooks.webhooks,
        jobs.dead,
        decide.replay,
        jobs.parked,
    ),
    "Providers": (providers.providers, providers.pause, providers.resume),
    "Access": (audit.audit,),
    "Receivers": (receivers.webhook_secret, receivers.endpoints),
    "Check": (doctor.config, doctor.doctor),
}.items():
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)

app.add_typer(keys.keys, name="keys", rich_help_panel="Access", no_args_is_help=True)


def run() -> None:
    """Run the command line of this process and exit."""
    session = Session()
    try:
        app(obj=session)
    except Exception as error:  # noqa: BLE001 - the last resort: every error becomes a message and an exit code
        if session.debug:
            say(traceback.format_exc())
        sys.exit(report_error(error))
