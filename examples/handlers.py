"""A handler of your own: a Python function that is given every job that ends.

List the module in OUTWAIT_HANDLERS__MODULES, and name the function as a job's target, or in a route:

    export OUTWAIT_HANDLERS__MODULES=examples.handlers
    outwait submit unless query -p query="Which plans are there?" … --target crm
"""

import os
from pathlib import Path

from outwait import Envelope, handler

CRM = Path(os.environ.get("CRM_FILE", "crm.txt"))
"""Stands for the system that wants to know."""


@handler("crm")
def crm(envelope: Envelope) -> None:
    """Note how a job ended. If this raises, the delivery is tried again, later and later."""
    how = envelope.error.message if envelope.error else f"{len(str(envelope.result))} characters of result"
    with CRM.open("a") as file:
        # At least once: a real system would skip a delivery_id that it has seen.
        file.write(f"{envelope.delivery_id}  {envelope.provider} {envelope.operation} {envelope.state}: {how}\n")
