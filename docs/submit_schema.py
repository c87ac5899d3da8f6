"""Writes docs/contract/submit.v1.schema.json from the model that validates requests: `make docs`."""

import json
from pathlib import Path

from outwait.worker.model.jobs import JobRequest

FILE = Path(__file__).parent / "contract" / "submit.v1.schema.json"


def text() -> str:
    """The up-to-date content of the file."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **JobRequest.model_json_schema()}
    schema["title"] = "kwargs of tasks.submit, version 1"
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
