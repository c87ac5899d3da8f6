"""The command line: `outwait`. One file a group of commands; nothing imports this room.

Commands ask the store through `StoreClient`; what takes long to import (Celery, Flower) is imported by the
commands that need it.
"""

import os
import sys
from contextlib import suppress


def main() -> None:
    """Run the command that the process was started with."""
    with suppress(FileNotFoundError):  # the working folder is gone, and hides nothing
        _put_installed_packages_first()
    from outwait.cli.root import run

    run()


def _put_installed_packages_first() -> None:
    """Move the user's folders to the end of Python's search path, before anything but Python's own is imported.

    They are the working folder, which `python -m` puts first, and those of PYTHONPATH. So a `config.py` or `redis.py`
    of the user's hides no package that we import; handlers still find theirs.
    """
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    users = {os.path.abspath(folder) for folder in ("", *named)}  # noqa: PTH100 - pathlib may be the user's
    sys.path.sort(key=lambda folder: os.path.abspath(folder) in users)  # noqa: PTH100 - same
