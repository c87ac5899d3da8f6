"""docs/providers.md names everything that a provider has."""

import textwrap
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import pytest
from pydantic import Field

from outwait.worker.providers import contract, exchange
from outwait.worker.providers.contract import ProviderSettings
from outwait.worker.providers.registry import PROVIDERS

PAGE = (Path(__file__).parents[2] / "docs" / "providers.md").read_text()
SECTIONS = {section.partition("\n")[0].strip().lower(): section for section in PAGE.split("\n## ")}


@pytest.mark.parametrize("name", PROVIDERS)
def test_settings_and_defaults_are_told(name: str) -> None:
    section = SECTIONS[name]
    for setting, field in PROVIDERS[name].settings_model.model_fields.items():
        own = setting not in ProviderSettings.model_fields or setting == "base_url"
        assert f"`{setting.upper()}`" in (section if own else PAGE), setting
        if own and not field.is_required() and field.default is not None:
            assert f"| {field.default} |" in section.replace("`", ""), setting


@pytest.mark.parametrize("name", PROVIDERS)
def test_operations_and_parameters_are_told(name: str) -> None:
    section = SECTIONS[name]
    for operation in PROVIDERS[name].operations.values():
        assert f"| `{operation.name}` |" in section
        for parameter in operation.params.model_fields:
            assert f"`{parameter}`" in section, parameter


async def test_the_example_of_a_provider_works() -> None:
    code = textwrap.dedent(PAGE.split("```python\n")[1].split("```")[0])
    names: dict[str, Any] = {**vars(contract), **vars(exchange), "Field": Field, "httpx": httpx, "quote": quote}
    exec(code, names)  # noqa: S102 - the page is ours

    class Sender:
        async def send(self, request: httpx.Request, **_: Any) -> httpx.Response:
            status = {"x/y": "Queued"}.get(request.url.path.rpartition("/transcripts/")[2], "completed")
            return httpx.Response(200, content=msgspec.json.encode({"id": "x/y", "status": status}), request=request)

    acme = names["Acme"](names["AcmeSettings"](api_key="k"))
    talk = exchange.Exchange(Sender(), None, 5)  # type: ignore[arg-type]
    params = acme.operations["transcribe"].params(audio_url="https://x")
    submitted = await acme.submit(contract.Submission("j", "transcribe", params), talk)
    polled = await acme.poll(contract.Waiting("j", "transcribe", submitted.external_id, "", 0, lambda: None), talk)
    assert polled == contract.Pending("queued")
    done = await acme.poll(contract.Waiting("j", "transcribe", "z", "", 0, lambda: None), talk)
    assert isinstance(done, contract.Succeeded)
