"""The command line as a user types it: `outwait up --sandbox` in a folder, and the commands beside it."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from outwait.worker.local.embedded import free_port
from tests import forked
from tests.patience import PATIENCE, wait_until

OUTWAIT = str(Path(sys.executable).parent / "outwait")
QUESTION = ["unless", "query", "-p", "sessionId=s", "-p", "visitorId=v"]
HANDLERS = """
from outwait import Envelope, handler
from outwait.worker.model.errors import DeliveryRefused

@handler("refuses")
def refuses(envelope: Envelope) -> None:
    raise DeliveryRefused("never will")
"""


def environment(**ours: str) -> dict[str, str]:
    given = {name: value for name, value in os.environ.items() if not name.startswith("OUTWAIT_")}
    return given | {"OUTWAIT_PROVIDERS__UNLESS__POLL_EVERY": "0.2"} | ours


def processes_of(folder: Path) -> list[str]:
    """Command lines of the processes that run in this folder, or over it."""
    listing = subprocess.run(["ps", "-ww", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    pids = [line.split(maxsplit=1) for line in listing.splitlines()]
    return [args for pid, args in pids if str(folder) in args or _folder(pid) == folder]


def _folder(pid: str) -> Path | None:
    try:
        return Path(f"/proc/{pid}/cwd").resolve(strict=True)
    except OSError:
        return None


class Shell:
    """Runs commands in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *words: str, stdin: str = "", **ours: str) -> subprocess.CompletedProcess[str]:
        return forked.run(["outwait", *words], self.folder, environment(**ours), stdin)

    def json(self, *words: str) -> Any:
        done = self.run(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def start(self, *words: str, **ours: str) -> "subprocess.Popen[str]":
        """A process of its own; ports are free ones, for other folders' processes run beside it."""
        env = environment(**{"OUTWAIT_WEB__PORT": str(free_port())} | ours)
        with (self.folder / "log.txt").open("a") as log:
            return subprocess.Popen([OUTWAIT, *words], cwd=self.folder, env=env, stdout=log, stderr=log)

    def up(self, *words: str, **ours: str) -> "subprocess.Popen[str]":
        """`outwait up`, when its worker is ready."""
        ready = self.log.count(" ready.")
        up = self.start("up", *words, **ours)
        wait_until(lambda: up.poll() is not None or self.log.count(" ready.") > ready, what="a worker is ready")
        assert up.poll() is None, self.log
        return up

    @property
    def log(self) -> str:
        file = self.folder / "log.txt"
        return file.read_text() if file.exists() else ""


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A folder over which `outwait up --sandbox` runs."""
    shell = Shell(tmp_path_factory.mktemp("up"))
    (shell.folder / "my_handlers.py").write_text(HANDLERS)
    up = shell.up("--sandbox", "--no-flower", OUTWAIT_HANDLERS__MODULES="my_handlers")
    yield shell
    up.terminate()
    up.wait(PATIENCE)


def ask(shell: Shell, text: str, *more: str, **order: Any) -> str:
    """Submit one question; gives the job's id."""
    metadata = json.dumps({"sandbox": {"duration": 0.3, **order}})
    done = shell.run("submit", *QUESTION, "-p", f"query={text}", "-p", f"metadata={metadata}", *more)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_job_from_submit_to_result(shell: Shell) -> None:
    job = ask(shell, "Which plans are there?", "--id", "plans", "--target", "file:answers.jsonl")
    assert job == "plans"
    watched = shell.run("watch", job)
    assert watched.returncode == 0
    assert re.search(r"plans  unless query  succeeded", watched.stdout)
    assert "Which plans are there?" in json.loads(shell.run("result", job).stdout)["answer"]
    shown = shell.json("status", job)
    assert shown["job"]["state"] == "succeeded"
    assert shown["job"]["ledger"]["submits"] == 1
    wait_until(lambda: [delivery["state"] for delivery in shell.json("status", job)["deliveries"]] == ["delivered"])
    line = json.loads((shell.folder / "outwait-data" / "results" / "answers.jsonl").read_text())
    assert line["job_id"] == job
    events = [entry["event"] for entry in shell.json("timeline", job)]
    assert events[0] == "enqueued"
    assert "submitted" in events


def test_the_same_job_twice_and_another_under_its_id(shell: Shell) -> None:
    ask(shell, "same", "--id", "same")
    again = shell.run(
        "submit",
        *QUESTION,
        "-p",
        "query=same",
        "-p",
        'metadata={"sandbox": {"duration": 0.3}}',
        "--id",
        "same",
        "--json",
    )
    assert json.loads(again.stdout) == {"job_id": "same", "created": False}
    other = shell.run("submit", *QUESTION, "-p", "query=other", "--id", "same")
    assert other.returncode == 3
    assert "use a new one" in other.stderr
    assert "Traceback" not in other.stderr


def test_lines_from_standard_input(shell: Shell) -> None:
    good = {"provider": "unless", "operation": "query", "params": {"query": "line", "sessionId": "s", "visitorId": "v"}}
    lines = [
        json.dumps(good | {"job_id": "line-1"}),
        "broken",
        json.dumps(good | {"operation": "nope"}),
        json.dumps(good),
    ]
    done = shell.run("submit", "-", "--json", stdin="\n".join(lines))
    assert done.returncode == 3
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert printed[0] == {"line": 1, "job_id": "line-1", "created": True}
    assert [line.get("error") for line in printed] == [None, "invalid_request", "invalid_request", None]
    assert [line["line"] for line in printed] == [1, 2, 3, 4]
    assert "2 created, 0 existed already, 2 refused" in done.stderr


def test_a_file_submitted_again_gives_the_same_jobs(shell: Shell) -> None:
    params = {"query": "file", "sessionId": "s", "visitorId": "v"}
    requests = [{"job_id": f"f-{n}", "provider": "unless", "operation": "query", "params": params} for n in range(3)]
    (shell.folder / "jobs.jsonl").write_text("\n".join(map(json.dumps, requests)))
    first, second = shell.run("submit", "jobs.jsonl"), shell.run("submit", "jobs.jsonl")
    assert first.stdout.split() == second.stdout.split() == ["f-0", "f-1", "f-2"]
    assert "0 created, 3 existed already" in second.stderr


def test_a_job_that_fails(shell: Shell) -> None:
    job = ask(shell, "fails", outcome="failure")
    assert shell.run("watch", job).returncode == 1
    result = shell.run("result", job)
    assert result.returncode == 1
    assert "provider_failed" in result.stderr
    assert result.stdout == ""
    assert job in [listed["id"] for listed in shell.json("jobs", "--state", "failed")["jobs"]]


def test_a_job_that_has_not_ended(shell: Shell) -> None:
    job = ask(shell, "slow", outcome="never")
    assert shell.run("result", job).returncode == 5
    assert shell.run("watch", job, "--timeout", "0.1").returncode == 5


def test_an_answer_that_was_lost_is_held(shell: Shell) -> None:
    job = ask(shell, "lost", faults=[{"fault": "drop_after", "on": "submit"}])
    wait_until(lambda: job in [listed["id"] for listed in shell.json("held")["jobs"]])


def test_a_delivery_that_was_given_up_is_listed_and_replayed(shell: Shell) -> None:
    job = ask(shell, "dead", "--target", "refuses")

    def dead() -> list[dict[str, Any]]:
        return [delivery for delivery in shell.json("dead")["deliveries"] if delivery["job_id"] == job]

    wait_until(lambda: bool(dead()))
    assert dead()[0]["error"]["message"] == "never will"
    assert shell.json("replay", job) == {"job_id": job, "deliveries": 1}
    assert shell.json("status", job)["job"]["ledger"]["submits"] == 1
    wait_until(lambda: bool(dead()))


def test_pages_of_jobs(shell: Shell) -> None:
    for n in range(3):
        ask(shell, f"page {n}", "--id", f"page-{n}")
    seen, cursor = [], None
    for _ in range(50):
        page = shell.json("jobs", "--limit", "2", "--since", "10m", *(["--cursor", cursor] if cursor else []))
        seen += [job["id"] for job in page["jobs"]]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen))
    assert {"page-0", "page-1", "page-2"} <= set(seen)
    assert shell.json("jobs", "--until", "10m")["jobs"] == []
    assert shell.json("jobs", "--provider", "elevateai")["jobs"] == []


