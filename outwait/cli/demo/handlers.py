"""The demo's own handler of results, written as a user writes one; examples/handlers.py has another to start from."""

import os
from pathlib import Path

from outwait import Envelope, handler


@handler("crm")
def crm(envelope: Envelope) -> None:
    """Note how a job ended."""
    with Path(os.environ["CRM_FILE"]).open("a") as file:
        file.write(f"{envelope.delivery_id}  {envelope.provider} {envelope.operation} {envelope.state}\n")
