"""A user's folder has files with the names of what we import: `tasks.py`, `redis.py` …; everything works."""

import os
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.hostile import HANDLERS, HostileFolder
from tests.patience import PATIENCE
from tests.stack import Stack, closed, query

BIN = Path(sys.executable).parent
OUTWAIT = [str(BIN / "outwait")]
MODULE = [sys.executable, "-m", "outwait"]

PATHS = {
    "the command": (OUTWAIT, {}),
    "the command, the folder on the path": (OUTWAIT, {"PYTHONPATH": "."}),
    "the module": (MODULE, {}),
    "the module, the folder on the path": (MODULE, {"PYTHONPATH": os.pathsep.join((".", "", "/nowhere"))}),
}


@pytest.mark.parametrize("name", PATHS)
def test_a_command_works_there(name: str, tmp_path: Path) -> None:
    command, variables = PATHS[name]
    folder = HostileFolder(tmp_path, command, **variables)
    assert "OUTWAIT_HANDLERS__MODULES" in folder.run("config")
    assert "outwait" in folder.run("--version")


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("the command", "note"),
        ("the module, the folder on the path", "crash"),  # it is delivered in a process of its own in the end
    ],
)
def test_everything_runs_there_and_handlers_import_their_neighbours(name: str, target: str, tmp_path: Path) -> None:
    command, variables = PATHS[name]
    folder = HostileFolder(tmp_path, command, **variables)
    with folder.up():
        assert folder.notes_after("--id", "job-1", "--target", target) == "job-1 corner-shop\n"
        levels = {finding["level"] for finding in folder.json("doctor", "--no-providers")}
        assert "error" not in levels
        for url in (f"{folder.web}/readyz", f"{folder.flower}/healthcheck"):
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                assert answer.status == 200


def test_the_demo_runs_there(tmp_path: Path) -> None:
    folder = HostileFolder(tmp_path, OUTWAIT, PYTHONPATH=".")
    assert "NOT" not in folder.run("demo")


async def test_celerys_own_command_starts_a_worker_in_an_ordinary_folder(redis_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "config.py").write_text("SHOP = 'corner-shop'\n")
    (folder / "my_handlers.py").write_text(HANDLERS)
    variables = {"OUTWAIT_HANDLERS__MODULES": "my_handlers"}
    options = {"behaviour": {"duration": 0.2}}
    with Stack(redis_url, tmp_path, options=options, variables=variables) as stack:
        command = [str(BIN / "celery"), "-A", "outwait.worker.app", "worker", "--pool=threads", "--concurrency=4"]
        stack.start(command, "worker", code=folder)
        async with stack.client() as client:
            job = await client.enqueue(query(targets=["note"]))
            await closed(client, job.job_id)
    assert (folder / "notes.txt").read_text() == f"{job.job_id} corner-shop\n"