def test_status_of_everything(shell: Shell) -> None:
    ask(shell, "counted")
    shown = shell.json("status")
    assert sum(shown["jobs"]["unless"].values()) >= 1
    assert {"lane", "due_now", "waiting", "leased", "oldest_due_age"} <= set(shown["lanes"][0])
    assert "unless" in shell.run("status").stdout


def test_watch_without_a_job_takes_those_that_are_open(shell: Shell) -> None:
    job = ask(shell, "open", outcome="never")
    done = shell.run("watch", "--timeout", "0.1", "--json")
    assert done.returncode == 5
    assert job in [json.loads(line)["id"] for line in done.stdout.splitlines()]


def test_doctor_finds_everything_well(shell: Shell) -> None:
    wanted = ["workers", "maxmemory-policy", "appendonly", "clock", "provider unless", "provider ringcentral"]

    def levels() -> set[str]:
        levels = {finding["subject"]: finding["level"] for finding in json.loads(shell.run("doctor", "--json").stdout)}
        return {levels[subject] for subject in wanted}

    wait_until(lambda: levels() == {"ok"})  # it waits a moment for workers' answers, and a busy one misses that


def test_doctor_tells_wrong_credentials(shell: Shell) -> None:
    done = shell.run(
        "doctor", "--json", OUTWAIT_PROVIDERS__UNLESS__API_KEY="wrong", HTTPS_PROXY="http://proxy.example:3128"
    )
    assert done.returncode == 1
    findings = {finding["subject"]: finding for finding in json.loads(done.stdout)}
    assert findings["provider unless"]["level"] == "error"
    assert "OUTWAIT_PROVIDERS__UNLESS__" in findings["provider unless"]["advice"]
    assert findings["provider elevateai"]["level"] == "ok"
    assert (findings["proxy"]["level"], findings["proxy"]["message"]) == ("warning", "HTTPS_PROXY: set, but not used")
    assert "OUTWAIT_OUTBOUND__PROXY" in findings["proxy"]["advice"]


