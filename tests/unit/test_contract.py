"""The published contract: the schema is the model's, and what docs/enqueueing.md shows follows it."""

import base64
import importlib.util
import json
import re
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from outwait.worker.engine.messages import decode
from outwait.worker.model.jobs import JobRequest
from tests.stack import ROOT

SCHEMA = json.loads((ROOT / "docs" / "contract" / "submit.v1.schema.json").read_text())
PAGE = (ROOT / "docs" / "enqueueing.md").read_text()
EXAMPLES = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
REQUESTS = [example for example in EXAMPLES if "provider" in example]
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_the_schema_is_what_the_model_generates() -> None:
    spec = importlib.util.spec_from_file_location("submit_schema", ROOT / "docs" / "submit_schema.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.FILE.read_text() == script.text(), "run `make docs`"


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request["provider"])
def test_the_examples_follow_schema_and_model(request_: dict[str, Any]) -> None:
    VALIDATOR.validate(request_)
    JobRequest.model_validate(request_)


def test_the_largest_example_has_every_field() -> None:
    assert set(REQUESTS[-1]) == set(JobRequest.model_fields)


def test_every_field_is_explained() -> None:
    for name in JobRequest.model_fields:
        assert f"`{name}`" in PAGE, name


def test_a_compression_that_cannot_be_undone_is_told() -> None:
    text = base64.b64encode(b"whatever").decode()
    headers = {"id": "j-1", "task": "tasks.submit", "compression": "application/x-squashed"}
    message = {"body": text, "content-type": "application/json", "content-encoding": "utf-8", "headers": headers}
    sent = decode(json.dumps({**message, "properties": {"body_encoding": "base64"}}).encode(), 0.0)
    assert sent.job_id == "j-1"
    assert sent.refusal.startswith("compression: given 'application/x-squashed'; workers here can read")
    assert "application/x-gzip" in sent.refusal


BASE = {"provider": "unless", "operation": "query"}
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "provider": st.text(max_size=45),
    "operation": st.text(max_size=65),
    "targets": st.lists(st.text(max_size=5), max_size=22),
    "idempotency_key": st.none() | st.text(max_size=3),
    "deadline": st.none() | st.integers(-1, 3_000_000),
    "tenant": st.none() | st.text(max_size=3),
    "priority": st.integers(-2, 12),
    "version": st.integers(0, 3),
    "colour": st.just("red"),
}


@given(st.fixed_dictionaries({}, optional=FIELDS))
def test_schema_and_model_agree(fields: dict[str, Any]) -> None:
    asked = BASE | fields
    try:
        JobRequest.model_validate(asked)
    except ValidationError:
        assert not VALIDATOR.is_valid(asked)
    else:
        assert VALIDATOR.is_valid(asked)


def test_the_bare_message_of_the_page_is_read() -> None:
    (bare,) = (example for example in EXAMPLES if "headers" in example)
    asked = base64.b64encode(json.dumps([[], REQUESTS[0], {}]).encode()).decode()
    sent = decode(json.dumps(bare | {"body": asked}).encode(), 0.0)
    assert (sent.job_id, sent.request, sent.refusal) == ("order-4711", REQUESTS[0], "")
