"""Writes docs/openapi.json, the document that every web process tells at /v1/openapi.json: `make docs`."""

import json
from pathlib import Path

from outwait.config.settings import Settings
from outwait.web.app import create

FILE = Path(__file__).parent / "openapi.json"


def text() -> str:
    """The file as it should be. No setting changes it."""
    return json.dumps(create(Settings(_env_file=None)).openapi(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