def test_config_hides_secrets_and_says_where_values_come_from(shell: Shell) -> None:
    done = shell.run("config", OUTWAIT_PROVIDERS__UNLESS__API_KEY="hush-hush", OUTWAIT_POLL__CAP="77")
    assert "hush-hush" not in done.stdout
    assert re.search(r"OUTWAIT_POLL__CAP\s+77\s+environment", done.stdout)
    password = (shell.folder / "outwait-data" / "redis.password").read_text()
    assert password not in done.stdout


def test_what_up_leaves_for_other_commands_is_for_this_user_alone(shell: Shell) -> None:
    file = shell.folder / "outwait-data" / "running.json"
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("words", "ours", "code", "message"),
    [
        (["result", "no-such-job"], {}, 4, "no job has the id"),
        (["submit", "nope", "query"], {}, 3, "elevateai, ringcentral, unless"),
        (["submit", *QUESTION], {}, 3, "query: is missing"),
        (["jobs", "--state", "nope"], {}, 2, "nope"),
        (["nope"], {}, 2, "nope"),
        (["jobs"], {"OUTWAIT_WORKER__CONCURRENCY": "0"}, 6, "OUTWAIT_WORKER__CONCURRENCY"),
        (["jobs"], {"OUTWAIT_REDIS_URL": "redis://127.0.0.1:1/0"}, 7, "outwait up"),
        (["jobs", "--cursor", "nope"], {}, 3, "cursor"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_errors_end_in_a_clear_line_and_their_code(
    shell: Shell, words: list[str], ours: dict[str, str], code: int, message: str
) -> None:
    done = shell.run(*words, **ours)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_debug_prints_the_traceback(shell: Shell) -> None:
    assert "Traceback" in shell.run("--debug", "result", "no-such-job").stderr


def test_a_job_survives_restarts_and_kills(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    sandbox_port = str(free_port())
    sandbox = shell.start("sandbox", "--port", sandbox_port)
    exports = dict(re.findall(r"export (\w+)='(.*)'", _printed_by(shell, "ACCOUNT_ID")))
    exports |= {"OUTWAIT_FLOWER__PORT": str(free_port()), "OUTWAIT_FLOWER__BASIC_AUTH": "me:secret"}
    processes = [sandbox]
    try:
        up = shell.up(**exports)
        processes.append(up)
        worker = int(re.findall(r"service-started service=worker-1 pid=(\d+)", shell.log)[-1])
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: shell.log.count("service-started service=worker-1") == 2)
        assert re.search(r"service-ended service=worker-1 code=-9", shell.log)
        _check_flower(exports["OUTWAIT_FLOWER__PORT"])
        query = [*QUESTION, "-p", "query=restart", "--id", "kept", "-p", 'metadata={"sandbox": {"duration": 3}}']
        assert shell.run("submit", *query, **exports).returncode == 0
        os.kill(_server_of(up.pid), signal.SIGKILL)
        wait_until(lambda: "redis-ended" in shell.log and shell.run("status", "kept", **exports).returncode == 0)
        up.terminate()
        assert up.wait(PATIENCE) == 0
        assert not (tmp_path / "outwait-data" / "running.json").exists()
        assert [args for args in processes_of(tmp_path) if "sandbox" not in args] == []
        assert shell.run("jobs").returncode == 7
        up = shell.up("--no-flower", **exports | {"OUTWAIT_POLL__LEASE": "3", "OUTWAIT_POLL__TIME_LIMIT": "2"})
        processes.append(up)
        wait_until(lambda: shell.run("watch", "kept", "--timeout", str(PATIENCE)).returncode == 0)
        up.send_signal(signal.SIGINT)
        assert up.wait(PATIENCE) == 0
        totals = httpx.get(f"http://127.0.0.1:{sandbox_port}/_ledger/totals").json()
        assert totals["unless"]["jobs"] == 1
    finally:
        for process in processes:
            process.terminate()
            process.wait(PATIENCE)
    assert processes_of(tmp_path) == []


def _server_of(up: int) -> int:
    listing = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(up)], capture_output=True, text=True, check=True
    )
    return next(int(line.split()[0]) for line in listing.stdout.splitlines() if "valkey-server" in line)


def _printed_by(shell: Shell, last: str) -> str:
    wait_until(lambda: last in shell.log)
    return shell.log


def _check_flower(port: str) -> None:
    url = f"http://127.0.0.1:{port}"

    def healthy() -> bool:
        try:
            return httpx.get(f"{url}/healthcheck").status_code == 200
        except httpx.TransportError:
            return False

    wait_until(healthy)
    assert httpx.get(f"{url}/workers").status_code == 401
    assert httpx.get(f"{url}/api/workers", auth=("me", "wrong")).status_code == 401
    assert httpx.get(f"{url}/api/workers", auth=("me", "secret")).status_code == 200
