"""An address that others can reach, and a provider without TLS, are told where a person looks: in one line each."""

from pathlib import Path

from tests.acceptance.test_cli import Shell
from tests.patience import PATIENCE, wait_until

OPEN = "OUTWAIT_WEB__ADDRESS"
PLAIN = "OUTWAIT_PROVIDERS__UNLESS__BASE_URL"
GIVEN = {OPEN: "0.0.0.0", PLAIN: "http://192.0.2.1:8099/unless"}


def test_config_doctor_and_the_processes_themselves_tell_what_is_exposed(tmp_path: Path, redis_url: str) -> None:
    shell = Shell(tmp_path)
    given = {**GIVEN, "OUTWAIT_REDIS_URL": redis_url, "OUTWAIT_NAMESPACE": "exposed", "OUTWAIT_INTAKE__QUEUE": "exp"}
    config = shell.run("config", **given)
    for name in (OPEN, PLAIN):
        (line,) = [line for line in config.stderr.splitlines() if name in line]
        assert line.startswith(f"Warning: {name}: ")
    doctor = shell.run("doctor", "--no-providers", **given).stdout.splitlines()
    assert [line.split()[:2] for line in doctor if "WEB__ADDRESS" in line or "BASE_URL" in line] == [
        ["warning", PLAIN],
        ["warning", OPEN],
    ]
    worker, web = shell.start("worker", **given), shell.start("web", **given, OUTWAIT_WEB__PORT="0")
    try:
        wait_until(lambda: "web-listening" in shell.log and " ready." in shell.log, what="both have started")
        told = [line for line in shell.log.splitlines() if "exposed" in line and "WARNING" in line]
        assert sorted(name for name in (OPEN, PLAIN) for line in told if name in line) == sorted([OPEN, PLAIN])
    finally:
        for process in (worker, web):
            process.terminate()
            process.wait(PATIENCE)


def test_nothing_is_told_of_what_stays_on_this_machine(tmp_path: Path) -> None:
    assert "Warning" not in Shell(tmp_path).run("config").stderr
