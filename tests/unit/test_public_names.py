"""`from outwait import …`: what other code imports, and what that costs it."""

import ast
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import outwait

ROOT = Path(__file__).parents[2]


def loaded(code: str) -> set[str]:
    """The modules that a new process has after this code, and has not without it."""
    script = (
        f"import json, sys\nbefore = set(sys.modules)\n{code}\nprint(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT)
    return set(json.loads(done.stdout))


def test_every_public_name_is_there_and_listed_once() -> None:
    assert len(outwait.__all__) == len(set(outwait.__all__))
    assert set(outwait.__all__) <= set(dir(outwait))
    for name in outwait.__all__:
        value = getattr(outwait, name)
        assert getattr(value, "__name__", name) == name or name in {"BaseUrl", "Credential", "HeaderText", "PollAnswer"}


def test_type_checkers_see_the_names_that_programs_get() -> None:
    tree = ast.parse((ROOT / "outwait" / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: node.module or "" for node in imports for alias in node.names}
    assert homes.keys() == set(outwait.__all__)
    for name, home in homes.items():
        assert getattr(import_module(home), name) is getattr(outwait, name)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'outwait' has no attribute 'nothing'"):
        _ = outwait.nothing


def test_the_package_alone_imports_nothing() -> None:
    assert {name for name in loaded("import outwait") if name.startswith("outwait.")} == set()


HEAVY = {"redis", "celery", "kombu", "aiohttp", "httpx", "fastapi", "typer", "flower", "pydantic_settings"}


@pytest.mark.parametrize("name", ["handler", "Envelope", "DeliveryFailed", "JobFailed", "JobRequest"])
def test_a_handler_loads_neither_store_nor_connections(name: str) -> None:
    modules = loaded(f"from outwait import {name}")
    assert modules & HEAVY == set()
    rooms = {".".join(module.split(".")[:3]) for module in modules if module.startswith("outwait.")}
    assert rooms & {"outwait.worker.store", "outwait.worker.providers", "outwait.worker.engine", "outwait.cli"} == set()


@pytest.mark.parametrize("name", ["Client", "AsyncClient", "Provider"])
def test_a_producer_and_a_provider_load_neither_celery_nor_an_edge(name: str) -> None:
    unwanted = {"celery", "kombu", "aiohttp", "fastapi", "typer", "flower", "outwait.web", "outwait.cli"}
    assert loaded(f"from outwait import {name}") & unwanted == set()
