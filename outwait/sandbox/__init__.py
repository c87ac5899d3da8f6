"""The sandbox: a local server with the APIs of all providers, faults on demand, and a ledger.

It does not use the engine; only the command line and tests use it. docs/sandbox.md explains it.
"""

from outwait.sandbox.behaviour import Behaviour, Fault
from outwait.sandbox.credentials import environment
from outwait.sandbox.options import SandboxOptions
from outwait.sandbox.server import create_app, serve

__all__ = ["Behaviour", "Fault", "SandboxOptions", "create_app", "environment", "serve"]
