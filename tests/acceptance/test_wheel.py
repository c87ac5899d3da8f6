"""What a release holds: the wheel puts one name into site-packages, and runs from there in a user's folder."""

import json
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile import HostileFolder

ROOT = Path(__file__).parent.parent.parent
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
CODE = {".py", ".lua", ".html", ".css", ".js", ".svg", ".typed"}

SHOP = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "shop"
version = "1"
[tool.hatch.build.targets.wheel]
packages = ["tasks"]
"""
"""Another package, whose import name is `tasks`."""


def build(source: Path, folder: Path, target: str) -> Path:
    command = [sys.executable, "-P", "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (made,) = folder.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("sdist"), "sdist")


def files(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def ours() -> Iterator[str]:
    """Every file of the package as its links show it."""
    folders = [ROOT / "outwait", *(ROOT / "outwait" / link for link in ("worker", "tasks", "config"))]
    for folder in folders:
        for file in folder.rglob("*"):
            if file.suffix in CODE:
                yield file.relative_to(ROOT).as_posix()


def test_the_wheel_puts_one_name_into_site_packages(wheel: Path) -> None:
    described = f"outwait-{VERSION}.dist-info"
    assert {name.partition("/")[0] for name in files(wheel)} == {"outwait", described}
    assert f"{described}/licenses/LICENSE" in files(wheel)


def test_the_wheel_has_every_file_of_the_package(wheel: Path) -> None:
    wanted = set(ours())
    assert {"outwait/py.typed", "outwait/worker/app.py", "outwait/worker/store/lua/claim.lua"} <= wanted
    assert wanted == {name for name in files(wheel) if name.startswith("outwait/")}


def test_the_source_archive_makes_the_same_wheel(source: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(source) as archive:
        assert not [member.name for member in archive if member.issym() or member.islnk()]
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    assert files(build(unpacked, tmp_path / "dist", "wheel")) == files(wheel)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of a fresh environment with the wheel and a package whose import name is `tasks`."""
    folder = tmp_path_factory.mktemp("fresh")
    other = folder / "shop"
    (other / "tasks").mkdir(parents=True)
    (other / "tasks" / "__init__.py").write_text("WHOSE = 'the shop'\n")
    (other / "pyproject.toml").write_text(SHOP)
    environment = folder / "environment"
    venv.create(environment, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(environment), "--disable-pip-version-check", "install"]
    wheels = [str(build(other, folder / "dist", "wheel")), str(wheel)]
    subprocess.run([*pip, "--quiet", "--no-index", "--no-deps", *wheels], check=True)
    # What Outwait needs comes from the environment of the tests: a line in a .pth file adds its packages, but none
    # of its own .pth files, so that the sources which are installed there as editable are not found.
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment / "bin"


def test_beside_a_package_that_has_its_own_tasks(installed: Path, tmp_path: Path) -> None:
    code = "import json, tasks, outwait.tasks.submit as ours; print(json.dumps([tasks.WHOSE, ours.__file__]))"
    asked = subprocess.run([installed / "python", "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    whose, file = json.loads(asked.stdout)
    assert whose == "the shop"
    assert Path(file).is_relative_to(installed.parent)


def test_the_demo_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    folder = HostileFolder(tmp_path, [str(installed / "outwait")], PYTHONPATH=".")
    assert folder.run("--version") == f"outwait {VERSION}\n"
    assert "NOT" not in folder.run("demo")


def test_everything_runs_from_the_wheel_and_handlers_import_their_neighbours(installed: Path, tmp_path: Path) -> None:
    folder = HostileFolder(tmp_path, [str(installed / "outwait")])
    folder.add("typing")  # imported before any line of ours that could reorder the path: the processes need `-P`
    with folder.up():
        assert folder.notes_after("--id", "job-1", "--target", "note") == "job-1 corner-shop\n"
