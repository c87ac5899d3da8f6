"""The files around the code say what is true: locked versions, commands, import rules, settings."""

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from outwait.config.settings import load_settings
from outwait.worker.providers.registry import PROVIDERS

ROOT = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SOURCES = ("outwait", "worker", "tasks", "config", "tests", "benchmarks", "docs", "examples")


def script(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("script", ROOT / path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


def test_the_page_of_licences_is_what_the_locked_packages_say() -> None:
    page = (ROOT / "docs" / "licences.md").read_text()
    assert script("docs/licences.py").page(page) == page
    rows = re.findall(r"^\| (\S+) \| (\S+) \| (.+?) \|", page, re.MULTILINE)
    assert {canonicalize_name(name): f"=={version}" for name, version, _ in rows[1:]} == locked("requirements.lock")
    assert "unknown" not in [licence for _, _, licence in rows]


def test_the_bill_of_materials_lists_what_is_locked_with_its_hashes(tmp_path: Path) -> None:
    written = tmp_path / "sbom" / "outwait.cdx.json"
    as_it_is = [f"--old-file={sys.prefix}/{stamp}" for stamp in (".dev", "pyvenv.cfg")]
    make = ["make", f"SBOM={written}", f"VENV={sys.prefix}", *as_it_is, "sbom"]
    subprocess.run(make, cwd=ROOT, check=True, capture_output=True)
    bill = json.loads(written.read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["version"] == PROJECT["project"]["version"]
    assert "timestamp" not in bill["metadata"]  # the same lock gives the same bill
    versions = {part["name"]: f"=={part['version']}" for part in bill["components"]}
    assert versions == locked("requirements.lock")
    hashes = {
        each["content"]
        for part in bill["components"]
        for reference in part["externalReferences"]
        for each in reference["hashes"]
    }
    assert hashes == set(re.findall(r"sha256:([0-9a-f]{64})", (ROOT / "requirements.lock").read_text()))


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
