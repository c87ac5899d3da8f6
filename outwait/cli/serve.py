"""The commands that run one process until Ctrl-C or SIGTERM: worker, web, Flower, sandbox."""

import logging
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from outwait.cli.output import print_line
from outwait.cli.ports import not_free
from outwait.cli.session import Json, current
from outwait.config import exposure
from outwait.config.http_groups import FlowerSettings
from outwait.config.logs import configure

log = logging.getLogger(__name__)

REVOCABLE = 'task.state == "RECEIVED"'
"""The condition in Flower's task page under which it shows a Revoke button."""

BUTTONS = "{% if not read_only %}"
"""Where Flower's task page begins its buttons."""

WITHOUT_LOGIN = """{% if read_only %}<p>Flower runs without a login, so it has no buttons
(OUTWAIT_FLOWER__BASIC_AUTH sets one). <code>outwait cancel</code> and the pages of <code>outwait web</code> cancel
a job.</p>{% end %}
      """


def worker(context: typer.Context) -> None:
    """Run one worker until Ctrl-C or SIGTERM. It can import handlers' modules from the current folder."""
    settings = current(context).settings()
    configure(settings.log)
    from outwait.worker.app import run_worker

    raise typer.Exit(run_worker(settings, f"outwait-{os.getpid()}@%h"))


def web(context: typer.Context) -> None:
    """Run the web process until Ctrl-C or SIGTERM: the HTTP API, the pages, providers' webhooks and metrics."""
    settings = current(context).settings()
    configure(settings.log)
    _warn(exposure.of_web(settings))
    from outwait.web.serve import serve

    try:
        serve(settings)
    except OSError as error:
        address, port = settings.web.address, settings.web.port
        raise not_free("the web process", address, port, "OUTWAIT_WEB__PORT", error) from error


def flower(context: typer.Context) -> None:
    """Run Flower, which shows jobs and workers in a browser, until Ctrl-C or SIGTERM."""
    settings = current(context).settings()
    configure(settings.log)
    _warn(exposure.of_flower(settings))
    from outwait.worker.app import app

    app.conf.broker_transport = None  # Flower shows queues only with Celery's own transport; only workers need ours
    _run_flower(app, settings.flower)


def _warn(exposures: Iterable[exposure.Exposure]) -> None:
    for each in exposures:
        log.warning("exposed", extra={"setting": each.name, "why": each.text})


def _run_flower(app: Any, settings: FlowerSettings) -> None:
    from flower.app import Flower
    from flower.options import options
    from flower.urls import settings as web

    # Set here, not on a command line, so that no other user of this machine can read the password.
    options.address, options.port = settings.address, settings.port
    options.max_tasks = settings.max_tasks
    options.basic_auth = [settings.basic_auth.get_secret_value()] if settings.basic_auth else []
    options.read_only = settings.basic_auth is None  # Flower then refuses what buttons send: better that there are none
    server = Flower(capp=app, options=options, **web, template_loader=_templates(web["template_path"]))
    signal.signal(signal.SIGTERM, _leave)
    try:
        port = server.start_http_server()
    except OSError as error:
        raise not_free("Flower", settings.address, settings.port, "OUTWAIT_FLOWER__PORT", error) from error
    log.info("flower-listening", extra={"url": f"http://{settings.address}:{port}"})
    try:
        server.start()
    except (KeyboardInterrupt, SystemExit):
        server.stop()


def _templates(folder: str) -> Any:
    """Flower's own templates, with the Revoke button also for waiting jobs, whose states are not Celery's.

    Without a login there is no button, and the page of a job says so.
    """
    from tornado.template import Loader, Template

    class Templates(Loader):
        def _create_template(self, name: str) -> Template:
            text = (Path(self.root) / name).read_text(encoding="utf-8")
            text = text.replace(REVOCABLE, f'{REVOCABLE} or task.state in ("PENDING", "POLLING")')
            if name == "task.html":
                text = text.replace(BUTTONS, WITHOUT_LOGIN + BUTTONS, 1)
            return Template(text, name=name, loader=self)

    return Templates(folder)


def _leave(*_: object) -> NoReturn:
    raise SystemExit(0)


def sandbox(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free port.")] = 8099,
    options: Annotated[str, typer.Option(metavar="JSON", help="Its behaviour; see docs/sandbox.md.")] = "{}",
    quiet: Annotated[bool, typer.Option("--quiet", help="Do not print the variables to set.")] = False,
    as_json: Json = False,
) -> None:
    """Run the sandbox: the APIs of all providers on this machine, for tests. Prints the variables to set."""
    from outwait.sandbox import environment, serve
    from outwait.sandbox.behaviour import BadOrder
    from outwait.sandbox.options import read_options

    def print_usage(base_url: str) -> None:
        if as_json:
            print_line({"base_url": base_url, "environment": environment(base_url)})
        else:
            exports = (f"export {name}='{value}'" for name, value in environment(base_url).items())
            sys.stdout.write("\n".join((f"# The sandbox listens at {base_url}", *exports)) + "\n")
            sys.stdout.flush()

    try:
        sandbox_options = read_options(options)
    except BadOrder as error:
        raise typer.BadParameter(str(error), param_hint="--options") from error
    try:
        serve(sandbox_options, host, port, None if quiet else print_usage)
    except OSError as error:
        raise not_free("the sandbox", host, port, "--port", error) from error
