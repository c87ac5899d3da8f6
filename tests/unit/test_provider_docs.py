"""docs/providers.md and docs/sandbox.md name everything that a provider has."""

from pathlib import Path

import pytest

from outwait.sandbox import environment
from outwait.worker.providers.contract import ProviderSettings
from outwait.worker.providers.registry import PROVIDERS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "providers.md").read_text()
SECTIONS = {section.partition("\n")[0].strip().lower(): section for section in PAGE.split("\n## ")}


def section_of(name: str) -> str:
    assert name in SECTIONS, f"docs/providers.md has no section `## {PROVIDERS[name].__name__}`"
    return SECTIONS[name]


@pytest.mark.parametrize("name", PROVIDERS)
def test_settings_and_defaults_are_told(name: str) -> None:
    section = section_of(name)
    for setting, field in PROVIDERS[name].settings_model.model_fields.items():
        specific = setting not in ProviderSettings.model_fields or setting == "base_url"
        assert f"`{setting.upper()}`" in (section if specific else PAGE), setting
        if specific and not field.is_required() and field.default is not None:
            assert f"| {field.default} |" in section.replace("`", ""), setting


@pytest.mark.parametrize("name", PROVIDERS)
def test_operations_and_parameters_are_told(name: str) -> None:
    section = section_of(name)
    for operation in PROVIDERS[name].operations.values():
        assert f"| `{operation.name}` |" in section
        for parameter in operation.params.model_fields:
            assert f"`{parameter}`" in section, parameter


@pytest.mark.parametrize("name", PROVIDERS)
def test_the_sandboxs_credentials_are_told(name: str) -> None:
    page = (DOCS / "sandbox.md").read_text()
    prefix = f"OUTWAIT_PROVIDERS__{name.upper()}__"
    values = [value for variable, value in environment("").items() if variable.startswith(prefix)]
    assert values, f"`environment` of outwait/sandbox/credentials.py has no {prefix}…"
    assert [value for value in values if f"`{value}`" not in page] == [], "the table of docs/sandbox.md lacks them"
