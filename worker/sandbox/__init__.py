"""The sandbox: a local server that speaks the three providers' APIs, with faults to order and a ledger.

It knows nothing of the engine and is known only to the command line and to tests. docs/sandbox.md tells how to use it.
"""

from worker.sandbox.behaviour import Behaviour, Fault
from worker.sandbox.credentials import environment
from worker.sandbox.options import SandboxOptions
from worker.sandbox.server import create_app, serve

__all__ = ["Behaviour", "Fault", "SandboxOptions", "create_app", "environment", "serve"]
