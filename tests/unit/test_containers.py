"""The image and the Compose files fit the code, each other, and what Compose can do. No engine is needed for this."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import redis
from packaging.specifiers import SpecifierSet

from outwait.config.settings import Settings, load_settings
from outwait.sandbox import environment
from tests.compose import (
    COMPOSE,
    CONTAINERS,
    FILES,
    OURS,
    REQUIRED,
    ROOT,
    SANDBOX,
    SERVICES,
    USERS,
    VARIABLE,
    interpolate,
    interpolated,
    redis_of_compose,
    redis_options,
)
from tests.patience import PATIENCE, wait_until

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def seconds(text: str) -> int:
    assert re.fullmatch(r"\d+s", text)
    return int(text[:-1])


def settings_from(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, Any]) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    return load_settings()


# Compose


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_service_has_a_health_check_restarts_and_can_be_scaled(name: str) -> None:
    service = CONTAINERS[name]
    assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
    assert service["restart"] == "unless-stopped"
    assert "container_name" not in service
    assert name != "worker" or "ports" not in service  # two workers cannot have one port


@pytest.mark.parametrize("name", CONTAINERS)
def test_no_service_gains_privileges_or_writes_to_its_image(name: str) -> None:
    service = CONTAINERS[name]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]  # noqa: S108 - inside the container
    assert name == "redis" or service["cap_drop"] == ["ALL"]  # its image begins as root, and becomes redis


@pytest.mark.parametrize("file", [COMPOSE, SANDBOX], ids=FILES)
def test_compose_writes_no_file_into_a_read_only_container(file: dict[str, Any]) -> None:
    # Only `file:` is mounted; `content:` and `environment:` are copied into the container, which Compose then refuses.
    for kind in ("configs", "secrets"):
        copied = {name for name, source in file.get(kind, {}).items() if "file" not in source}
        for name, service in file["services"].items():
            used = {each if isinstance(each, str) else each["source"] for each in service.get(kind, [])}
            assert not (service.get("read_only") and used & copied), f"{name} cannot start with {used & copied}"


def test_one_image_is_built_once_and_shared_and_never_fetched() -> None:
    assert [name for name, service in CONTAINERS.items() if "build" in service] == ["worker"]
    shared = [service for name, service in CONTAINERS.items() if name != "redis"]
    assert {service["image"] for service in shared} == {"outwait"}
    assert {service["pull_policy"] for service in shared} == {"never"}
    assert re.fullmatch(r"redis:\d+\.\d+-alpine(@sha256:[0-9a-f]{64})?", SERVICES["redis"]["image"])


def test_web_flower_and_sandbox_have_a_port_on_this_machine_alone_that_can_be_changed() -> None:
    def ports(**variables: str) -> dict[str, list[str]]:
        services = interpolated(CONTAINERS, **variables).items()
        return {name: service["ports"] for name, service in services if "ports" in service}

    assert ports() == {
        "web": ["127.0.0.1:8080:8080"],
        "flower": ["127.0.0.1:5555:5555"],
        "sandbox": ["127.0.0.1:8099:8099"],
    }
    assert ports(OUTWAIT_WEB__PORT="18080", OUTWAIT_FLOWER__PORT="15555", SANDBOX_PORT="18099") == {
        "web": ["127.0.0.1:18080:8080"],
        "flower": ["127.0.0.1:15555:5555"],
        "sandbox": ["127.0.0.1:18099:8099"],
    }


def test_the_pages_link_to_flower_where_it_is() -> None:
    link = SERVICES["web"]["environment"]["OUTWAIT_WEB__FLOWER_URL"]
    assert interpolated(link) == "http://127.0.0.1:5555"
    assert interpolated(link, OUTWAIT_FLOWER__PORT="15555") == "http://127.0.0.1:15555"
    assert interpolated(link, OUTWAIT_WEB__FLOWER_URL="https://flower.example") == "https://flower.example"


def test_what_compose_reads_from_env_stops_no_process_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # .env is also the settings of processes without a container; they refuse an OUTWAIT_ variable that is not theirs.
    values = {"OUTWAIT_WEB__PUBLIC_URL": "https://x.example", "OUTWAIT_WEB__FLOWER_URL": "https://x.example"}
    named = {name for file in FILES for _, name, _, _ in VARIABLE.findall((ROOT / file).read_text()) if name}
    named |= set(re.findall(r"\$\{(\w+)", SERVICES["web"]["environment"]["OUTWAIT_WEB__FLOWER_URL"]))
    assert {"OUTWAIT_WEB__PORT", "OUTWAIT_FLOWER__PORT", "HANDLERS_FOLDER"} <= named
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("".join(f"{name}={values.get(name, 12345)}\n" for name in named))
    assert load_settings().web.port == 12345


def test_redis_asks_for_a_password_that_stands_on_no_command_line() -> None:
    service = SERVICES["redis"]
    assert service["command"][:2] == ["sh", "-c"]
    assert redis_options()[0] == ["$$users"]  # $$: the shell in the container puts them in
    assert "PASSWORD" not in " ".join(service["command"] + service["healthcheck"]["test"])
    for user in USERS:
        name = f"REDIS_{user.upper()}_PASSWORD"
        assert service["environment"][name].startswith(f"${{{name}:?")  # it must be set
    assert service["environment"]["REDISCLI_AUTH"] == "${REDIS_ADMIN_PASSWORD}"


def test_redis_keeps_what_it_holds() -> None:
    options = dict(redis_options()[1:])
    assert options["appendonly"] == "yes"
    assert options["maxmemory-policy"] == "noeviction"
    volume, _, folder = SERVICES["redis"]["volumes"][0].partition(":")
    assert volume in COMPOSE["volumes"]
    assert folder == "/data"


def test_redis_starts_with_the_command_of_compose_and_lets_only_those_in_who_know_the_password(tmp_path: Path) -> None:
    with redis_of_compose(tmp_path) as server:
        wait_until(lambda: server.answers, what="Redis answers")
        command_line = Path(f"/proc/{server.process.pid}/cmdline")
        if command_line.exists():  # Linux
            assert "redis" in (shown := command_line.read_text()) or "valkey" in shown
            assert not any(value in shown for value in REQUIRED.values())
        admin = server.client("admin")
        options = {name: admin.config_get(name)[name] for name in ("appendonly", "appendfsync", "save")}
        assert options == {"appendonly": "yes", "appendfsync": "everysec", "save": ""}
        assert admin.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        stranger = redis.Redis("127.0.0.1", server.port)
        with pytest.raises(redis.AuthenticationError):
            stranger.ping()


def test_redis_does_not_start_with_a_user_whose_password_is_not_given(tmp_path: Path) -> None:
    acl = tmp_path / "redis.acl"
    acl.write_text((ROOT / "redis.acl").read_text() + "user another on >REDIS_ANOTHER_PASSWORD ~* +@all\n")
    with redis_of_compose(tmp_path, acl) as server:
        assert server.process.wait(PATIENCE) == 1


def test_the_page_shows_the_users_that_compose_gives_to_redis() -> None:
    assert f"```text\n{(ROOT / 'redis.acl').read_text()}```" in (ROOT / "docs" / "operations.md").read_text()


def test_workers_and_web_know_where_providers_reach_them() -> None:
    asked = {name: SERVICES[name]["environment"]["OUTWAIT_WEB__PUBLIC_URL"] for name in ("worker", "web")}
    assert set(asked.values()) == {"${OUTWAIT_WEB__PUBLIC_URL:-}"}


def test_the_compose_file_holds_no_secret_and_asks_for_flowers_login() -> None:
    login = SERVICES["flower"]["environment"]["OUTWAIT_FLOWER__BASIC_AUTH"]
    assert login.startswith("${FLOWER_LOGIN:?")
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            hidden = re.search("auth|secret|token|key|password", name, re.IGNORECASE)
            assert not hidden or str(value).startswith("${")
            assert re.fullmatch(r"[^@]*|redis://outwait-\w+:\$\{REDIS_\w+_PASSWORD\}@redis:6379/0", str(value))


@pytest.mark.parametrize("name", OURS)
def test_our_services_wait_for_redis_with_settings_that_are_good(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    service = interpolated(SERVICES[name])
    assert service["depends_on"]["redis"]["condition"] == "service_healthy"
    assert service["command"] == [name]
    settings = settings_from(monkeypatch, service["environment"])
    assert settings.broker == f"redis://outwait-{name}:0aF9{name}@redis:6379/0"
    if "ports" in service:
        component = getattr(settings, name)
        assert component.address == "0.0.0.0"
        assert [port.rpartition(":")[2] for port in service["ports"]] == [str(component.port)]
        assert f":{component.port}/" in service["healthcheck"]["test"][-1]


def test_a_worker_gets_more_time_to_end_than_it_takes() -> None:
    assert seconds(SERVICES["worker"]["stop_grace_period"]) >= Settings.model_fields["worker"].default.grace + 10


@pytest.mark.parametrize("name", CONTAINERS)
def test_what_is_mounted_is_there(name: str) -> None:
    for volume in interpolated(CONTAINERS[name].get("volumes", [])):
        if isinstance(volume, str):
            assert volume.partition(":")[0] in COMPOSE["volumes"]  # a folder in this form would be made, as root
        else:
            assert volume["type"] == "bind"
            assert volume["read_only"] is True
            assert volume["bind"] == {"create_host_path": False}
            assert (ROOT / volume["source"]).exists()


def test_a_worker_finds_the_users_handlers_behind_what_is_installed() -> None:
    (mounted,) = [volume for volume in SERVICES["worker"]["volumes"] if isinstance(volume, dict)]
    assert interpolate(mounted["source"], {"HANDLERS_FOLDER": "/home/me/handlers"}) == "/home/me/handlers"
    # A .pth file adds its folder last. PYTHONPATH would come first, and the user's celery.py hide an installed package.
    assert re.search(rf"^RUN echo {mounted['target']} > .*\.pth", DOCKERFILE, re.MULTILINE)
    assert "PYTHONPATH" not in DOCKERFILE


def test_the_example_in_the_mounted_folder_is_a_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    (mounted,) = [volume for volume in SERVICES["worker"]["volumes"] if isinstance(volume, dict)]
    code = "from outwait.tasks.handlers import functions; print(*functions.load(['handlers']))"
    monkeypatch.setenv("PYTHONPATH", str(ROOT / interpolated(mounted["source"])))
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.split() == ["crm"]


def test_the_second_file_puts_the_sandbox_in_the_place_of_every_provider() -> None:
    sandbox = interpolated(SANDBOX["services"]["sandbox"])
    assert sandbox["command"][-2:] == ["--port", "8099"]
    assert SANDBOX["services"]["worker"]["environment"] == environment("http://sandbox:8099")
    assert SANDBOX["services"]["worker"]["depends_on"] == {"sandbox": {"condition": "service_healthy"}}


def test_every_key_is_composes_own() -> None:
    start = {"build", "image", "pull_policy", "command", "env_file", "environment", "depends_on", "volumes", "ports"}
    life = {"healthcheck", "restart", "stop_grace_period", "init", "cap_drop", "security_opt", "read_only", "tmpfs"}
    assert COMPOSE.keys() == {"x-outwait", "services", "volumes"}
    assert SANDBOX.keys() == {"x-sandbox", "services"}
    for service in [*SERVICES.values(), *SANDBOX["services"].values()]:
        assert service.keys() <= start | life
        assert service.get("healthcheck", {}).keys() <= {"test", "interval", "timeout", "retries", "start_period"}


def test_compose_itself_reads_both_files_as_these_tests_do(tmp_path: Path) -> None:
    asked = ["docker", "compose", "version"]
    if shutil.which("docker") is None or subprocess.run(asked, check=False, capture_output=True).returncode:
        pytest.skip("`docker compose` is not installed here: only the structure of the files is checked")
    env = tmp_path / "env"
    env.write_text("".join(f"{name}={value}\n" for name, value in REQUIRED.items()))
    files = [part for name in FILES for part in ("--file", str(ROOT / name))]
    command = ["docker", "compose", "--env-file", str(env), *files, "config", "--format", "json"]
    read = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["services"]
    assert read.keys() == CONTAINERS.keys()
    ours = interpolated(CONTAINERS)
    for name, service in read.items():
        ports = [f"{each['host_ip']}:{each['published']}:{each['target']}" for each in service.get("ports", [])]
        assert ports == ours[name].get("ports", [])
        assert service["command"] == [part.replace("$", "$$") for part in ours[name]["command"]]
    assert read["worker"]["environment"].items() >= environment("http://sandbox:8099").items()
    assert read["worker"]["depends_on"].keys() == {"redis", "sandbox"}


# Image


def test_the_image_runs_as_nobody_special_from_locked_versions() -> None:
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER (?!root)\w+", last, re.MULTILINE)
    assert "--require-hashes --requirement requirements.lock" in DOCKERFILE
    assert "HEALTHCHECK" in last
    assert 'ENTRYPOINT ["outwait"]' in last


def test_the_image_has_a_python_that_we_support() -> None:
    images = re.findall(r"^FROM python:([\d.]+)-slim(?:@sha256:[0-9a-f]{64})?(?: AS build)?$", DOCKERFILE, re.MULTILINE)
    assert len(set(images)) == 1
    assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(images[0])


def test_the_image_gets_what_it_installs_and_nothing_else() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    folders = {"outwait", "worker", "tasks", "config"}
    files = {"pyproject.toml", "requirements.lock", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}
    assert kept == folders | files
    assert all((ROOT / name).exists() for name in kept)


def test_the_health_check_looks_at_the_file_that_the_worker_touches(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = dict(re.findall(r"(OUTWAIT_\w+)=(\S+)", DOCKERFILE))
    alive = str(settings_from(monkeypatch, variables).worker.alive)
    assert f"find {alive} -mmin -1" in DOCKERFILE
    assert f"find {alive} -mmin -1" in SERVICES["worker"]["healthcheck"]["test"][1]


def test_the_health_check_tells_a_fresh_file_from_an_old_one_and_none(tmp_path: Path) -> None:
    command_line = re.search(r"HEALTHCHECK .*\\\n +CMD (.*)", DOCKERFILE)
    assert command_line
    alive = tmp_path / "alive"
    command = command_line[1].replace("/tmp/outwait-alive", str(alive))  # noqa: S108 - inside the image

    def healthy() -> bool:
        return subprocess.run(["/bin/sh", "-c", command], check=False).returncode == 0

    assert not healthy()
    alive.touch()
    assert healthy()
    os.utime(alive, (0, 0))
    assert not healthy()
