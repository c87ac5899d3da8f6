"""docs/extending.md names files, and names in them, that there are."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text()

NAMES = {
    "worker/model/targets.py": ("Target =", "_by_scheme", "def canonical", "FORMS", "def _name"),
    "tasks/handlers/delivery.py": ("class Handlers", "def deliver", "Threads", "def _lane"),
    "worker/store/streams.py": ("class Streams",),
    "tests/unit/test_targets.py": ("TARGETS =", "EXAMPLES ="),
    "tests/integration/test_outcome_table.py": ("ROWS =",),
    "outwait/cli/jobs.py": ("def _print_jobs",),
    "worker/store/rows.py": ("def job(",),
    "outwait/web/pages/templates/macros.html": ("macro moment",),
    "outwait/web/pages/rendering.py": ('"redact"',),
    "worker/model/jobs.py": ("TRANSITIONS", "JobState.WAITING:", "due: float | None"),
    "worker/model/outcomes.py": ("class Uncertain", "Outcome ="),
    "worker/store/lua/record/jobs.lua": (
        "verbs.uncertain",
        "load_job(",
        "set_state(",
        "move(",
        "count(",
        "note(",
        "OPEN[",
    ),
    "worker/store/lua/record.lua": ("waiting ->",),
    "tasks/poll.py": ("def _unknown_id",),
    "tests/integration/test_life_property.py": ("def outcomes(",),
}


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:outwait|worker|tasks|tests)/[\w/.]+)`", PAGE))))
def test_every_file_that_the_page_names_is_there(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("path", NAMES)
def test_what_the_page_says_of_a_file_is_so(path: str) -> None:
    text = (ROOT / path).read_text()
    assert [name for name in NAMES[path] if name not in text] == []
