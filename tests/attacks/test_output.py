"""Texts of providers and tenants are shown in terminals and logs: they are read there, and control nothing."""

import io
import json
import logging
import re
import unicodedata
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from outwait.client.store import StoreClient
from outwait.config.groups import LogSettings
from outwait.config.logs import JsonLines, TextLines
from outwait.worker.model.acts import ActKind, Actor, Via
from outwait.worker.model.jobs import JobError, JobState, Step
from outwait.worker.model.lanes import Lane
from outwait.worker.model.outcomes import End, Submitted
from outwait.worker.store import codec
from outwait.worker.store.lanes import LanePolicy
from tests.forked import COMMAND
from tests.stack import Stack, query
from tests.terminal import typed

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\u202e\u2066\u200b\ufeff\u2028\r\b"
"""A new title, a cleared window, a colour in C1, DEL, directions of writing, nothing, a line's and a page's end."""

POLICY = LanePolicy(batch=10, lease_ms=60_000, cap=100)


def controls(text: str) -> set[str]:
    """Characters that are not shown but do something."""
    return {letter for letter in text if unicodedata.category(letter) in ("Cc", "Cf", "Zl", "Zp") and letter != "\n"}


@pytest.fixture(scope="module")
def stack(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(redis_url, tmp_path_factory.mktemp("output")) as stack:
        yield stack


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[StoreClient]:
    async with stack.client() as client:
        yield client


async def job(client: StoreClient, state: JobState) -> str:
    """A job whose provider said all of that."""
    job_id = (await client.enqueue(query(EVIL, metadata={"note": EVIL}))).job_id
    lanes = client._store.lanes
    (claim,) = await lanes.claim(Lane.of(Step.SUBMIT, "unless"), POLICY)
    await lanes.record(
        [Submitted(work_id=job_id, fence=claim.fence, external_id=f"{state}{EVIL}", countdown_ms=0, submits=1)]
    )
    (claim,) = await lanes.claim(Lane.of(Step.POLL, "unless"), POLICY)
    result = codec.blob(json.dumps({"answer": EVIL}, ensure_ascii=False).encode(), 10_000)
    error = JobError("provider_failed", f"no{EVIL}", {"why": EVIL}).text() if state is JobState.FAILED else ""
    end = End(
        work_id=job_id,
        fence=claim.fence,
        state=state,
        status=f"S{EVIL}",
        error=error,
        result=None if error else result,
        warning=EVIL,
    )
    await lanes.record([end])
    return job_id


async def test_no_command_passes_control_characters_on(stack: Stack, client: StoreClient) -> None:
    """Protected by outwait/cli/output.py, which everything that is printed goes through."""
    failed, succeeded = await job(client, JobState.FAILED), await job(client, JobState.SUCCEEDED)
    await client.acting(Actor(who="ops", via=Via.HTTP, key="1")).note(ActKind.PAUSE, about=EVIL, detail=EVIL)
    await client.pause("unless", EVIL)
    lines = [
        ["status", failed],
        ["timeline", failed],
        ["jobs"],
        ["result", failed],
        ["result", succeeded],
        ["watch", failed],
        ["providers"],
        ["audit"],
        ["repoll", f"job{EVIL}"],
    ]
    for line in lines:
        for words in (line, [*line, "--json"]):
            done = stack.run(*words)
            assert controls(done.stdout + done.stderr) == set(), words
    assert json.loads(stack.run("result", succeeded).stdout) == {"answer": EVIL}
    shown = json.loads(stack.run("status", failed, "--json").stdout)["job"]
    assert (shown["external_id"], shown["error"]["message"]) == (f"failed{EVIL}", f"no{EVIL}")
    assert json.loads(stack.run("watch", failed, "--json").stdout)["provider_status"] == f"S{EVIL}"
    traced = stack.run("--debug", "status", f"job{EVIL}")
    assert "Traceback" in traced.stderr
    assert controls(traced.stderr) == set()


def test_a_terminal_shows_them_as_characters(stack: Stack, tmp_path: Path) -> None:
    """Protected by outwait/cli/output.py and outwait/cli/board.py: rich adds its own sequences, and passes none on."""
    for words in (["jobs"], ["watch"], ["audit"]):
        shown = typed([*COMMAND, "outwait", *words], tmp_path, stack.environment, width=120)
        ours = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)  # colours and places of the cursor
        assert controls(ours) <= {"\r"}, words
        assert "owned" not in re.findall(r"\x1b\]([^\x07]*)", shown)


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_log_line_passes_them_on(form: str) -> None:
    """Protected by config/logs.py: a line stays one line, on a terminal too."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextLines() if LogSettings(format=form).format == "text" else JsonLines())
    log = logging.getLogger("attack")
    log.addHandler(handler)
    log.propagate = False
    log.warning("said %s", f"{EVIL}\nfaked", extra={"reason": EVIL, "words": f"a b{EVIL}\nfaked", EVIL: "x"})
    try:
        raise ValueError(EVIL)
    except ValueError:
        log.exception("broken")
    written = stream.getvalue()
    assert controls(written) == set()
    assert not [line for line in written.splitlines() if line.startswith("faked")]
    if form == "json":
        said, _ = (json.loads(line) for line in written.splitlines())
        assert (said["reason"], said["words"]) == (EVIL, f"a b{EVIL}\nfaked")
