"""A provider that is added as docs/providers.md says, in a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.patience import PATIENCE

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

FILES = ("worker/providers/acme.py", "outwait/sandbox/acme.py", "tests/contract/test_acme_contract.py")
"""Where the page's examples go, in their order."""

LINES = {
    "worker/providers/registry.py": {
        "from outwait.worker.providers.contract": (
            "from outwait.worker.providers.acme import Acme\nfrom outwait.worker.providers.contract"
        ),
        '    "elevateai": ElevateAI,': '    "acme": Acme,\n    "elevateai": ElevateAI,',
    },
    "pyproject.toml": {
        '"outwait.worker.providers.unless"]': '"outwait.worker.providers.unless", "outwait.worker.providers.acme"]'
    },
    "outwait/sandbox/server.py": {
        "from outwait.sandbox.control": "from outwait.sandbox.acme import Acme\nfrom outwait.sandbox.control",
        "RingCentral, ElevateAI, Unless)": "RingCentral, ElevateAI, Unless, Acme)",
    },
    "outwait/sandbox/credentials.py": {
        'UNLESS = "/unless/api/v1"': ('UNLESS = "/unless/api/v1"\nACME = "/acme/v1"\nACME_KEY = "sandbox-acme-key"\n'),
        "    providers = {": ('    providers = {\n        "ACME": {"BASE_URL": base + ACME, "API_KEY": ACME_KEY},'),
    },
}
"""What the page says to add to files that there are."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for name in ("outwait", "worker", "tasks", "config", "tests"):
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=unwanted)
    shutil.copy(ROOT / "pyproject.toml", folder)
    page = (ROOT / "docs" / "providers.md").read_text()
    blocks = re.findall(r"^   ```python\n(.*?)^   ```$", page, re.DOTALL | re.MULTILINE)
    for name, block in zip(FILES, blocks, strict=True):
        (folder / name).write_text(textwrap.dedent(block))
    for name, changes in LINES.items():
        text = (folder / name).read_text()
        for old, new in changes.items():
            assert text.count(old) == 1, f"{name}: {old}"
            text = text.replace(old, new)
        (folder / name).write_text(text)
    return folder


def run(project: Path, *command: str) -> str:
    """The output of a tool that is content."""
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        command, cwd=project, env=unmeasured, check=False, timeout=PATIENCE, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_follows_the_rules_of_the_project(project: Path) -> None:
    ruff = str(BIN / "ruff")
    run(project, ruff, "check", *FILES, *(name for name in LINES if name.endswith(".py")))
    run(project, ruff, "format", "--check", *FILES)
    run(project, str(BIN / "lint-imports"), "--no-cache")


def test_it_is_typed(project: Path) -> None:
    run(project, str(BIN / "mypy"), *FILES[:2])


def test_it_passes_the_tests_that_every_provider_passes(project: Path) -> None:
    command = [sys.executable, "-m", "pytest", FILES[2], "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    assert re.search(r"\b[23]\d passed", run(project, *command))
