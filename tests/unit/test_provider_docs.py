"""docs/providers.md names everything that a provider has."""

from pathlib import Path

import pytest

from outwait.worker.providers.contract import ProviderSettings
from outwait.worker.providers.registry import PROVIDERS

PAGE = (Path(__file__).parents[2] / "docs" / "providers.md").read_text()
SECTIONS = {section.partition("\n")[0].strip().lower(): section for section in PAGE.split("\n## ")}


@pytest.mark.parametrize("name", PROVIDERS)
def test_settings_and_defaults_are_told(name: str) -> None:
    section = SECTIONS[name]
    for setting, field in PROVIDERS[name].settings_model.model_fields.items():
        specific = setting not in ProviderSettings.model_fields or setting == "base_url"
        assert f"`{setting.upper()}`" in (section if specific else PAGE), setting
        if specific and not field.is_required() and field.default is not None:
            assert f"| {field.default} |" in section.replace("`", ""), setting


@pytest.mark.parametrize("name", PROVIDERS)
def test_operations_and_parameters_are_told(name: str) -> None:
    section = SECTIONS[name]
    for operation in PROVIDERS[name].operations.values():
        assert f"| `{operation.name}` |" in section
        for parameter in operation.params.model_fields:
            assert f"`{parameter}`" in section, parameter
