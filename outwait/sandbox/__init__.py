"""The sandbox: a local server that speaks the three providers' APIs, with faults to order and a ledger.

It knows nothing of the engine and is known only to the command line and to tests. docs/sandbox.md tells how to use it.
"""

from outwait.sandbox.behaviour import Behaviour, Fault
from outwait.sandbox.credentials import environment
from outwait.sandbox.options import SandboxOptions
from outwait.sandbox.server import create_app, serve

__all__ = ["Behaviour", "Fault", "SandboxOptions", "create_app", "environment", "serve"]
