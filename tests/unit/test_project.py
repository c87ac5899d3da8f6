"""The files around the code say what is true: image, Compose, locked versions, commands, import rules, settings."""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from outwait.config.settings import Settings, load_settings
from outwait.worker.providers.registry import PROVIDERS

ROOT = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SOURCES = ("outwait", "worker", "tasks", "config", "tests", "benchmarks", "docs", "examples")


def script(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("script", ROOT / path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def seconds(text: str) -> int:
    assert re.fullmatch(r"\d+s", text)
    return int(text[:-1])


def settings_from(monkeypatch: pytest.MonkeyPatch, variables: dict[str, Any]) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    return load_settings()


# Compose


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_a_health_check_restarts_and_can_be_scaled(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
    assert service["restart"] == "unless-stopped"
    assert "container_name" not in service


def test_only_web_and_flower_have_a_port_and_only_on_this_machine() -> None:
    assert {name: service["ports"] for name, service in SERVICES.items() if "ports" in service} == {
        "flower": ["127.0.0.1:5555:5555"],
        "web": ["127.0.0.1:8080:8080"],
    }


def test_redis_asks_for_a_password_that_stands_on_no_command_line() -> None:
    redis = SERVICES["redis"]
    assert COMPOSE["configs"]["redis"]["content"].split() == ["requirepass", "${REDIS_PASSWORD}"]
    (mounted,) = redis["configs"]
    assert redis["command"][1] == mounted["target"]
    assert "PASSWORD" not in " ".join(redis["command"] + redis["healthcheck"]["test"])
    assert redis["environment"]["REDISCLI_AUTH"].startswith("${REDIS_PASSWORD:?")  # it must be set


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_gains_privileges_or_writes_to_its_image(name: str) -> None:
    service = SERVICES[name]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]  # noqa: S108 - inside the container
    assert name == "redis" or service["cap_drop"] == ["ALL"]  # its image begins as root, and becomes redis


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
            assert re.fullmatch(r"[^@]*|redis://:\$\{REDIS_PASSWORD\}@redis:6379/0", str(value))


def test_redis_keeps_what_it_holds() -> None:
    command = SERVICES["redis"]["command"]
    options = dict(zip(command[2::2], command[3::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
    volume, _, folder = SERVICES["redis"]["volumes"][0].partition(":")
    assert volume in COMPOSE["volumes"]
    assert folder == "/data"


@pytest.mark.parametrize("name", ["worker", "web", "flower"])
def test_our_services_wait_for_redis_with_settings_that_are_good(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    service = SERVICES[name]
    assert service["depends_on"]["redis"]["condition"] == "service_healthy"
    assert service["command"] == [name]
    given = {key: str(value).replace("${REDIS_PASSWORD}", "0aF9") for key, value in service["environment"].items()}
    variables = {key: value for key, value in given.items() if "${" not in value}
    settings = settings_from(monkeypatch, {"OUTWAIT_FLOWER__BASIC_AUTH": "me:pass", **variables})
    assert settings.broker == "redis://:0aF9@redis:6379/0"
    if "ports" in service:
        component = getattr(settings, name)
        assert component.address == "0.0.0.0"
        assert [f"127.0.0.1:{component.port}:{component.port}"] == service["ports"]
        assert f":{component.port}/" in service["healthcheck"]["test"][-1]


def test_a_worker_gets_more_time_to_end_than_it_takes() -> None:
    assert seconds(SERVICES["worker"]["stop_grace_period"]) >= Settings.model_fields["worker"].default.grace + 10


def test_named_volumes_are_declared_and_every_key_is_composes_own() -> None:
    start = {"build", "image", "command", "env_file", "environment", "depends_on", "volumes", "ports", "init"}
    life = {"healthcheck", "restart", "stop_grace_period", "cap_drop", "security_opt", "configs", "read_only", "tmpfs"}
    assert COMPOSE.keys() == {"services", "volumes", "configs"}
    for service in SERVICES.values():
        assert service.keys() <= start | life
        assert service["healthcheck"].keys() <= {"test", "interval", "timeout", "retries", "start_period"}
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in COMPOSE["volumes"]


# Image


def test_the_image_runs_as_nobody_special_from_locked_versions() -> None:
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER (?!root)\w+", last, re.MULTILINE)
    assert "--require-hashes --requirement requirements.lock" in DOCKERFILE
    assert "HEALTHCHECK" in last
    assert 'ENTRYPOINT ["outwait"]' in last


def test_the_image_has_a_python_that_we_support() -> None:
    images = re.findall(r"^FROM python:(\S+)-slim", DOCKERFILE, re.MULTILINE)
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


# Locked versions


def locked(name: str) -> dict[str, str]:
    text = (ROOT / name).read_text()
    entries = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).strip())
    versions = {}
    for entry in entries:
        requirement = Requirement(entry.partition(" \\")[0])
        assert "--hash=sha256:" in entry, requirement
        versions[canonicalize_name(requirement.name)] = str(requirement.specifier)
    return versions


def wanted(group: str) -> list[Requirement]:
    requirements = []
    for entry in PROJECT["dependency-groups"][group]:
        requirements += wanted(entry["include-group"]) if isinstance(entry, dict) else [Requirement(entry)]
    return requirements


def test_locked_versions_are_what_the_project_asks_for() -> None:
    run, dev = locked("requirements.lock"), locked("requirements-dev.lock")
    asked = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
    for lock, requirements in ((run, asked + wanted("build")), (dev, asked + wanted("dev"))):
        for requirement in requirements:
            assert requirement.specifier.contains(lock[canonicalize_name(requirement.name)].removeprefix("==")), (
                requirement
            )


def test_development_adds_to_what_runs_and_changes_none_of_it() -> None:
    run, dev = locked("requirements.lock"), locked("requirements-dev.lock")
    assert run.items() <= dev.items()


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_locked_versions_name_no_index(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text


# Commands


def test_make_without_a_fitting_python_says_what_to_do(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    old = tmp_path / "python3.8"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    made = subprocess.run(["make", "demo", f"PYTHON={old}"], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert made.returncode == 2
    assert "needs Python 3.11 or newer" in made.stderr
    assert "make PYTHON=" in made.stderr
    assert not (tmp_path / ".venv").exists()


def test_make_lists_its_commands() -> None:
    text = subprocess.run(["make"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    listed = set(re.findall(r"^make (\w+) ", text, re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    assert listed == set(phony[1].split())


def test_the_gate_runs_what_everybody_runs() -> None:
    gate = ROOT / ".ci" / "run"
    assert os.access(gate, os.X_OK)
    lines = gate.read_text().splitlines()
    assert "set -euo pipefail" in lines
    assert lines[-2:] == ["make check", "make test"]


def test_the_hooks_before_a_commit_run_what_the_gate_runs() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [hook["repo"] for hook in hooks] == ["local"]  # nothing is fetched
    commands = {hook["entry"].removeprefix(".venv/bin/") for hook in hooks[0]["hooks"]}
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe
    assert commands == {line.removeprefix("\t$(BIN)/") for line in recipe[1].splitlines() if "python" not in line}


# Release


def test_the_changelog_begins_with_this_version_or_with_what_comes() -> None:
    versions = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == PROJECT["project"]["version"] or versions[0] == "Unreleased"
    assert PROJECT["project"]["version"] in versions


def test_every_supported_python_is_named_and_looked_for() -> None:
    named = re.findall(r":: (3\.\d+)'", str(PROJECT["project"]["classifiers"]))
    oldest, limits = named[0], SpecifierSet(PROJECT["project"]["requires-python"])
    assert str(limits) == f">={oldest}"  # no upper limit
    (looked_for,) = re.findall(r"^NAMES := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert looked_for.split() == [f"python{version}" for version in reversed(named)]


# Import rules


def imported(tree: ast.AST) -> set[str]:
    """The top-level names that a file imports."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


BESIDE = re.compile(r"^\s*(?:import|from) (?:worker|tasks|config)\b", re.MULTILINE)
"""What may be such an import: few files have to be parsed then."""


def test_no_file_imports_the_folders_beside_the_package() -> None:
    files = [file for folder in SOURCES for file in (ROOT / folder).rglob("*.py")]
    assert len(files) > 200
    suspects = {file: text for file in files if BESIDE.search(text := file.read_text())}
    assert suspects  # a string in the tests of a user's folder, which is no import of ours
    assert not [file for file, text in suspects.items() if imported(ast.parse(text)) & {"worker", "tasks", "config"}]


def test_the_picture_of_the_rooms_is_what_the_code_says() -> None:
    rooms = script("docs/rooms.py")
    storeys = rooms.storeys()
    drawn = rooms.arrows(storeys)
    text = rooms.PAGE.read_text()
    assert not list(rooms.problems(storeys, drawn))
    assert rooms.picture(drawn) in text, "run `make docs`"
    assert rooms.page(text, drawn) == text, "run `make docs`"


def test_an_arrow_upwards_and_too_many_rooms_are_problems() -> None:
    rooms = script("docs/rooms.py")
    assert list(rooms.problems({"top": 0, "left": 1, "right": 1}, {"left": ["top"], "right": ["left"], "top": []})) == [
        "left imports top, which is not below it",
        "right imports left, which is not below it",
    ]
    assert list(rooms.problems({str(number): number for number in range(19)}, {})) == ["19 rooms are more than 18"]


def test_imports_against_the_rules_are_found(tmp_path: Path) -> None:
    for package in ("config", "worker", "tasks", "outwait"):
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=unwanted, symlinks=True)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for path, line in {
        "worker/model/jobs.py": "import outwait.tasks.submit",
        "worker/providers/unless.py": "import redis\nimport outwait.worker.providers.elevateai",
        "outwait/sandbox/limits.py": "import outwait.worker.model.errors",
        "tasks/callback.py": "import outwait.tasks.poll",
        "worker/stranger.py": "",
    }.items():
        with (tmp_path / path).open("a") as file:
            file.write(f"\n{line}\n")
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    checked = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert checked.returncode == 1
    broken = {line.partition(":")[0] for line in checked.stdout.splitlines() if line.endswith("BROKEN")}
    assert broken >= {"rooms", "flow", "redis", "providers", "sandbox"}
    assert "stranger" in checked.stdout  # a module that stands on no layer


def test_every_provider_is_kept_from_its_siblings() -> None:
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    siblings = next(contract["modules"] for contract in contracts if contract["type"] == "independence")
    assert set(siblings) == {provider.__module__ for provider in PROVIDERS.values()}


# Settings


def test_the_page_of_settings_and_the_example_are_what_the_code_says() -> None:
    table = script("docs/settings_table.py")
    text = table.PAGE.read_text()
    assert table.page(text) == text, "run `make docs`"
    assert table.EXAMPLE.read_text() == table.example(), "run `make docs`"


def test_the_example_uncommented_is_the_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    defaults = load_settings()
    lines = (ROOT / ".env.example").read_text().splitlines()
    Path(".env").write_text("\n".join(line.lstrip("#") for line in lines if line.startswith("#OUTWAIT_")))
    assert load_settings() == defaults
