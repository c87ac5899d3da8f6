"""Where results go: runs one delivery for one handler.

A handler is a function of the user's marked `@handler`, a task of another Celery app, a Redis stream or a JSON
Lines file. Nothing here knows lanes, retries or the store: `tasks.deliver` decides what a failure means.
"""

from tasks.handlers.delivery import Handlers, StreamWriter
from tasks.handlers.envelope import Envelope
from tasks.handlers.functions import handler
from worker.errors import DeliveryFailed, DeliveryRefused

__all__ = ["DeliveryFailed", "DeliveryRefused", "Envelope", "Handlers", "StreamWriter", "handler"]
