"""What the pages and the tests refer to exists: links, sections, files, tests, modules and their names."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import outwait

ROOT = Path(__file__).parents[2]
PAGES = [*map(ROOT.__truediv__, ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md"))]
PAGES += sorted((ROOT / "docs").glob("*.md"))
CURRENT = [page for page in PAGES if page.name != "CHANGELOG.md"]  # a changelog names files of the past too

EXAMPLE = "acme"
"""In the names of files that a page tells its reader to write."""

FOLDERS = r"(?:worker|tasks|config|outwait|tests|benchmarks|docs|examples)/"
TEST_FOLDERS = [ROOT / "tests" / name for name in ("", "unit", "integration", "faults", "contract", "acceptance")]
TESTS = [test for folder in TEST_FOLDERS for test in folder.glob("test_*.py") if test != Path(__file__)]
SOURCES = [file for name in ("worker", "tasks", "config", "outwait", "tests") for file in (ROOT / name).rglob("*.*")]
ROOMS = "cli|web|client|sandbox|testing|tasks|worker|config"


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The sections of a page, as a link names them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> Iterator[str]:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            yield link


def quoted(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(page))


def missing_files(page: Path) -> Iterator[str]:
    """Paths from the top of the repository, and test files by their bare names."""
    for code in quoted(page):
        path = re.match(rf"{FOLDERS}[\w./*-]*|[\w/]*test_\w+\.py", code)
        if path and EXAMPLE not in path[0] and not any(any(folder.glob(path[0])) for folder in (ROOT, *TEST_FOLDERS)):
            yield path[0]


def missing_tests(page: Path) -> Iterator[str]:
    for code in quoted(page):
        reference = re.match(r"([\w/]+\.py)::(test_\w+)(…?)", code)
        if reference:
            path, name, shortened = reference.groups()
            files = [file for folder in TEST_FOLDERS for file in folder.glob(path)]
            end = r"\w*\(" if shortened else r"\("
            if not any(re.search(rf"def {name}{end}", file.read_text()) for file in files):
                yield code


def missing_names(page: Path) -> Iterator[str]:
    """Dotted names of modules and of what is in them, in prose and in code."""
    for name in re.findall(rf"(?<![\w./{{-])outwait\.(?:{ROOMS})(?:\.\w+)*(?![\w-])", page.read_text()):
        if not resolves(name):
            yield name


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or a name that its module mentions. Nothing is imported."""
    module = ROOT
    for part in name.split("."):
        if (module / part).is_dir():
            module /= part
        elif (module / f"{part}.py").is_file():
            module /= f"{part}.py"
        else:
            source = module if module.is_file() else module / "__init__.py"
            return re.search(rf"\b{part}\b", source.read_text()) is not None
    return True


def missing_imports(page: Path) -> Iterator[str]:
    for module, names in re.findall(r"^\s*from (outwait[\w.]*) import ([\w, ]+)", page.read_text(), re.MULTILINE):
        for name in names.replace(" ", "").split(","):
            public = name in outwait.__all__ if module == "outwait" else resolves(f"{module}.{name}")
            if not public:
                yield f"{module}.{name}"


def missing_protectors(test: Path) -> Iterator[str]:
    """Files and names of which a docstring says that they protect."""
    for text in re.findall(r'Protected by (.*?)"""', test.read_text(), re.DOTALL):
        paths = re.findall(r"[\w/]+\.(?:py|lua)\b", text)
        files = {path: [file for file in SOURCES if file.as_posix().endswith(f"/{path}")] for path in paths}
        yield from (path for path in paths if not files[path])
        sources = "".join(file.read_text() for matches in files.values() for file in matches)
        yield from (name for name in re.findall(r"`(\w+)`", text) if not re.search(rf"\b{name}\b", sources))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert list(broken_links(page)) == []


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: page.name)
def test_files_and_tests_that_a_page_names_exist(page: Path) -> None:
    assert [*missing_files(page), *missing_tests(page)] == []


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: page.name)
def test_modules_and_names_that_a_page_imports_exist(page: Path) -> None:
    assert [*missing_names(page), *missing_imports(page)] == []


@pytest.mark.parametrize("test", TESTS, ids=lambda test: test.stem)
def test_what_a_test_names_as_protecting_exists(test: Path) -> None:
    assert list(missing_protectors(test)) == []


def test_every_page_is_linked_from_another() -> None:
    linked = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in PAGES
        for link in re.findall(r"\]\(([^)\s:]+)\)", prose(page))
    }
    assert [page.name for page in PAGES if page not in linked and page.name != "README.md"] == []
