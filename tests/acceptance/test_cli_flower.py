"""Flower beside `outwait up`, as a person finds it from the job's page: its Revoke button works, or is not there."""

import json
from pathlib import Path

import httpx

from outwait.worker.local.embedded import free_port
from tests.acceptance.test_cli import QUESTION, Shell
from tests.patience import PATIENCE, wait_until


def test_revoke_works_with_the_login_that_up_makes_and_is_not_shown_without_one(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    with_login, without = free_port(), free_port()
    up = shell.up("--sandbox", OUTWAIT_FLOWER__PORT=str(with_login))
    other = shell.start("flower", OUTWAIT_FLOWER__PORT=str(without))
    try:
        never = json.dumps({"sandbox": {"outcome": "never"}})
        asked = shell.run("submit", *QUESTION, "-p", "query=revoke me", "-p", f"metadata={never}")
        job = asked.stdout.strip()
        key = (tmp_path / "outwait-data" / "web.key").read_text().strip()
        assert key not in shell.log
        auth = httpx.BasicAuth("outwait", key)
        base = f"http://127.0.0.1:{with_login}"

        def shown(url: str, auth: httpx.Auth | None) -> str:
            try:
                answer = httpx.get(f"{url}/task/{job}", auth=auth, timeout=PATIENCE)
            except httpx.TransportError:
                return ""
            return answer.text if answer.status_code == 200 else ""

        assert 'id="task-revoke"' in wait_until(lambda: shown(base, auth))
        plain = wait_until(lambda: shown(f"http://127.0.0.1:{without}", None))
        assert "task-revoke" not in plain
        assert "OUTWAIT_FLOWER__BASIC_AUTH" in plain
        assert httpx.post(f"{base}/api/task/revoke/{job}").status_code == 401
        assert httpx.post(f"{base}/api/task/revoke/{job}", auth=auth, timeout=PATIENCE).status_code == 200
        wait_until(lambda: shell.json("status", job)["job"]["state"] == "cancelled")
    finally:
        for process in (other, up):
            process.terminate()
            process.wait(PATIENCE)


def test_flower_has_a_login_with_a_redis_of_others_too(tmp_path: Path, redis_url: str) -> None:
    shell, port = Shell(tmp_path), free_port()
    ours = {"OUTWAIT_REDIS_URL": redis_url, "OUTWAIT_NAMESPACE": "up-login", "OUTWAIT_INTAKE__QUEUE": "up-login-in"}
    up = shell.start("up", "--no-web", OUTWAIT_FLOWER__PORT=str(port), **ours)
    try:
        base = f"http://127.0.0.1:{port}"

        def status(auth: tuple[str, str] | None) -> int:
            try:
                return httpx.get(f"{base}/workers", auth=auth, timeout=PATIENCE).status_code
            except httpx.TransportError:
                return 0

        assert wait_until(lambda: status(None)) == 401
        file = tmp_path / "outwait-data" / "flower.login"
        assert file.stat().st_mode & 0o777 == 0o600
        assert status(("outwait", file.read_text())) == 200
        assert f"log in as outwait; the password is in {file.relative_to(tmp_path)}" in shell.log
        assert file.read_text() not in shell.log
    finally:
        up.terminate()
        up.wait(PATIENCE)
