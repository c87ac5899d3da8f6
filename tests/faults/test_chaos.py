"""A short run of chaos; `make chaos` is the long one."""

import sys
from pathlib import Path

from tests.faults.chaos import run
from tests.faults.plan import SHORT, plan

SEED = 20


async def test_the_books_balance(tmp_path: Path) -> None:
    books = await run(tmp_path, SHORT, SEED, "always")
    sys.stdout.write(f"seed {SEED}\n{books.text()}")
    assert not books.wrong
    assert books.figures["worker killed"] == SHORT.kills
    assert books.figures["jobs accepted"] == SHORT.jobs


def test_a_seed_makes_one_plan() -> None:
    assert plan(1, SHORT) == plan(1, SHORT)
    assert plan(1, SHORT) != plan(2, SHORT)
