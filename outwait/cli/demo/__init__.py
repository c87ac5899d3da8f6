"""`outwait demo`: the whole of Outwait on this machine, against the sandbox, with every kind of end."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running afterwards, until Ctrl-C.")] = False,
    results: Annotated[Path, typer.Option(help="Folder for results and logs.")] = Path("demo-results"),
) -> None:
    """Watch Outwait at work: Redis, the sandbox, a worker, Flower, and over thirty jobs of three providers.

    Needs no account and costs nothing. Code 0 if every job ended as planned and nothing was paid twice.
    """
    from outwait.cli.demo.play import play  # the sandbox is a web server: nobody else waits for its import

    raise typer.Exit(play(results, keep=keep))
