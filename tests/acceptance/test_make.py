"""`make` on a fresh clone says what it does, and on a terminal shows how far it is."""

import os
import subprocess
from pathlib import Path

from tests.stack import ROOT
from tests.terminal import typed


def words(folder: Path) -> list[str]:
    """What would be done for a first `make demo`, with the environment in another folder."""
    return ["make", "-n", f"VENV={folder}", "demo"]


def test_a_first_installation_shows_its_progress_on_a_terminal(tmp_path: Path) -> None:
    done = typed(words(tmp_path / "venv"), ROOT, os.environ, width=200)
    (pip,) = [line for line in done.splitlines() if "--require-hashes" in line]
    assert "--quiet" not in pip
    assert "--progress-bar off" not in pip


def test_a_log_is_not_filled_but_says_what_is_done_and_how_long_it_takes(tmp_path: Path) -> None:
    done = subprocess.run(words(tmp_path / "venv"), cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (pip,) = [line for line in done.splitlines() if "--require-hashes" in line]
    assert "--quiet" in pip
    assert "packages of requirements.lock" in done
    assert "minutes" in done
