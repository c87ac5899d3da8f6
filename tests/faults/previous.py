"""The release before this one, as a rolling upgrade has it at work beside this one for a while."""

import subprocess
import sys
import tarfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

from tests import stack

NAMES = ("v0.1.0", "76e49fd81")
"""Its tag, and its commit where tags were not fetched."""

MISSING = f"the history does not reach back to the previous release: git fetch --tags --unshallow ({NAMES[0]})"

WORKER = [
    "env",
    "-u",
    "COVERAGE_PROCESS_CONFIG",
    "-u",
    "COVERAGE_PROCESS_START",
    sys.executable,
    "-m",
    "worker.cli",
    "worker",
]
"""Its own lines are not measured: the report could not find them."""

ADDED = (
    "OUTWAIT_WEB__",
    "OUTWAIT_TENANTS__",
    "OUTWAIT_WEBHOOKS__",
    "OUTWAIT_OUTBOUND__",
    "OUTWAIT_TRACES__",
    "OUTWAIT_DELIVER__PER_",
    "OUTWAIT_PROVIDERS__RINGCENTRAL__SAFETY_POLL_EVERY",
)
"""Settings that it does not know, and would refuse."""


def checkout(folder: Path) -> Path | None:
    """Its code in a folder of its own; None where the history does not reach back to it."""
    for name in NAMES:
        asked = ["git", "-C", str(stack.ROOT), "archive", name, "config", "worker", "tasks"]
        try:
            answer = subprocess.run(asked, capture_output=True, check=False)
        except OSError:
            return None
        if answer.returncode == 0:
            with tarfile.open(fileobj=BytesIO(answer.stdout)) as files:
                files.extractall(folder, filter="data")
            return folder
    return None


def without(variables: Iterable[str]) -> dict[str, str]:
    """What takes the settings that it does not know out of these; an empty one counts as none."""
    return {name: "" for name in variables if name.startswith(ADDED)}
