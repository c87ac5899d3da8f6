"""The HTTP API against programs that no one here wrote: schemathesis attacks it, a generated client uses it."""

import asyncio
import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from types import ModuleType
from typing import Any

import httpx
import pytest

from outwait.worker.store.access import Access, Scope
from outwait.worker.store.connection import Connection
from tests.patience import PATIENCE
from tests.stack import ROOT, Stack

BIN = Path(sys.executable).parent

SEED, EXAMPLES, SECONDS = 4, 6, 25


@pytest.fixture(scope="module")
def stack(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("contract")
    with Stack(redis_url, folder, options={"behaviour": {"duration": 0.05}}) as running:
        running.web()
        running.worker()
        yield running


def new_key(stack: Stack, scopes: set[Scope]) -> str:
    async def make() -> str:
        connection = Connection(stack.settings)
        made = await Access(connection).create("contract", scopes)
        await connection.close()
        return made.text

    return asyncio.run(make())


@pytest.fixture(scope="module")
def key(stack: Stack) -> str:
    return new_key(stack, set(Scope))


@pytest.fixture
def _resumed(stack: Stack, key: str) -> Iterator[None]:
    """Providers that are paused by the attack go on soon, so that jobs end and nobody waits for them in vain."""
    over = Event()

    def resume() -> None:
        with httpx.Client(base_url=stack.web_url, headers={"Authorization": f"Bearer {key}"}) as api:
            while not over.wait(0.3):
                for name in ("elevateai", "ringcentral", "unless"):
                    with suppress(httpx.HTTPError):
                        api.post(f"/v1/providers/{name}/resume")

    thread = Thread(target=resume)
    thread.start()
    yield
    over.set()
    thread.join()


@pytest.mark.slow
@pytest.mark.usefixtures("_resumed")
def test_schemathesis_finds_nothing_wrong_with_the_api(stack: Stack, key: str, tmp_path: Path) -> None:
    options = (
        f"--checks all --seed {SEED} --max-examples {EXAMPLES} --max-time {SECONDS} --no-color"
        f" --request-timeout {PATIENCE:g}"
    )
    run = subprocess.run(
        [
            *(BIN / "schemathesis", "--config-file", ROOT / "tests" / "schemathesis.toml"),
            *("run", f"{stack.web_url}/v1/openapi.json"),
            *options.split(),
        ],
        cwd=tmp_path,
        env=os.environ | {"API_KEY": key, "KEYS_KEY": new_key(stack, {Scope.KEYS})},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE + SECONDS,
    )
    sys.stdout.write(run.stdout[-20_000:] + run.stderr[-2000:])
    assert run.returncode == 0
    assert "22 selected / 22 total" in run.stdout, "an operation was added or left out: say here how many there are"
    assert " 500 " not in stack.logs("web")


@pytest.fixture
def generated(stack: Stack, tmp_path: Path) -> Iterator[ModuleType]:
    """The package that a public generator makes of the running server's document."""
    (tmp_path / "config.yml").write_text("post_hooks: []\n")
    command = [BIN / "openapi-python-client", "generate", "--url", f"{stack.web_url}/v1/openapi.json"]
    options = ["--output-path", "outwait_api", "--meta", "none", "--config", "config.yml", "--fail-on-warning"]
    run = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    sys.path.insert(0, str(tmp_path))
    yield importlib.import_module("outwait_api")
    sys.path.remove(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "outwait_api"]:
        del sys.modules[name]


def part(name: str) -> Any:
    return importlib.import_module(f"outwait_api.{name}")


@pytest.mark.slow
def test_a_generated_client_submits_a_job_and_reads_its_result(stack: Stack, key: str, generated: ModuleType) -> None:
    models = part("models")
    with generated.AuthenticatedClient(base_url=stack.web_url, token=key, timeout=PATIENCE) as client:
        params = models.JobRequestParams.from_dict({"query": "why?", "sessionId": "s", "visitorId": "v"})
        request = models.JobRequest(provider="unless", operation="query", params=params)
        made = part("api.jobs.enqueue").sync(client=client, body=request)
        assert isinstance(made, models.EnqueuedJob)
        job = part("api.jobs.get_job").sync(made.id, client=client, wait=30)
        assert isinstance(job, models.Job)
        assert (job.state, job.ledger.submits) == (models.JobState.SUCCEEDED, 1)
        result = part("api.jobs.get_job_result").sync_detailed(made.id, client=client)
        assert "answer" in result.parsed
        timeline = part("api.jobs.get_job_timeline").sync(made.id, client=client)
        assert [event.event for event in timeline.timeline][:2] == ["enqueued", "submitted"]
        events = part("api.jobs.follow_job").sync_detailed(made.id, client=client)
        assert '"event":"enqueued"' in events.content.decode()
        assert "event: end" in events.parsed
        batch = models.JobBatch(jobs=[request, models.JobRequest(provider="nobody", operation="query")])
        answer = part("api.jobs.enqueue").sync(client=client, body=batch)
        assert [item.status for item in answer.jobs] == [201, 422]
        assert answer.jobs[1].problem.code == "invalid_request"


def test_the_documents_copy_is_what_the_code_tells(stack: Stack) -> None:
    spec = importlib.util.spec_from_file_location("openapi", ROOT / "docs" / "openapi.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.FILE.read_text() == script.text(), "run `make docs`"
    document = httpx.get(f"{stack.web_url}/v1/openapi.json").json()
    assert document["paths"].keys() == {path for path in document["paths"] if path.startswith("/v1/")}
