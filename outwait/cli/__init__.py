"""The command line: `outwait`. One file a group of commands; nothing imports this room.

Commands ask the store through `StoreClient`; what takes long to import (Celery, Flower) is imported by the
commands that need it.
"""


def main() -> None:
    """Run the command that the process was started with."""
    from outwait.cli.root import run

    run()
