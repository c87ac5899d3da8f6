"""Writes docs/openapi.json, the document that every web process serves at /v1/openapi.json: `make docs`."""

import json
from pathlib import Path

from outwait.config.settings import Settings
from outwait.web.app import create

FILE = Path(__file__).parent / "openapi.json"


def text() -> str:
    """The up-to-date content of the file. It does not depend on settings."""
    return json.dumps(create(Settings(_env_file=None)).openapi(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
